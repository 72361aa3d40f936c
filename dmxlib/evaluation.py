"""Separate and score: `python -m dmxlib.evaluation SYSTEM... --data SET --out results/scores`.

Each system's scores land in <out>/<system>.csv, one row a track, excerpt and metric; what it is and how long
it takes in <out>/<system>.json. Every metric of an excerpt compares the mono mean at 44.1 kHz. A run that was
broken off goes on where it stopped; under `accelerate launch` the songs are split over the processes.
"""

import argparse
import csv
import json
import os
import platform
import shlex
import statistics
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from accelerate import PartialState
from accelerate.utils import gather_object
from tqdm import tqdm

from dmxlib import audio, metrics
from dmxlib.data import SILENCE_DBFS, Track, hold_out, level_dbfs, load_tracks
from dmxlib.errors import InputError, exit_on_input_error
from dmxlib.systems import SYSTEMS, Options, Separator, System, make_system
from dmxlib.trainer import git_commit

COLUMNS = ("system", "size", "track", "excerpt", "metric", "value", "dropped_reason")
EXCERPT_SECONDS = 7.0
SUNG_FRAME_SECONDS = 0.1
SUNG_DBFS = -40.0  # a tenth of a second above it is sung, which leaves out the tails of reverb and delay
CLIP_SECONDS = 12  # the paper's


# -- which parts of a song are scored ------------------------------------------------------------------------


def excerpts(track: Track, seconds: float = EXCERPT_SECONDS) -> list[slice]:
    """A track's whole excerpts, one after the other, as slices of frames."""
    length = round(seconds * track.rate)
    return [slice(start, start + length) for start in range(0, track.frames - length + 1, length)]


