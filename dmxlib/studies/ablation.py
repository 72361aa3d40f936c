"""Compare trainings: `python -m dmxlib.studies.ablation FILE` trains a YAML file's variants.

The file names the command that trains, its config, what all variants share and what each one changes:

    train: dmxlib/train.py
    config: dmxlib/configs/mini_stage1.yaml
    shared: {max_train_steps: 100, data_root: data/toy}
    variants:
        - {}
        - {mask_channels: 0}
    systems: [ldm-dmx]    # whose names in the evaluation the trained separator is scored under
    scored_on: {data/leave-sodium-out: --split valid}    # data sets, and what the evaluation scores of each
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
METRICS = ("sdr", "si_sdr", "lsd", "lsd_8000_16000", "mel_mae", "silence_db")


@dataclass
class Comparison:
    """The keys of the YAML file."""

    train: str = "dmxlib/train.py"
    config: str = "dmxlib/configs/mini_stage1.yaml"
    shared: dict = field(default_factory=dict)
    variants: list = field(default_factory=list)
    systems: list = field(default_factory=lambda: ["ldm-dmx", "ldm-dmx-refined"])
    scored_on: dict = field(default_factory=dict)
    results: str = "results/ablations/separator.csv"


def compare(comparison: Comparison, runs: Path = RUNS) -> None:
    """Train what has no row yet, in the file's order, into folders of `runs`; a run that was broken off is
    resumed.

    Columns: variant, command, steps, minutes, the last validation's figures, for each data set of
    `scored_on` and each system the medians of METRICS, and the mean over the sets of the SI-SDR's. Raises
    InputError where a command fails.
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
        for data_set, flags in comparison.scored_on.items():
            scores = folder / "scores" / Path(data_set).name
            asked = [*comparison.systems, "--model", f"{folder}/model", *shlex.split(flags)]
            run(["-m", "dmxlib.evaluation", *asked, "--data_root", data_set, "--output_dir", str(scores)])
            figures |= medians_of(scores)
        rows.append(figures | mean_si_sdr(figures, comparison.systems))
        with whole(table) as part:
            pd.DataFrame(rows).to_csv(part, index=False)


def training_figures(folder: Path) -> dict:
    """Steps, minutes and the last validation of a run's log."""
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    figures = [{key: record[key] for key in record if key.startswith("validation_")} for record in log]
    minutes = (log[-1]["time"] - log[0]["time"]) / 60
    return {"steps": log[-1]["step"], "minutes": round(minutes, 1)} | list(filter(None, figures))[-1]


def medians_of(scores: Path) -> dict:
    """Of each system on a data set, in the folder of its name: the medians of what of METRICS was scored."""
    rows = pd.read_csv(scores / "rows.csv")
    medians = rows[rows.metric.isin(METRICS)].groupby(["system", "metric"], sort=False).value.median()
    return {f"{scores.name}_{system}_{metric}": value for (system, metric), value in medians.items()}


def mean_si_sdr(figures: dict, systems: list[str]) -> dict:
    """Of each system the mean of its median SI-SDRs on all data sets."""
    found = {name: [v for key, v in figures.items() if key.endswith(f"_{name}_si_sdr")] for name in systems}
    return {f"mean_{name}_si_sdr": sum(values) / len(values) for name, values in found.items() if values}


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
