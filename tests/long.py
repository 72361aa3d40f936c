"""Long songs and many, separated by the command: `python tests/long.py [TRIAL ...] [--minutes M]`.

Writes a row of each trial to results/reliability/long.csv, and long.md: seconds, seconds of the processor,
the most memory of a process, and whether something was lost. The system is one of random weights at 2 kHz,
of which next to nothing is the network's: what is tried is all around it. One trial is of a system that
ships: its seconds are not said, results/speed has those of an idle machine. Ends with code 1 where something
was lost.
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile as sf
from conftest import make_codec, make_pipeline

from dmxlib import reproduce

RESULTS = Path(__file__).parents[1] / "results" / "reliability"
COLUMNS = ["what", "files", "minutes of audio", "seconds", "processor", "memory, MB", "lost"]
RATE = 44_100


def noise(path, seconds: float, rate: int = RATE) -> None:
    """Write a stereo file, a second of noise over and over."""
    second = 0.1 * np.random.default_rng(0).standard_normal((rate, 2))
    path.parent.mkdir(parents=True, exist_ok=True)
    with sf.SoundFile(path, "w", rate, 2, "PCM_16") as file:
        for first in np.arange(0, seconds, 1.0):
            file.write(second[: round(rate * min(1.0, seconds - first))])


SHIPPED = "ldm-dmx-mini"
TINY = ["-n", "model", "--steps", "1", "--refine", "none"]


def started(*arguments, system=TINY) -> subprocess.Popen:
    command = [sys.executable, "-m", "dmxlib.separate", *system]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": tempfile.TemporaryFile("w+")}
    process = subprocess.Popen([*command, *map(str, arguments)], **pipes)
    process.stderr = pipes["stderr"]
    return process


def measured(calls: list[list], good=0, system=TINY) -> dict:
    """Calls side by side: seconds, those of all their processors, megabytes of the largest."""
    begin = time.monotonic()
    processes = [started(*arguments, system=system) for arguments in calls]
    usages, told = [], []
    for process in processes:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        usages.append(usage)
        process.stderr.seek(0)
        told.append(process.stderr.read())
    codes = [process.returncode for process in processes]
    return {
        "seconds": time.monotonic() - begin,
        "processor": sum(usage.ru_utime + usage.ru_stime for usage in usages),
        "memory, MB": max(usage.ru_maxrss for usage in usages) / 1024,
        "ended well": all(code == good for code in codes) and not any("Traceback" in text for text in told),
        "told": "\n".join(told),
    }


def whole(track: Path, system="model") -> bool:
    """Whether both files of a song are there, as long as it is, and add up to it."""
    folder = Path("separated") / system / track.stem
    paths = [track, folder / "vocals.wav", folder / "no_vocals.wav"]
    if not all(path.is_file() for path in paths):
        return False
    infos = [sf.info(path) for path in paths]
    if len({(info.frames, info.samplerate) for info in infos}) > 1:
        return False
    for start in (0, infos[0].frames // 2, max(0, infos[0].frames - 1000)):  # the rest is as these
        song, vocals, rest = (sf.read(path, 1000, start, dtype="int16")[0].astype(int) for path in paths)
        if np.abs(song - vocals - rest).max() > 1:
            return False
    return True


def nothing_else(count: int) -> bool:
    """Whether the folder holds the files of so many songs, and no part of others."""
    return len([path for path in Path("separated").rglob("*") if path.is_file()]) == 2 * count


# -- trials: each in a folder of its own, that holds model/ --------------------------------------------------


def one_long(minutes: float):
    noise(Path("long.wav"), 60 * minutes, 96_000)
    result = measured([["long.wav"]])
    return result, 1, minutes, whole(Path("long.wav")) and nothing_else(1)


def shipped(minutes: float):
    """Less of it: the network takes most of the time."""
    noise(Path("long.wav"), 20 * minutes)
    result = measured([["long.wav"]], system=["-n", SHIPPED]) | {"seconds": None, "processor": None}
    return result, 1, minutes / 3, whole(Path("long.wav"), SHIPPED) and nothing_else(1)


def many_short(minutes: float):
    tracks = [Path("songs") / f"{number:03}.wav" for number in range(200)]
    for track in tracks:
        noise(track, 1)
    return measured([tracks]), 200, 3.3, all(map(whole, tracks)) and nothing_else(200)


def side_by_side(minutes: float):
    """Four calls, each of the folder that holds all songs: the last of two results of one song stays."""
    tracks = [Path("songs") / f"{number:03}.wav" for number in range(10)]
    for track in tracks:
        noise(track, 3)
    return measured([["songs"]] * 4), 40, 2, all(map(whole, tracks)) and nothing_else(10)


def folders(minutes: float):
    """A folder of folders, each named to the command, as a shell does for `albums/*`."""
    tracks = [Path("albums") / str(album) / f"{album} {song}.wav" for album in range(5) for song in range(4)]
    for track in tracks:
        noise(track, 3)
    albums = sorted({track.parent for track in tracks})
    return measured([albums]), 20, 1, all(map(whole, tracks)) and nothing_else(20)


def one_fails(minutes: float):
    """The second of three songs is cut short, which is noticed when most of it is written."""
    tracks = [Path(f"{name}.wav") for name in "abc"]
    for track in tracks:
        noise(track, 30)
    sf.write("b.flac", sf.read("b.wav")[0], RATE)
    content = Path("b.flac").read_bytes()
    Path("b.flac").write_bytes(content[: 2 * len(content) // 3])
    result = measured([["a.wav", "b.flac", "c.wav"]], 1)
    told = "error: b.flac is truncated or damaged" in result["told"]
    return result, 3, 1.5, told and whole(tracks[0]) and whole(tracks[2]) and nothing_else(2)


TRIALS = {
    "many": ("200 short files in one call", many_short),
    "four": ("four calls side by side into one folder", side_by_side),
    "folders": ("a folder of folders", folders),
    "middle": ("a file that fails in the middle of a call", one_fails),
    "long": ("a file of {:g} minutes at 96 kHz", one_long),
    "shipped": (f"a file of {{:g}} minutes at 44.1 kHz, by {SHIPPED}", shipped),
}


def write(row: list) -> None:
    """long.csv, with the rows that there are of other trials, and long.md."""
    path, rows = RESULTS / "long.csv", []
    if path.exists():
        with open(path, newline="") as file:
            rows = [old for old in list(csv.reader(file))[1:] if old[0] != row[0]]
    rows.append(row)
    with reproduce.whole(path) as part, open(part, "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
    lines = "".join("| " + " | ".join(cells) + " |\n" for cells in [COLUMNS, ["---"] * len(COLUMNS), *rows])
    with reproduce.whole(RESULTS / "long.md") as part:
        part.write_text(
            "# Long songs and many\n\nSeparated by `python -m dmxlib.separate`, with a system of random "
            "weights at 2 kHz: next to nothing of\nthe time is the network's. Seconds by the clock, of a "
            "machine that other work had most of, then those\nof the processor; the memory of the largest "
            "process. Lost would be a song without both its files at\nfull length, or a file of anything "
            "else. Where a system that ships is named the time is mostly the network's,\nand not said: "
            "this machine was busy. Made by `python tests/long.py`, a row by `python tests/long.py shipped`."
            f"\n\n{lines}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trials", nargs="*", choices=[[], *TRIALS], metavar="TRIAL", help=", ".join(TRIALS))
    parser.add_argument(
        "--minutes", type=float, default=60, help="of the long song; a third of them of the system that ships"
    )
    options = parser.parse_args()
    lost = False
    for name in options.trials or TRIALS:
        title, trial = TRIALS[name]
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            make_pipeline(make_codec(2000)).save_pretrained("model")  # chunks of 10 s
            result, count, minutes, kept = trial(options.minutes)
            os.chdir("/")
        kept = kept and result["ended well"]
        lost |= not kept
        figures = ["" if result[column] is None else f"{result[column]:.0f}" for column in COLUMNS[3:6]]
        row = [
            title.format(minutes),
            str(count),
            f"{minutes:g}",
            *figures,
            "nothing" if kept else "yes",
        ]
        print(*row, sep=" | ", flush=True)
        if not kept:
            print(result["told"][-2000:])
        write(row)
    sys.exit(lost)


if __name__ == "__main__":
    main()
