"""Separate songs: `python -m dmxlib.separate TRACK... -o OUT`, with the flags and folders of Demucs.

numpy, torch and the model are imported when they are needed: --help and a wrong flag answer at once, and
Ctrl-C is one line from the start.
"""

import argparse
import contextlib
import functools
import json
import multiprocessing
import os
import signal
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from dmxlib import weights
from dmxlib.errors import InputError, check_named, check_seed, exit_on_input_error, sentence

DEFAULT_MODEL = "ldm-dmx-guided-mini"
BLOCK_SECONDS = 10  # what is read at once: memory stays flat however long the song is


def make_parser() -> argparse.ArgumentParser:
    """The command line's flags."""
    from dmxlib.audio import OVERLAP

    parser = argparse.ArgumentParser(
        prog="python -m dmxlib.separate",
        description="Take the singing voice out of songs: writes vocals and no_vocals for each of them "
        "(a model of another stem, as of drums, writes drums and no_drums).",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "tracks", nargs="*", metavar="TRACK", help="songs (wav, flac, mp3, m4a ...) or folders of songs"
    )
    parser.add_argument(
        "-n", "--name", default=DEFAULT_MODEL, help="a model of --list-models, a folder, or a hub id"
    )
    parser.add_argument("-o", "--out", default="separated", metavar="DIR", help="folder to write to")
    parser.add_argument(
        "-d", "--device", default=None, help="cpu, cuda, cuda:N or mps; by default cuda where there is one"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--flac", action="store_true", help="write flac, smaller than wav and as exact")
    form.add_argument("--mp3", action="store_true", help="write mp3, small and lossy")
    depth = parser.add_mutually_exclusive_group()
    depth.add_argument("--int24", action="store_true", help="24 bits a sample instead of 16")
    depth.add_argument("--float32", action="store_true", help="32-bit float wav, which nothing is clipped in")
    parser.add_argument(
        "--filename",
        default="{track}/{stem}.{ext}",
        help="names of the files below DIR/MODEL; {track}, {trackext}, {stem} and {ext} are filled in",
    )
    parser.add_argument("--start", type=float, default=0.0, metavar="S", help="begin at this second")
    parser.add_argument(
        "--duration", type=float, default=None, metavar="S", help="stop after so many seconds"
    )
    parser.add_argument(
        "--steps", type=int, default=None, help="sampling steps; by default the model's own number"
    )
    parser.add_argument(
        "--overlap", type=float, default=OVERLAP, help="share of a chunk cross-faded with the next"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="another seed generates another voice; one gives one result"
    )
    parser.add_argument(
        "--refine",
        choices=("wiener", "none"),
        default=None,
        help="wiener: filter the recording by the voice, by default where a model generates it; none: the "
        "voice itself",
    )
    parser.add_argument(
        "-j",
        "--jobs",
        type=int,
        default=1,
        metavar="N",
        help="songs that are separated at once, each by a process",
    )
    parser.add_argument(
        "--track", type=int, default=1, metavar="N", help="which of a video's audio tracks, from 1"
    )
    parser.add_argument("--list-models", action="store_true", help="print the models that ship, and stop")
    parser.add_argument("-v", "--verbose", action="store_true", help="say what is done with each song")
    return parser


@exit_on_input_error
def main(argv=None) -> None:
    """Command line: a bad song is reported, the others go on, and the exit code is then 1."""
    parser = make_parser()
    options = parser.parse_args(argv)
    if options.list_models:
        print("\n".join(map(about, weights.shipped("about.json"))))
        return
    if not options.tracks:
        parser.error("name at least one song")
    if options.jobs < 1:
        raise InputError(f"--jobs is {options.jobs}; choose 1 or more.")
    if options.track < 1:
        raise InputError(f"--track is {options.track}; choose 1 or more.")
    check_seed(options.seed)
    check_named(options.out, "--out")
    load_system.cache_clear()  # the folder may hold another model than at an earlier call
    failed, plan, taken = False, [], set()
    with separating(options) as separated:
        (target,) = separated(target_of, [options])
        for track in expand(options.tracks):
            try:
                paths = output_paths(track, options, target)
                if taken & set(paths):
                    raise InputError(f"{paths[0]} is of another song of the same name; use --filename.")
                taken |= set(paths)
                plan.append((track, paths, options))
            except InputError as error:
                failed = True
                print(f"error: {error}", file=sys.stderr)
        for (_, paths, _), told in zip(plan, separated(separate_song, plan), strict=True):
            if told:
                failed = True
                print(f"error: {told}", file=sys.stderr)
            else:
                print(*paths, sep="\n", flush=True)
    if failed:
        sys.exit(1)


@contextlib.contextmanager
def separating(options):
    """A function like `map`, which shares the songs out to --jobs processes: they alone load the model."""
    if options.jobs == 1:
        yield map
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, spawn) as pool:

        def separated(function, songs):
            # the new processes obey it in a song alone
            handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
            results = pool.map(function, songs)
            signal.signal(signal.SIGINT, handler)
            return results

        try:
            yield separated
        finally:
            pool.shutdown(cancel_futures=True)


