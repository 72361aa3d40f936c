"""Separate and score: `python -m dmxlib.evaluation SYSTEM... --data_root SET --output_dir DIR`.

SYSTEM is a name of `dmxlib.evaluation.systems`; NAME@STEPS takes so many sampling steps in place of its own.
The folder holds rows.csv, one row a system, track, excerpt and metric (see `dmxlib.evaluation.scoring`), and
run.json, how each system was run. A run that was broken off goes on where it stopped. Under `accelerate
launch` the songs are split over the processes, `--mixed_precision bf16` separates in it, and networks compute
on its device. With --time nothing is scored: times.csv gets the seconds of all SYSTEMs, in float32.
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
from dmxlib.errors import InputError, check_named, check_seed, exit_on_input_error
from dmxlib.evaluation.files import Scores, keep_estimate
from dmxlib.evaluation.scoring import (
    CLIP_SECONDS,
    Protocol,
    Song,
    clock,
    first_seconds,
    latent_space,
    load_songs,
)
from dmxlib.evaluation.systems import SYSTEMS, Options, System, choose_models, make_system, of_one_model
from dmxlib.reproduce import alone, facts


def evaluate(
    accelerator: Accelerator,
    systems: dict[str, System],
    tracks: list[Track],
    scores: Scores,
    protocol: Protocol,
    keep=None,
) -> None:
    """Separate and score what is missing, track by track; the main process keeps the result, system by
    system.

    Args:
        keep: a folder that every estimate is written to as well.
    """
    processes = accelerator.num_processes
    for first in tqdm(range(0, len(tracks), processes), desc="score", unit="song", disable=None):
        with accelerator.split_between_processes(tracks[first : first + processes]) as mine:
            songs = [Song(track, protocol) for track in mine]
        estimates = {}  # by system and track, for those that are made of them
        for name, system in systems.items():
            rows = []
            for song in songs:
                track = song.track
                if not scores.has(name, track.name):
                    parts = [estimates.get((part, track.name)) for part in system.parts]
                    whole = parts and all(part is not None for part in parts)
                    with accelerator.autocast():
                        estimate = system.combine(track, *parts) if whole else system.separate(track)
                    estimates[name, track.name] = estimate
                    place = {"system": name, "track": track.name}
                    rows += [{**place, **row} for row in song.score(name, system, estimate)]
                    if keep:
                        keep_estimate(Path(keep) / name, track, estimate)
            rows = gather_object(rows)
            if accelerator.is_main_process:
                with alone(scores.folder, wait=True):  # others may score other systems into the folder
                    scores.add(name, rows)


def make_parser() -> argparse.ArgumentParser:
    """The command line's flags."""
    parser = argparse.ArgumentParser(prog="python -m dmxlib.evaluation", description=__doc__)
    names = f"of {', '.join(SYSTEMS)}; or NAME@STEPS"
    parser.add_argument("systems", nargs="+", metavar="SYSTEM", help=names)
    parser.add_argument(
        "--data_root", "--data", default="data/toy", metavar="DIR", help="a prepared data set"
    )
    parser.add_argument(
        "--output_dir", "--out", default="data/scores", metavar="DIR", help="folder to write to"
    )
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="[NAME=]PATH",
        help="a trained system's folder, in place of what ships, for all SYSTEMs or the one of that name; of "
        "hdemucs also torchaudio:HDEMUCS_HIGH_MUSDB",
    )
    parser.add_argument(
        "--target", default="vocals", metavar="STEM", help="what is taken out: <STEM>.wav of each song"
    )
    parser.add_argument("--seed", type=int, default=Options.seed)
    parser.add_argument("--dnsmos", action="store_true", help="score DNSMOS P.835 as well")
    parser.add_argument(
        "--musdb", action="store_true", help="score whole songs in stereo as well, as museval and SDX23 do"
    )
    parser.add_argument(
        "--waves", action="store_true", help="score SDR and SI-SDR alone, in a tenth of the time"
    )
    parser.add_argument(
        "--time", action="store_true", help="only time all SYSTEMs, in turns, on 12 s of a song"
    )
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


def run(argv: list[str], clip_seconds: float = CLIP_SECONDS, **protocol) -> None:
    """The command of these words; `protocol` takes the place of what they say of `Protocol`."""
    options, accelerator = make_parser().parse_args(argv), Accelerator()
    if options.excerpts is not None and options.excerpts < 1:
        raise InputError(f"--excerpts is {options.excerpts}; choose 1 or more.")
    if not options.held_out >= 0:
        raise InputError(f"--held-out is {options.held_out}; choose 0 or more seconds.")
    check_seed(options.seed)
    check_named(options.output_dir, "--output_dir")
    if options.keep is not None:
        check_named(options.keep, "--keep")
    device, models = accelerator.device, choose_models(options.systems, options.model)
    training, tracks = load_songs(options.data_root, options.split, options.held_out, options.target)
    own = {"seed": options.seed, "training": tuple(training), "device": device}
    systems = {name: make_system(name, Options(models[name], **own)) for name in options.systems}
    systems = of_one_model(systems, models)
    precision = accelerator.mixed_precision
    launcher = "python" if precision == "no" else f"accelerate launch --mixed_precision {precision}"
    made = facts(f"{launcher} -m dmxlib.evaluation {shlex.join(argv)}", device=str(device))
    if options.time:
        if accelerator.is_main_process:
            times = clock(systems, first_seconds(tracks[0], clip_seconds))
            with alone(options.output_dir, wait=True):
                Scores(options.output_dir, {}).add_times(times, **made)
        return
    settings = {"data": options.data_root, "mixed_precision": precision}
    settings |= {
        key: vars(options)[key] for key in ("split", "held_out", "excerpts", "dnsmos", "musdb", "seed")
    }
    if options.waves:
        settings["waves"] = True
    if options.target != "vocals":
        settings["target"] = options.target
    of_each = {
        name: settings | {"model": models[name], "steps": system.steps} for name, system in systems.items()
    }
    scores = Scores(options.output_dir, of_each)
    asked = {"most": options.excerpts} | {key: vars(options)[key] for key in ("dnsmos", "musdb", "waves")}
    space = protocol.pop("space", None) or latent_space(device)
    evaluate(accelerator, systems, tracks, scores, Protocol(space, **asked | protocol), options.keep)
    for name, system in systems.items() if accelerator.is_main_process else ():
        bandwidth = None if math.isinf(system.bandwidth) else system.bandwidth
        with alone(scores.folder, wait=True):
            scores.add(name, [], **made, parameters=system.parameters, bandwidth=bandwidth)


@exit_on_input_error
def main(argv=None) -> None:
    """Command line."""
    run(sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    main()
