"""Bad inputs and faults, tried on every command: `python tests/faults.py [COMMAND ...]`, by default all.

Each is tried in a folder of its own, by a process that is forked off this one: the line that came, the exit
code and the number of files before and after go to results/reliability/rows.csv and table.md; rows of other
commands stay. Ends with code 1 where one fell short. As root a full disk is one of 200 kB in memory, else no
file may pass 100 kB.
"""

import contextlib
import csv
import itertools
import json
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from importlib import import_module
from pathlib import Path

import numpy as np
import soundfile as sf
import torch
from conftest import Evil, make_codec, make_pipeline

import dmxlib.ensemble  # noqa: F401  which the commands import when they need it
from dmxlib import audio, reproduce
from dmxlib.data.sets.toy import render_song

RESULTS = Path(__file__).parents[1] / "results" / "reliability"
RATE = 22_050
MODULES = {
    "separate": "separate",
    "demo": "demo",
    "data": "data.__main__",
    "latents": "latents",
    "train": "train",
    "train_codec": "train_codec",
    "evaluation": "evaluation.__main__",
    "listening": "listening.__main__",
    "notebooks": "notebooks",
    "report": "report",
}
SEPARATE = "-n tiny -o out --steps 1"
LATENTS = (
    "--data_root=toy --codec=tiny/codec --output_dir=out --pairs=8 --shard_size=4 --chunk_frames=64 "
    "--hold_out_seconds=1 --validation_pairs=1"
)
TRAIN = (
    "--codec=tiny/codec --data_root=toy --output_dir=out --pairs=8 --chunk_frames=64 --hold_out_seconds=1 "
    "--validation_pairs=1 --level_channels=[16,16,16] --blocks_per_level=1 --first_injection=0 "
    "--attention_from=2 --fourier_channels=16 --time_channels=16 --train_batch_size=2 --max_train_steps=4 "
    "--checkpointing_steps=2 --validation_steps=100 --dataloader_num_workers=0"
)
CODEC = (
    "--data_root=toy --output_dir=out --hold_out_seconds=1 --excerpt_seconds=0.4 --n_filters=4 --dimension=8 "
    "--n_q=2 --bins=16 --train_batch_size=4 --epoch_length=8 --max_train_steps=2 --chunk_frames=64"
)
EVALUATION = "mixture --data_root toy --output_dir out --waves --excerpts 1"
PREPARE = "prepare folder out --source toy"
MAKE = "make estimates out --data_root toy --systems a b --recordings 1 --seconds 1.2"


# -- what there is in each folder ----------------------------------------------------------------------------


def noise(seconds=1.0, gain=0.1):
    return gain * np.random.default_rng(0).standard_normal((round(seconds * RATE), 2))


def make_base(folder: Path) -> None:
    """A song, a system, a data set and a listening test's folders, which every attempt finds in its own."""
    sf.write(folder / "song.wav", noise(), RATE)
    make_pipeline(make_codec(24_000)).save_pretrained(folder / "tiny")
    for seed, split in enumerate(("train", "train", "test")):
        vocals, accompaniment = render_song(seed, 4.0, RATE)
        song = folder / "toy" / split / f"song {seed}"
        audio.write(song / "mixture.wav", vocals + accompaniment, RATE)
        audio.write(song / "vocals.wav", vocals, RATE)
    key = {"id": "x", "systems": ["a", "b"], "aspects": ["q"], "samples": {"s": {"training": False}}}
    (folder / "test" / "page").mkdir(parents=True)
    (folder / "test" / "key.json").write_text(json.dumps(key))
    (folder / "test" / "page" / "test.json").write_text("{}")


# Each changes the folder it is called in.


def cut(path, share=0.5):
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[: int(share * len(content))])


def converted(name):
    sf.write("long.wav", noise(5), RATE)
    subprocess.run(
        ["ffmpeg", "-v", "error", "-y", "-i", "long.wav", "-movflags", "+faststart", name], check=True
    )
    Path("long.wav").unlink()


def truncated(name):
    def spoil():
        converted(name)
        cut(name)

    return spoil


def with_sample(value):
    def spoil():
        wave = noise()
        wave[300, 1] = value
        sf.write("bad.wav", wave, RATE, subtype="FLOAT")

    return spoil


def text(path, content="This is a song, is it not?"):
    def spoil():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(content)

    return spoil


WEIGHTS = "tiny/unet/diffusion_pytorch_model.safetensors"