def target_of(options) -> str:
    """What the model takes out, a stem's name."""
    return load_system(options.name, options.device, options.jobs).target


def separate_song(song) -> str | None:
    """Separate one (track, paths, options) with this process's model; what to tell the user where that cannot
    be done."""
    track, paths, options = song
    if multiprocessing.parent_process():
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        system = load_system(options.name, options.device, options.jobs)
        with told_warnings(track):
            separate_file(system, track, paths, options)
    except Exception as error:
        if told := sentence(error):
            return told
        raise
    finally:
        if multiprocessing.parent_process():
            signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextlib.contextmanager
def told_warnings(track: Path):
    """Say each warning about a song once, in one line."""
    from tqdm import tqdm

    said = set()

    def show(message, *_):
        if str(message) not in said:
            tqdm.write(f"warning: {track}: {message}", file=sys.stderr)
        said.add(str(message))

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def about(name: str) -> str:
    """A line on a model that ships, from the about.json beside its weights: what it is, its median SI-SDR in
    dB, its speed over real time."""
    told = json.loads((weights.FOLDER / name / "about.json").read_text())
    title, score, speed = (told.get(key) for key in ("title", "si_sdr", "speed"))
    quality = "not scored" if score is None else f"SI-SDR {score:.1f} dB on unheard singers"
    pace = "speed not measured" if speed is None else f"{speed:.1f} times real time"
    return f"{name:22} {title or 'not described'}; {quality}; {pace}"


@functools.cache
def load_system(name: str, device: str | None, jobs: int):
    """The model on its device, which each of the processes loads once."""
    import torch

    from dmxlib.device import cores, find_device
    from dmxlib.ensemble import load_separator

    place = find_device(device)
    if jobs > 1:
        torch.set_num_threads(max(1, cores() // jobs))
    return load_separator(name).to(place)


def expand(tracks: list[str]) -> list[Path]:
    """Files as they are; folders become the audio files in them. Each song once."""
    from dmxlib.audio import EXTENSIONS

    paths = []
    for track in map(Path, tracks):
        if track.is_dir():
            songs = (path for path in track.iterdir() if not path.name.startswith("."))
            paths += sorted(path for path in songs if path.suffix.lower() in EXTENSIONS) or [track]
        else:
            paths.append(track)
    return [*{os.path.abspath(path): path for path in paths}.values()]


def output_paths(track: Path, options, target: str) -> tuple[Path, Path]:
    """Where the target and the rest of a song go, as demucs names them: vocals and no_vocals."""
    if track.is_dir():
        raise InputError(f"{track} is a folder without audio files.")
    extension = "flac" if options.flac else "mp3" if options.mp3 else "wav"
    folder = Path(options.out) / Path(options.name).resolve().name
    fields = {"track": track.stem, "trackext": track.suffix[1:], "ext": extension}
    try:
        names = [options.filename.format(stem=stem, **fields) for stem in (target, f"no_{target}")]
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise InputError(
            f"--filename {options.filename} has a field other than track, trackext, stem, ext."
        ) from error
    if names[0] == names[1]:
        raise InputError(f"--filename {options.filename} names both files alike; put {{stem}} into it.")
    return folder / names[0], folder / names[1]


def separate_file(system, track: Path, paths, options) -> None:
    """Read, separate and write one song block by block; the files get their names when all is written."""
    import torch
    from tqdm import tqdm

    from dmxlib import audio

    subtype = "PCM_24" if options.int24 else "FLOAT" if options.float32 else None
    with audio.open_audio(track, options.track) as file, contextlib.ExitStack() as stack:
        rate = file.samplerate
        samples = _excerpt(file, options)
        separated = system.stream(
            audio.read_blocks(file, BLOCK_SECONDS * rate, samples),
            rate,
            num_inference_steps=options.steps,
            generator=torch.Generator().manual_seed(options.seed),
            overlap=options.overlap,
            refine=None if options.refine == "none" else options.refine or system.refinement,
        )
        if options.verbose:
            print(f"{track}: {samples / rate:.1f} s at {rate} Hz", file=sys.stderr)
        outputs = [
            stack.enter_context(audio.open_for_writing(path, rate, subtype, samples)) for path in paths
        ]
        bar = stack.enter_context(
            tqdm(total=round(samples / rate), desc=track.name, unit="s", disable=options.jobs > 1)
        )
        for mixture, voice in separated:
            voice = audio.quantize(voice, outputs[0].subtype)  # so that the two files add up to the mixture
            audio.write_block(outputs[0], voice)
            audio.write_block(outputs[1], mixture - voice)
            bar.update(round(file.tell() / rate) - bar.n)


def _excerpt(file, options) -> int:
    """Seek to --start; the number of samples to read."""
    start = options.start * file.samplerate
    if not 0 <= start < file.frames - 0.5:
        raise InputError(f"--start {options.start} lies outside of {file.name}.")
    file.seek(round(start))
    rest = file.frames - file.tell()
    if options.duration is None:
        return rest
    if not options.duration > 0:
        raise InputError(f"--duration is {options.duration}; choose more than 0 seconds.")
    return round(min(rest, max(1, options.duration * file.samplerate)))


if __name__ == "__main__":
    main()