def above(vocals: np.ndarray, rate: int, dbfs: float) -> np.ndarray:
    """For each tenth of a second of (2, frames): is its level above `dbfs`?"""
    size = round(SUNG_FRAME_SECONDS * rate)
    power = np.square(vocals[:, : vocals.shape[1] // size * size]).reshape(2, -1, size).mean(axis=(0, 2))
    return power > 10 ** (dbfs / 10)


def sung_excerpts(track: Track, vocals: np.ndarray) -> list[slice]:
    """The excerpts that are at least half sung."""

    def share(excerpt):
        return above(vocals[:, excerpt], track.rate, SUNG_DBFS).mean()

    return [excerpt for excerpt in excerpts(track) if share(excerpt) >= 0.5]


# -- scores --------------------------------------------------------------------------------------------------


def score(reference: np.ndarray, estimate: np.ndarray, rate: int, f0_reference) -> dict[str, float]:
    """All metrics of one excerpt (2, frames), the spectral ones on the reference's voiced frames."""
    reference, estimate = metrics.mono(reference, rate), metrics.mono(estimate, rate)
    voiced = f0_reference[1]
    rmse, missed = metrics.f0_error(f0_reference, metrics.f0(estimate, metrics.RATE))
    return {
        "sdr": metrics.sdr(reference, estimate),
        "si_sdr": metrics.si_sdr(reference, estimate),
        "lsd": metrics.lsd(reference, estimate, metrics.RATE, voiced),
        "mel_mae": metrics.mel_mae(reference, estimate, metrics.RATE, voiced),
        "log_f0_rmse": rmse,
        "missed_voiced": missed,
    }


def dropped_reason(value: float, reference: np.ndarray, estimate: np.ndarray, f0_reference) -> str:
    """Why a score is NaN; empty where it is not."""
    if not np.isnan(value):
        return ""
    if not np.isfinite(estimate).all():
        return "estimate is not finite"
    if not reference.any() or not estimate.any():
        return "silent " + ("estimate" if reference.any() else "reference")
    return "no frame voiced in both" if f0_reference[1].any() else "reference has no voiced frame"


def silence(track: Track, vocals: np.ndarray, estimate: np.ndarray) -> dict[str, float]:
    """Where nobody sings for a second or longer: the estimate's level under the mixture's, in dB (positive is
    good); and the share of sung tenths of a second where it lies more than 30 dB under the true vocals."""
    is_sung, size = above(vocals, track.rate, SUNG_DBFS), round(SUNG_FRAME_SECONDS * track.rate)
    run = round(1 / SUNG_FRAME_SECONDS)
    silent = np.convolve(~above(vocals, track.rate, SILENCE_DBFS), np.ones(run), "valid") > run - 0.5
    silent = np.convolve(silent, np.ones(run)) > 0.5  # every tenth that lies in a silent second
    mixture = track.mixture()

    def select(wave, frames):
        return wave[:, : len(frames) * size].reshape(2, -1, size)[:, frames]

    lost = level_rows(select(estimate, is_sung)) < level_rows(select(vocals, is_sung)) - 30
    levels = [level_dbfs(select(wave, silent)) if silent.any() else np.nan for wave in (mixture, estimate)]
    return {
        "silence_db": levels[0] - levels[1],
        "sung_frames_lost": float(lost.mean()) if is_sung.any() else np.nan,
    }


def level_rows(frames: np.ndarray) -> np.ndarray:
    """(2, n, size) -> level of each of n frames in dBFS."""
    return 10 * np.log10(np.square(frames, dtype=np.float64).mean(axis=(0, 2)) + 1e-20)


@dataclass
class Song:
    """A track with what all systems are scored against."""

    track: Track

    def __post_init__(self):
        self.vocals = self.track.vocals()
        self.excerpts = sung_excerpts(self.track, self.vocals)
        self.pitches = [metrics.f0(self.vocals[:, excerpt], self.track.rate) for excerpt in self.excerpts]

    def score(self, estimate: np.ndarray) -> list[dict]:
        """Rows of (excerpt, metric, value, dropped_reason) of an estimate (2, frames).

        An excerpt is named by its first second; figures of the whole track, as of its silence, have none.
        """
        rate = self.track.rate
        rows = [
            {"excerpt": "", "metric": metric, "value": value, "dropped_reason": ""}
            for metric, value in silence(self.track, self.vocals, estimate).items()
        ]
        for excerpt, pitch in zip(self.excerpts, self.pitches, strict=True):
            pair = self.vocals[:, excerpt], estimate[:, excerpt]
            for metric, value in score(*pair, rate, pitch).items():
                reason = dropped_reason(value, *pair, pitch)
                place = {"excerpt": excerpt.start / rate, "metric": metric}
                rows.append({**place, "value": value, "dropped_reason": reason})
        return rows


def seconds_per_clip(separate: Separator, track: Track, repeats: int = 3) -> list[float]:
    """Seconds that the first 12 s of a track take, after one call that is not counted."""
    clip = replace(track, last=track.first + min(track.frames, CLIP_SECONDS * track.rate))
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        separate(clip)
        times.append(time.perf_counter() - start)
    return times[1:]


# -- files ---------------------------------------------------------------------------------------------------


class Scores:
    """The two files of one system in a folder; raises InputError where they are of other settings."""

    def __init__(self, folder: Path, system: str, settings: dict):
        self.csv, self.json = folder / f"{system}.csv", folder / f"{system}.json"
        self.rows, self.facts = [], {"system": system, **settings}
        if self.csv.exists() and self.json.exists():
            with open(self.csv, newline="") as file:
                self.rows = list(csv.DictReader(file))
            facts = json.loads(self.json.read_text())
            if {key: facts.get(key) for key in self.facts} != self.facts:
                raise InputError(f"{self.csv} was made with other settings; remove it or name another --out.")
            self.facts = facts

    def has(self, track: str) -> bool:
        """Whether a track was scored already."""
        return any(row["track"] == track for row in self.rows)

    def add(self, rows: list[dict], **facts) -> None:
        """Keep rows and facts, in the files as well."""
        self.rows += rows
        self.facts |= facts
        self.csv.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.csv.with_suffix(".part")
        with open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(self.rows)
        os.replace(temporary, self.csv)
        temporary.write_text(json.dumps(self.facts, indent=2) + "\n")
        os.replace(temporary, self.json)


def keep_estimate(folder: Path, track: Track, vocals: np.ndarray) -> None:
    """Write an estimate in museval's layout: <folder>/<track>/{vocals,accompaniment}.wav."""
    audio.write(folder / track.name / "vocals.wav", vocals, track.rate, "FLOAT")
    audio.write(folder / track.name / "accompaniment.wav", track.mixture() - vocals, track.rate, "FLOAT")


# -- the command ---------------------------------------------------------------------------------------------


def load_songs(data_root, held_out: float) -> tuple[list[Track], list[Track]]:
    """(songs to learn from, songs to score): the split's two, or the training songs cut in time."""
    training = load_tracks(data_root, "train")
    return hold_out(training, held_out) if held_out else (training, load_tracks(data_root, "test"))


def evaluate(
    systems: dict[str, System], tracks: list[Track], scores: dict[str, Scores], size: str, keep=None
):
    """Separate and score what is missing, track by track; the main process keeps the result."""
    state = PartialState()
    for first in tqdm(range(0, len(tracks), state.num_processes), desc="score", unit="song", disable=None):
        rows = []
        with state.split_between_processes(tracks[first : first + state.num_processes]) as mine:
            for track in mine:
                missing = [name for name in systems if not scores[name].has(track.name)]
                song = Song(track) if missing else None
                for name in missing:
                    estimate = systems[name].separate(track)
                    place = {"system": name, "size": size, "track": track.name}
                    rows += [{**place, **row} for row in song.score(estimate)]
                    if keep:
                        keep_estimate(Path(keep) / name, track, estimate)
        rows = gather_object(rows)
        if state.is_main_process:
            for name in systems:
                scores[name].add([row for row in rows if row["system"] == name])


def make_parser() -> argparse.ArgumentParser:
    """The command line's flags."""
    parser = argparse.ArgumentParser(prog="python -m dmxlib.evaluation", description=__doc__)
    parser.add_argument("systems", nargs="+", metavar="SYSTEM", help=f"of {', '.join(SYSTEMS)}")
    parser.add_argument("--data", default="data/toy", metavar="DIR", help="a prepared data set")
    parser.add_argument("--out", default="data/scores", metavar="DIR", help="folder to write to")
    parser.add_argument("--model", default=Options.model, help="of ldm-dmx: one that ships, or a folder")
    parser.add_argument("--size", default="mini", help="what the column size says")
    parser.add_argument("--steps", type=int, default=Options.steps, help="sampling steps")
    parser.add_argument("--seed", type=int, default=Options.seed)
    parser.add_argument("--level", choices=("drawn", "projected"), help="of ldm-dmx, in place of its own")
    parser.add_argument("--keep", metavar="DIR", help="keep the estimates there: <system>/<track>/vocals.wav")
    parser.add_argument(
        "--held-out",
        type=float,
        default=0.0,
        metavar="S",
        help="score the last S seconds of the training songs, not the test songs: choices rest on these",
    )
    return parser


@exit_on_input_error
def main(argv=None) -> None:
    """Command line."""
    argv = sys.argv[1:] if argv is None else argv
    options = vars(make_parser().parse_args(argv))
    training, tracks = load_songs(options["data"], options["held_out"])
    made_with = {key: options[key] for key in ("model", "steps", "seed", "level")}
    systems = {
        name: make_system(name, Options(**made_with, training=tuple(training))) for name in options["systems"]
    }
    settings = {key: options[key] for key in ("size", "data", "held_out")} | made_with
    scores = {name: Scores(Path(options["out"]), name, settings) for name in systems}
    evaluate(systems, tracks, scores, options["size"], options["keep"])
    for name, system in systems.items() if PartialState().is_main_process else ():
        times = seconds_per_clip(system.separate, tracks[0])
        scores[name].add(
            [],
            command=f"python -m dmxlib.evaluation {shlex.join(argv)}",
            parameters=system.parameters,
            seconds_per_clip=statistics.median(times),
            seconds_std=statistics.stdev(times),
            machine=f"{platform.machine()}, {os.cpu_count()} cores",
            commit=git_commit(),
        )


if __name__ == "__main__":
    main()