def foreign_weights():
    shutil.copy("tiny/codec/diffusion_pytorch_model.safetensors", WEIGHTS)


def pickled_weights():
    Path(WEIGHTS).write_bytes(pickle.dumps(Evil("opened")))


def other_version():
    config = json.loads(Path("tiny/unet/config.json").read_text())
    config["level_channels"] = [8, 8]
    Path("tiny/unet/config.json").write_text(json.dumps(config))


def silent_data():
    for path in Path("toy/train").rglob("vocals.wav"):
        audio.write(path, 0 * audio.read(path)[0], RATE)


def damaged_song():
    for path in Path("toy/train/song 0").iterdir():
        wave = audio.read(path)[0]
        wave[:, ::50] = np.nan
        with sf.SoundFile(path, "w", RATE, 2, "FLOAT") as file:
            file.write(wave.T)


def a_run():
    attempt("train", TRAIN)


# command, what is wrong, arguments, what is done to the folder before
INPUTS = [
    ("separate", "no such song", f"none.wav {SEPARATE}", None),
    ("separate", "an empty file", f"bad.wav {SEPARATE}", text("bad.wav", "")),
    ("separate", "text under the name of a song", f"bad.wav {SEPARATE}", text("bad.wav")),
    ("separate", "a folder without songs", f"empty {SEPARATE}", lambda: os.mkdir("empty")),
    ("separate", "no frame", f"bad.wav {SEPARATE}", lambda: sf.write("bad.wav", np.zeros((0, 2)), RATE)),
    ("separate", "a sample that is NaN", f"bad.wav {SEPARATE}", with_sample(np.nan)),
    ("separate", "a sample that is infinite", f"bad.wav {SEPARATE}", with_sample(np.inf)),
    ("separate", "half a flac", f"bad.flac {SEPARATE}", truncated("bad.flac")),
    ("separate", "half an mp3", f"bad.mp3 {SEPARATE}", truncated("bad.mp3")),
    ("separate", "half an m4a", f"bad.m4a {SEPARATE}", truncated("bad.m4a")),
    ("separate", "a loop of links", f"loop.wav {SEPARATE}", lambda: os.symlink("loop.wav", "loop.wav")),
    ("separate", "a track that the file lacks", f"song.wav --track 3 {SEPARATE}", None),
    ("separate", "a track before the first", f"song.wav --track 0 {SEPARATE}", None),
    ("separate", "a start after the end", f"song.wav --start 9 {SEPARATE}", None),
    ("separate", "no duration", f"song.wav --duration 0 {SEPARATE}", None),
    ("separate", "an overlap of 0.7", f"song.wav --overlap 0.7 {SEPARATE}", None),
    ("separate", "three steps", f"song.wav {SEPARATE}".replace("--steps 1", "--steps 3"), None),
    ("separate", "no process", f"song.wav -j 0 {SEPARATE}", None),
    ("separate", "both files of one name", f"song.wav --filename x.wav {SEPARATE}", None),
    ("separate", "a format that is none", f"song.wav --filename {{stem}}.docx {SEPARATE}", None),
    ("separate", "32-bit float flac", f"song.wav --flac --float32 {SEPARATE}", None),
    ("separate", "a device that is none", f"song.wav -d abacus {SEPARATE}", None),
    ("separate", "a Mac's device elsewhere", f"song.wav -d mps {SEPARATE}", None),
    ("separate", "a file in the folder's place", f"song.wav {SEPARATE}", text("out")),
    ("separate", "a folder of the system's", f"song.wav {SEPARATE.replace('out', '/sys/out')}", None),
    ("separate", "a model that the hub has not", "song.wav -n nobody/nothing -o out", None),
    ("separate", "a file as a model", "song.wav -n song.wav -o out", None),
    ("separate", "a model without its weights", f"song.wav {SEPARATE}", lambda: os.unlink(WEIGHTS)),
    ("separate", "half of a model's weights", f"song.wav {SEPARATE}", lambda: cut(WEIGHTS)),
    ("separate", "another model's weights", f"song.wav {SEPARATE}", foreign_weights),
    ("separate", "a pickle under their name", f"song.wav {SEPARATE}", pickled_weights),
    ("separate", "config.json of another version", f"song.wav {SEPARATE}", other_version),
    ("separate", "config.json that is none", f"song.wav {SEPARATE}", text("tiny/unet/config.json", "{")),
    ("demo", "a folder that is no song", "toy", None),
    ("data", "no source", "prepare folder out --source none", None),
    ("data", "a source without songs", "prepare folder out --source tiny", None),
    ("data", "an option of another set", "prepare toy out --split huang", None),
    ("data", "half a song in the source", PREPARE, lambda: cut("toy/train/song 0/vocals.wav")),
    ("latents", "no data", LATENTS.replace("toy", "none"), None),
    ("latents", "a codec that is none", LATENTS.replace("tiny/codec", "none"), None),
    ("latents", "an unknown augmentation", f"{LATENTS} --augmentations=[reverb]", None),
    ("latents", "a cache of other settings", LATENTS, text("out/cache.json", "{}")),
    ("latents", "a cache.json that is none", LATENTS, text("out/cache.json", "{")),
    ("train", "no config", "--config none.yaml", None),
    ("train", "a config that is no YAML", "--config bad.yaml", text("bad.yaml", "a: [")),
    ("train", "an unknown key", "--config bad.yaml", text("bad.yaml", "colour: red")),
    ("train", "a number that is none", f"{TRAIN} --learning_rate=fast", None),
    ("train", "an unknown system", f"{TRAIN} --system=spleeter", None),
    ("train", "no latent cache", f"{TRAIN} --latent_cache=nothing", None),
    ("train", "a batch larger than the data", f"{TRAIN} --train_batch_size=99", None),
    ("train", "nobody sings", TRAIN, silent_data),
    ("train", "a folder that holds a run", TRAIN, a_run),
    ("train", "a file as a checkpoint", f"{TRAIN} --resume_from_checkpoint=song.wav", None),
    (
        "train",
        "half a checkpoint",
        f"{TRAIN} --resume_from_checkpoint=latest",
        lambda: (a_run(), cut("out/checkpoint-4/optimizer.pt")),
    ),
    ("train_codec", "no data", CODEC.replace("toy", "none"), None),
    ("train_codec", "a decoder of no codec", f"{CODEC} --train_decoder_only=yes", None),
    ("evaluation", "an unknown system", EVALUATION.replace("mixture", "spleeter"), None),
    ("evaluation", "no data", EVALUATION.replace("toy", "none"), None),
    ("evaluation", "no excerpt", EVALUATION.replace("excerpts 1", "excerpts 0"), None),
    ("evaluation", "a model that is none", f"{EVALUATION} --model none".replace("mixture", "bsrnn"), None),
    ("listening", "no estimates", MAKE, None),
    ("listening", "one system", MAKE.replace("a b", "a"), None),
    ("listening", "a folder that exists", MAKE.replace("out", "toy"), None),
    ("listening", "a folder that is no test", "serve toy", None),
    ("listening", "an address that is none", "serve test --host 1.2.3.4 --port 0", None),
    ("listening", "no results", "analyse none", None),
    ("listening", "results that are no JSON", "analyse test/results", text("test/results/a.json", "{")),
    (
        "listening",
        "results of another kind",
        "analyse test/results",
        text("test/results/a.csv", "a,b"),
    ),
    ("notebooks", "an unknown notebook", "99_none", None),
    ("report", "a folder without results", "", None),
]


