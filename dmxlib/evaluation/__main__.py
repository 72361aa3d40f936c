"""Separate and score: `python -m dmxlib.evaluation SYSTEM... --data SET --out results/scores`.

Each system's scores land in <out>/<system>.csv, one row a track, excerpt and metric; what it is and how long
it takes in <out>/<system>.json (see `dmxlib.evaluation.scoring`). A run that was broken off goes on where it
stopped. Under `accelerate launch` the songs are split over the processes, and `--mixed_precision bf16`
separates in it; what is timed is float32.
"""

import argparse
import math
import shlex
import sys
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import gather_object
from tqdm import tqdm

from dmxlib.data import Track
from dmxlib.errors import InputError, exit_on_input_error
from dmxlib.evaluation.scoring import Scores, Song, keep_estimate, load_songs, seconds_per_clip
from dmxlib.evaluation.systems import SYSTEMS, Options, System, make_system
from dmxlib.reproduce import facts


def evaluate(
    accelerator: Accelerator,
    systems: dict[str, System],
    tracks: list[Track],
    scores: dict[str, Scores],
    size: str,
    dnsmos: bool = False,
    keep=None,
    most: int | None = None,
):
    """Separate and score what is missing, track by track; the main process keeps the result, system by
    system."""
    processes = accelerator.num_processes
    for first in tqdm(range(0, len(tracks), processes), desc="score", unit="song", disable=None):
        with accelerator.split_between_processes(tracks[first : first + processes]) as mine:
            songs = [Song(track, most) for track in mine]
        estimates = {}  # by system and track, for those that refine them
        for name, system in systems.items():
            rows = []
            for song in songs:
                track = song.track
                if not scores[name].has(track.name):
                    raw = estimates.get((system.refines, track.name))
                    with accelerator.autocast():
                        estimate = system.separate(track) if raw is None else system.refine(track, raw)
                    estimates[name, track.name] = estimate
                    place = {"system": name, "size": size, "track": track.name}
                    rows += [{**place, **row} for row in song.score(name, system, estimate, dnsmos)]
                    if keep:
                        keep_estimate(Path(keep) / name, track, estimate)
            rows = gather_object(rows)
            if accelerator.is_main_process:
                scores[name].add(rows)


def make_parser() -> argparse.ArgumentParser:
    """The command line's flags."""
    parser = argparse.ArgumentParser(prog="python -m dmxlib.evaluation", description=__doc__)
    parser.add_argument("systems", nargs="+", metavar="SYSTEM", help=f"of {', '.join(SYSTEMS)}")
    parser.add_argument("--data", default="data/toy", metavar="DIR", help="a prepared data set")
    parser.add_argument("--out", default="data/scores", metavar="DIR", help="folder to write to")
    parser.add_argument("--model", help="a trained system's folder, in place of what ships")
    parser.add_argument("--size", default="mini", help="what the column size says")
    parser.add_argument("--steps", type=int, help="sampling steps, in place of each system's own number")
    parser.add_argument("--seed", type=int, default=Options.seed)
    parser.add_argument("--dnsmos", action="store_true", help="score DNSMOS P.835 as well")
    parser.add_argument("--keep", metavar="DIR", help="keep the estimates there: <system>/<track>/vocals.wav")
    parser.add_argument(
        "--excerpts",
        type=int,
        metavar="N",
        help="score N sung excerpts of a song, spread evenly (default: all)",
    )
    parser.add_argument(
        "--split", default="test", help="which songs to score; choices rest on those of valid, never of test"
    )
    parser.add_argument(
        "--held-out",
        type=float,
        default=0.0,
        metavar="S",
        help="score the last S seconds of the training songs, not the songs of a split",
    )
    return parser


@exit_on_input_error
def main(argv=None) -> None:
    """Command line."""
    argv = sys.argv[1:] if argv is None else argv
    options, accelerator = vars(make_parser().parse_args(argv)), Accelerator()
    if options["excerpts"] is not None and options["excerpts"] < 1:
        raise InputError(f"--excerpts is {options['excerpts']}; choose 1 or more.")
    training, tracks = load_songs(options["data"], options["split"], options["held_out"])
    made_with = {key: options[key] for key in ("model", "steps", "seed")}
    systems = {
        name: make_system(name, Options(**made_with, training=tuple(training))) for name in options["systems"]
    }
    settings = {
        key: options[key] for key in ("size", "data", "split", "held_out", "excerpts", "dnsmos")
    } | made_with
    settings["mixed_precision"] = precision = accelerator.mixed_precision
    scores = {
        name: Scores(Path(options["out"]), name, settings | {"steps": system.steps})
        for name, system in systems.items()
    }
    how = {key: options[key] for key in ("size", "dnsmos", "keep")}
    evaluate(accelerator, systems, tracks, scores, **how, most=options["excerpts"])
    launcher = "python" if precision == "no" else f"accelerate launch --mixed_precision {precision}"
    for name, system in systems.items() if accelerator.is_main_process else ():
        scores[name].add(
            [],
            **facts(f"{launcher} -m dmxlib.evaluation {shlex.join(argv)}"),
            parameters=system.parameters,
            bandwidth=None if math.isinf(system.bandwidth) else system.bandwidth,
            **seconds_per_clip(system, tracks[0]),
        )


if __name__ == "__main__":
    main()
