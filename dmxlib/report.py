"""Redraw the figures of results/ from the logs and tables beside them: `python -m dmxlib.report`."""

from pathlib import Path

from dmxlib.errors import InputError, exit_on_input_error
from dmxlib.plots import training_curve
from dmxlib.robustness import draw


@exit_on_input_error
def main() -> None:
    """Draw the curve of each run in results/training and the figures of each study in results/robustness."""
    logs = sorted(Path("results/training").glob("*/log.jsonl"))
    studies = sorted(Path("results/robustness").glob("*/table1.csv"))
    if not logs + studies:
        raise InputError("results/ holds no log and no study; call this from the top of the repository.")
    for log in logs:
        training_curve(log, title=log.parent.name).savefig(log.with_name("curve.png"), dpi=110)
        print(log.with_name("curve.png"))
    for study in studies:
        print(*draw(study.parent), sep="\n")


if __name__ == "__main__":
    main()