# -- faults --------------------------------------------------------------------------------------------------


def at_write(number: int, what: signal.Signals):
    """Sends this process a signal at its n-th write."""

    def install():
        left, process = itertools.count(number, -1), os.getpid()

        def hook(event, arguments):
            mode = str(arguments[1]) if event == "open" else ""
            writes = event in ("os.mkdir", "os.rename") or any(letter in mode for letter in "wax")
            if writes and os.getpid() == process and next(left) == 0:
                os.kill(process, what)

        sys.addaudithook(hook)

    return install


def small_files():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))


def full_disk(command, arguments):
    """Of a small file system in memory, with less room than the command needs."""
    os.mkdir("out")
    mounted = not subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "none", "out"], capture_output=True
    ).returncode
    before = files()
    try:
        code, line = attempt(command, arguments, None if mounted else small_files)
        after = files()
    finally:
        if mounted:
            subprocess.run(["umount", "out"], check=True)
    room = "no space left" in line if mounted else "too large" in line
    whole = not any(".part" in name for name in after)
    return code, line, f"{len(before)} → {len(after)}", code == 1 and room and whole


def killed(command, arguments, again=None, what=signal.SIGKILL):
    """At its first write, at its fourth and so on; then it is run to its end."""
    times, lines, number = 0, {}, 0
    before = files()
    while times < 8:
        code, line = attempt(command, again if again and times else arguments, at_write(number, what))
        if code == 0:
            break
        lines[line] = None
        times, number = times + 1, number + 3
    if code:
        code, line = attempt(command, again or arguments)
    after = files()
    left = [name for name in after if ".part" in name]
    wanted = {"interrupted"} if what == signal.SIGINT else {""}
    told = f"{times} times: {'; '.join(lines) or 'nothing'}; then it ends"
    return (
        code,
        told,
        f"{len(before)} → {len(after)}",
        code == 0 and not left and times > 0 and {*lines} <= wanted,
    )


