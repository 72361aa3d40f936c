"""Compare trainings: `python -m dmxlib.studies.ablation FILE` trains a YAML file's variants.

The file names the command that trains, its config, what all variants share and what each one changes:

    train: dmxlib/train.py
    config: dmxlib/configs/mini_stage1.yaml
    shared: {max_train_steps: 100, data_root: data/toy}
    variants:
        - {}
        - {mask_channels: 0}
    scored_on: [data/leave-sodium-out]    # of a separator: data sets whose valid songs score it as well
    results: results/ablations/separator.csv    # runs land in data/runs/ablations/<results' name>/<variant>
"""

import argparse
import json
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from dmxlib.config import from_values, read_yaml
from dmxlib.errors import InputError, exit_on_input_error
from dmxlib.reproduce import whole

RUNS = Path("data/runs/ablations")
SCORED = ("ldm-dmx", "ldm-dmx-refined")
METRICS = ("sdr", "si_sdr", "lsd", "lsd_8000_16000", "mel_mae", "silence_db")


@dataclass
class Comparison:
    """The keys of the YAML file."""

    train: str = "dmxlib/train.py"
    config: str = "dmxlib/configs/mini_stage1.yaml"
    shared: dict = field(default_factory=dict)
    variants: list = field(default_factory=list)
    scored_on: list = field(default_factory=list)
    results: str = "results/ablations/separator.csv"


def compare(comparison: Comparison, runs: Path = RUNS) -> None:
    """Train what has no row yet, in the file's order, into folders of `runs`; a run that was broken off is
    resumed.

    Columns: variant, command, steps, minutes, the last validation's figures, and for each data set of
    `scored_on` the medians of METRICS, raw and refined. Raises InputError where a command fails.
    """
    table = Path(comparison.results)
    rows = pd.read_csv(table).to_dict("records") if table.exists() else []
    for changes in tqdm(comparison.variants, desc=table.stem, unit="variant"):
        name = ",".join(f"{key}={value}" for key, value in changes.items()) or "base"
        if name in {row["variant"] for row in rows}:
            continue
        folder = runs / table.stem / name.replace("/", "-")
        command = [comparison.train, "--config", comparison.config, "--output_dir", str(folder)]
        for key, value in (comparison.shared | changes).items():
            command += [f"--{key}", json.dumps(value) if isinstance(value, list) else str(value)]
        run([*command, "--resume_from_checkpoint", "latest"])
        figures = {"variant": name, "command": shlex.join(["python", *command]), **training_figures(folder)}
        for data_set in comparison.scored_on:
            figures |= median_scores(folder, Path(data_set))
        rows.append(figures)
        with whole(table) as part:
            pd.DataFrame(rows).to_csv(part, index=False)


def training_figures(folder: Path) -> dict:
    """Steps, minutes and the last validation of a run's log."""
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    figures = [{key: record[key] for key in record if key.startswith("validation_")} for record in log]
    minutes = (log[-1]["time"] - log[0]["time"]) / 60
    return {"steps": log[-1]["step"], "minutes": round(minutes, 1)} | list(filter(None, figures))[-1]


def median_scores(folder: Path, data_set: Path) -> dict:
    """Score a run's separator on the valid songs of a data set; returns the medians."""
    scores = folder / "scores" / data_set.name
    songs = ["--data", str(data_set), "--split", "valid", "--out", str(scores)]
    run(["-m", "dmxlib.evaluation", *SCORED, "--model", f"{folder}/model", *songs])
    return medians_of(scores)


def medians_of(scores: Path) -> dict:
    """The medians of METRICS from the scores of a data set, in the folder of its name."""
    medians = pd.read_csv(scores / "rows.csv").groupby(["system", "metric"]).value.median()
    return {
        f"{scores.name}_{system}_{metric}": medians[system, metric] for system in SCORED for metric in METRICS
    }


def run(arguments: list[str]) -> None:
    """Python with these arguments. Raises InputError where it fails; the reason is on the terminal then."""
    if subprocess.run([sys.executable, *arguments]).returncode:
        raise InputError(f"this failed, for the reason above it: python {shlex.join(arguments)}")


@exit_on_input_error
def main(argv=None, runs: Path = RUNS) -> None:
    """Command line; `runs` is where trainings land."""
    parser = argparse.ArgumentParser(
        prog="python -m dmxlib.studies.ablation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE", help="such as dmxlib/configs/ablations.yaml")
    compare(from_values(Comparison, read_yaml(parser.parse_args(argv).file)), runs)


if __name__ == "__main__":
    main()
