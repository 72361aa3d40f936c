"""Redraw the figures of results/ from the logs beside them: `python -m dmxlib.report`."""

from pathlib import Path

from dmxlib.errors import InputError, exit_on_input_error
from dmxlib.plots import training_curve


@exit_on_input_error
def main() -> None:
    """Draw results/training/<run>/curve.png for each run's log."""
    logs = sorted(Path("results/training").glob("*/log.jsonl"))
    if not logs:
        raise InputError("results/training holds no log; call this from the top of the repository.")
    for log in logs:
        training_curve(log, title=log.parent.name).savefig(log.with_name("curve.png"), dpi=110)
        print(log.with_name("curve.png"))


if __name__ == "__main__":
    main()