def interrupted(command, arguments, again=None):
    return killed(command, arguments, again, signal.SIGINT)


def two_processes(command, arguments):
    """The first is stopped at a write until the second has ended."""
    before = files()
    first = start(command, arguments, at_write(2, signal.SIGSTOP), "first.txt")
    os.waitpid(first, os.WUNTRACED)
    code, line = attempt(command, arguments)
    os.kill(first, signal.SIGCONT)
    ended = os.waitstatus_to_exitcode(os.waitpid(first, 0)[1])
    os.unlink("first.txt")
    return code, line, f"{len(before)} → {len(files())}", code == 1 and one_sentence(line) and ended == 0


def dying_worker():
    from dmxlib.data import VocalPairs

    VocalPairs.__getitem__ = lambda pairs, index: os.kill(os.getpid(), signal.SIGKILL)


def clock_set_back():
    time.time = lambda: 1.0


def short_of_memory(most):
    def install():
        from dmxlib.pipeline import VocalSeparationPipeline

        generate = VocalSeparationPipeline.generate

        def small(system, mixture, *rest):
            if len(mixture) > most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
            return generate(system, mixture, *rest)

        VocalSeparationPipeline.generate = small

    return install


def once(hurt, before=None, code=1):
    """One attempt with something broken in the process or its folder."""

    def fault(command, arguments):
        if before:
            before()
        there = files()
        ended, line = attempt(command, arguments, hurt)
        after = files()
        good = (
            ended == code and (code == 0 or one_sentence(line)) and not any(".part" in name for name in after)
        )
        return ended, line, f"{len(there)} → {len(after)}", good

    return fault


RESUME = f"{TRAIN} --resume_from_checkpoint=latest"
LONG = f"long.wav {SEPARATE}"


def long_song():
    sf.write("long.wav", noise(4), RATE)


FAULTS = [
    ("separate", "a full disk", f"song.wav --float32 {SEPARATE}", full_disk),
    ("separate", "kill -9 at its writes", f"song.wav {SEPARATE}", killed),
    ("separate", "Ctrl-C at its writes", f"song.wav {SEPARATE}", interrupted),
    ("separate", "memory for one chunk, not four", LONG, once(short_of_memory(1), long_song, 0)),
    ("separate", "memory for no chunk", LONG, once(short_of_memory(0), long_song)),
    ("data", "a full disk", PREPARE, full_disk),
    ("data", "kill -9 at its writes", PREPARE, killed),
    ("data", "Ctrl-C at its writes", PREPARE, interrupted),
    ("data", "two processes in one folder", PREPARE, two_processes),
    ("latents", "a full disk", LATENTS, full_disk),
    ("latents", "kill -9 at its writes", LATENTS, killed),
    ("latents", "Ctrl-C at its writes", LATENTS, interrupted),
    ("latents", "two processes in one folder", LATENTS, two_processes),
    ("train", "a full disk", TRAIN, full_disk),
    ("train", "kill -9 at its writes", RESUME, killed),
    ("train", "Ctrl-C at its writes", RESUME, interrupted),
    ("train", "two processes in one folder", TRAIN, two_processes),
    ("train", "a worker that dies", TRAIN.replace("workers=0", "workers=1"), once(dying_worker)),
    ("train", "the clock set back", RESUME.replace("steps=4", "steps=6"), once(clock_set_back, a_run, 0)),
    ("train", "samples that are NaN in one song", TRAIN, once(None, damaged_song, 0)),
    ("evaluation", "a full disk", f"{EVALUATION} --keep out/kept", full_disk),
    ("evaluation", "kill -9 at its writes", EVALUATION, killed),
    ("evaluation", "Ctrl-C at its writes", EVALUATION, interrupted),
]


# -- an attempt ----------------------------------------------------------------------------------------------


