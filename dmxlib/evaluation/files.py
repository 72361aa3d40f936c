"""What an evaluation leaves behind: rows.csv, run.json and times.csv of a folder, and estimates."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from dmxlib import audio
from dmxlib.data import Track
from dmxlib.errors import InputError
from dmxlib.reproduce import whole

COLUMNS = ("system", "track", "excerpt", "metric", "value", "dropped_reason")


def read_rows(path) -> pd.DataFrame:
    """rows.csv: every figure as it was written; none where there is no file."""
    if not Path(path).exists():
        return pd.DataFrame(columns=COLUMNS)
    try:
        return pd.read_csv(path, keep_default_na=False, na_values=[""])
    except ValueError as error:
        raise InputError(f"{path} is damaged: it is no table; remove it or restore it.") from error


def read_runs(path) -> list[dict]:
    """run.json: what made the figures beside it; none where there is no file."""
    try:
        return json.loads(Path(path).read_text()) if Path(path).exists() else []
    except ValueError as error:
        raise InputError(f"{path} is damaged: it is not JSON; remove it or restore it.") from error


class Scores:
    """The rows.csv, run.json and times.csv of a folder: all systems' scores, how each was made, and seconds.

    Args:
        settings: of each system that is scored now; InputError where it was scored with others before.
    """

    def __init__(self, folder, settings: dict[str, dict]):
        self.folder, self.settings = Path(folder), settings
        self.rows, self.runs = self.folder / "rows.csv", self.folder / "run.json"
        before = {run["system"]: run for run in read_runs(self.runs) if "system" in run}
        for name, wanted in settings.items():
            if name in before and {key: before[name].get(key) for key in wanted} != wanted:
                raise InputError(
                    f"{self.rows} has {name} of other settings; remove it or name another --output_dir."
                )
        rows = read_rows(self.rows)
        if list(rows) != [*COLUMNS]:
            raise InputError(f"{self.rows} is no table of scores; name another --output_dir.")
        self.scored = set(zip(rows.system, rows.track, strict=True))

    def has(self, system: str, track: str) -> bool:
        """Whether a system's rows of a track are there already."""
        return (system, track) in self.scored

    def add(self, system: str, rows: list[dict], **facts) -> None:
        """Keep rows and facts of a system, in the files as well, whatever others wrote there meanwhile."""
        runs = read_runs(self.runs)
        if not any(run.get("system") == system for run in runs):
            runs.append({"system": system, **self.settings[system]})
        next(run for run in runs if run.get("system") == system).update(facts)
        new = pd.DataFrame(rows, columns=COLUMNS)
        old = read_rows(self.rows)
        with whole(self.runs) as runs_part, whole(self.rows) as rows_part:  # the latter is named first
            # two processes may have scored one system
            table = (pd.concat([old, new]) if len(old) else new).drop_duplicates([*COLUMNS[:4]])
            table.to_csv(rows_part, index=False)
            runs_part.write_text(json.dumps(runs, indent=2) + "\n")
        self.scored |= set(zip(new.system, new.track, strict=True))

    def add_times(self, times: pd.DataFrame, **facts) -> None:
        """Keep what `clock` found, in the place of what it found before."""
        runs = [run for run in read_runs(self.runs) if "timed" not in run]
        with whole(self.runs) as runs_part, whole(self.folder / "times.csv") as times_part:
            times.to_csv(times_part, index=False)
            runs_part.write_text(
                json.dumps([*runs, {"timed": [*times.system.unique()], **facts}], indent=2) + "\n"
            )


def keep_estimate(folder: Path, track: Track, vocals: np.ndarray) -> None:
    """Write an estimate in museval's layout: <folder>/<track>/{vocals,accompaniment}.wav."""
    audio.write(folder / track.name / "vocals.wav", vocals, track.rate, "FLOAT")
    audio.write(folder / track.name / "accompaniment.wav", track.mixture() - vocals, track.rate, "FLOAT")
