"""Make anew the figures and tables of results/ from the files beside them: `python -m dmxlib.report`."""

from pathlib import Path

from dmxlib import plots
from dmxlib.config import from_values, read_yaml
from dmxlib.errors import InputError, exit_on_input_error
from dmxlib.evaluation.files import COLUMNS, read_rows, read_runs
from dmxlib.evaluation.tables import score_table, write_table2
from dmxlib.reproduce import whole
from dmxlib.studies import huang, robustness_report, sampling


@exit_on_input_error
def main() -> None:
    """Plot the curves in results/training; write the studies' tables and figures, each scores.md, and Table
    II of results/unknown-song."""
    logs = sorted(Path("results/training").glob("*/log.jsonl"))
    studies = sorted(Path("results/robustness").glob("*/table1.csv"))
    runs = [path for path in Path("results").rglob("run.json") if path.with_name("rows.csv").exists()]
    scores = {path.parent for path in runs if list(read_rows(path.with_name("rows.csv"))) == [*COLUMNS]}
    if not (logs or studies or scores):
        raise InputError("results/ holds no log, study or score; call this from the top of the repository.")
    for folder in scores:  # before anything is written
        read_runs(folder / "run.json")
    for log in logs:
        with whole(log.with_name("curve.png")) as part:
            plots.training_curve(log, title=log.parent.name).savefig(part, dpi=110)
        print(log.with_name("curve.png"))
    for study in studies:
        print(*robustness_report.write_report(study.parent), sep="\n")
    for folder in sorted(scores):
        with whole(folder / "scores.md") as part:
            part.write_text(score_table(folder))
        print(folder / "scores.md")
    if Path("results/steps/sampling.csv").exists():
        print(*sampling.write_report("results/steps"), sep="\n")
    benchmark = from_values(huang.HuangConfig, read_yaml(Path(__file__).with_name("configs") / "huang.yaml"))
    if Path(benchmark.output_dir, "scores.csv").exists():
        print(*huang.write_report(benchmark), sep="\n")
    if Path("results/unknown-song") in scores:
        print(*write_table2("results/unknown-song", "results/unknown-song"), sep="\n")


if __name__ == "__main__":
    main()