def start(command, arguments: str, hurt=None, told="told.txt") -> int:
    """Fork off a process that runs the command in this folder; what it prints goes to a file."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        output = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1), os.dup2(output, 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False, buffering=1)
        main = import_module(f"dmxlib.{MODULES[command]}").main
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if hurt:
            hurt()
        main(*[arguments.split()] if command != "report" else [])
        code = 0
    except SystemExit as exit:
        code = exit.code if isinstance(exit.code, int) else 1
        if isinstance(exit.code, str):
            print(exit.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        os._exit(code)


def attempt(command, arguments: str, hurt=None) -> tuple[int, str]:
    """(exit code, the lines that say error, warning or interrupted, or the last one of a traceback)."""
    code = os.waitstatus_to_exitcode(os.waitpid(start(command, arguments, hurt), 0)[1])
    lines = Path("told.txt").read_text(errors="replace").replace("\r", "\n").splitlines()
    os.unlink("told.txt")
    told = [line.strip() for line in lines if line.startswith(("error: ", "warning: ", "interrupted"))]
    if any(line.startswith("Traceback") for line in lines):
        told = [f"TRACEBACK {lines[-1]}"]
    elif code not in (0, -signal.SIGKILL) and not told:
        told = [f"? {lines[-1] if lines else ''}"]
    return code, "; ".join(told).replace(f"{os.getcwd()}/", "")


def one_sentence(line: str) -> bool:
    return line.startswith("error: ") and line.endswith(".") and "; error: " not in line


def files() -> set[str]:
    return {str(path) for path in Path(".").rglob("*") if not path.is_dir() and path.name != "told.txt"}


def tried(base: Path) -> list:
    """A row of each bad input and fault of the commands that are named."""
    names = sys.argv[1:] or list(MODULES)
    cases = [("bad input", *case) for case in INPUTS] + [("fault", *case) for case in FAULTS]
    for kind, command, wrong, arguments, how in cases:
        if command not in names:
            continue
        with tempfile.TemporaryDirectory() as folder:
            shutil.copytree(base, folder, dirs_exist_ok=True)
            os.chdir(folder)
            if kind == "fault":
                code, line, change, good = how(command, arguments)
            else:
                if how:
                    how()
                before = files()
                code, line = attempt(command, arguments)
                after = files()
                change = f"{len(before)} → {len(after)}"
                good = code == 1 and one_sentence(line) and before == after and not Path("opened").exists()
            os.chdir("/")
        row = [kind, command, wrong, line, code, change, "" if good else "falls short"]
        print(*row, sep=" | ", flush=True)
        yield list(map(str, row))


COLUMNS = ["kind", "command", "what", "line", "code", "files", "verdict"]


def write(rows: list) -> None:
    """rows.csv, with the rows there are of other commands, and table.md."""
    path, new = RESULTS / "rows.csv", {row[1] for row in rows}
    if path.exists():
        with open(path, newline="") as file:
            rows = [row for row in list(csv.reader(file))[1:] if row[1] not in new] + rows
    order = list(MODULES)
    rows.sort(key=lambda row: (row[0], order.index(row[1])))
    with reproduce.whole(path) as part, open(part, "w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    text = "# Nothing lost: bad inputs and faults\n\n"
    counts = [sum(row[0] == kind for row in rows) for kind in ("bad input", "fault")]
    short = sum(bool(row[6]) for row in rows)
    text += (
        f"{counts[0]} bad inputs and {counts[1]} faults were tried, {short} fell short. A bad input has to\n"
        "be told in one sentence, with exit code 1 and no file more or less; after a fault nothing is half\n"
        "written. Made by `python tests/faults.py`; files are those of the folder that each was tried in.\n"
    )
    for kind, title in (("bad input", "Bad inputs"), ("fault", "Faults")):
        text += f"\n## {title}\n\n| command | what | the line that came | code | files | |\n"
        text += "|---|---|---|---|---|---|\n"
        for row in rows:
            if row[0] == kind:
                text += "| " + " | ".join(cell.replace("|", r"\|") for cell in row[1:]) + " |\n"
    (RESULTS / "table.md").write_text(text)


def main() -> None:
    torch.set_num_threads(1)
    for command in sys.argv[1:] or MODULES:
        import_module(f"dmxlib.{MODULES[command]}")  # once, for all processes
    with tempfile.TemporaryDirectory() as base:
        make_base(Path(base))
        rows = list(tried(Path(base)))
    write(rows)
    sys.exit(any(row[6] for row in rows))


if __name__ == "__main__":
    main()
