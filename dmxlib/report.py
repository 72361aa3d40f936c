"""Redraw the figures and tables of results/ from the files beside them: `python -m dmxlib.report`."""

import json
from pathlib import Path

import pandas as pd

from dmxlib.errors import InputError, exit_on_input_error
from dmxlib.plots import training_curve
from dmxlib.robustness_report import draw
from dmxlib.systems import SYSTEMS


def score_table(folder: Path) -> str:
    """The scores of `dmxlib.evaluation` in a folder: medians over excerpts, in markdown, one row a system."""
    rows = pd.concat(pd.read_csv(path) for path in folder.glob("*.csv"))
    rows["order"] = rows["system"].map(list(SYSTEMS).index)
    medians = rows.groupby(["order", "metric"])["value"].median().unstack()[rows["metric"].unique()]
    facts = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
    columns = ["system", *medians.columns, "dropped", "seconds per 12-s clip"]
    lines = [columns, ["---"] * len(columns)]
    for order, values in medians.iterrows():
        system = list(SYSTEMS)[order]
        dropped = rows.loc[rows["system"] == system, "dropped_reason"].count()
        seconds = facts[system].get("seconds_per_clip", float("nan"))
        lines.append([system, *(f"{value:.3g}" for value in values), str(dropped), f"{seconds:.2g}"])
    scored = rows[["track", "excerpt"]].dropna().drop_duplicates()
    songs = ", ".join(rows["track"].unique())
    note = f"Medians over {len(scored)} excerpts of {songs}; mono mean at 44.1 kHz. Made by\n\n"
    commands = "\n".join(
        f"`{line}`\n" for line in sorted({fact["command"] for fact in facts.values() if "command" in fact})
    )
    return note + commands + "\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


@exit_on_input_error
def main() -> None:
    """Draw each curve in results/training and each figure in results/robustness; write each scores.md."""
    logs = sorted(Path("results/training").glob("*/log.jsonl"))
    studies = sorted(Path("results/robustness").glob("*/table1.csv"))
    if not logs + studies:
        raise InputError("results/ holds no log and no study; call this from the top of the repository.")
    for log in logs:
        training_curve(log, title=log.parent.name).savefig(log.with_name("curve.png"), dpi=110)
        print(log.with_name("curve.png"))
    for study in studies:
        print(*draw(study.parent), sep="\n")
    scores = {path.parent for path in Path("results").rglob("*.json") if path.with_suffix(".csv").exists()}
    for folder in sorted(scores):
        (folder / "scores.md").write_text(score_table(folder))
        print(folder / "scores.md")


if __name__ == "__main__":
    main()
