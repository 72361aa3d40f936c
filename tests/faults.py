"""Bad inputs and faults, tried on every command: `python tests/faults.py [COMMAND ...]`, by default all; with
--missing those alone that have no row yet.

Each is tried in a folder of its own, by a process that is forked off this one: the line that came, the exit
code and the number of files before and after go to results/reliability/rows.csv and table.md at once; rows of
others stay. Ends with code 1 where one fell short. As root a full disk is one of 200 kB in memory, else no
file may pass 100 kB, and a folder that is not to be written to is one without that permission.
"""

import argparse
import contextlib
import csv
import functools
import io
import itertools
import json
import multiprocessing
import os
import pickle
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import urllib.error
import urllib.request
from importlib import import_module
from pathlib import Path

import nbformat
import numpy as np
import safetensors.torch
import soundfile as sf
import torch
from conftest import Evil, make_codec, make_pipeline
from matplotlib.figure import Figure

import dmxlib.ensemble
from dmxlib import audio, baselines, latents, metrics, notebooks, plots, reproduce
from dmxlib.data.sets.toy import render_song
from dmxlib.evaluation.scoring import above
from dmxlib.training import checkpoints

sys.path.append(str(Path(__file__).with_name("listening")))
from made_listening import submission

RESULTS = Path(__file__).parents[1] / "results" / "reliability"
RATE = 22_050
MODULES = {
    "separate": "separate",
    "demo": "demo",
    "hub": "separate",
    "data": "data.__main__",
    "pack": "data.__main__",
    "latents": "latents",
    "train": "train",
    "train_codec": "train_codec",
    "evaluation": "evaluation.__main__",
    "make": "listening.__main__",
    "serve": "listening.__main__",
    "analyse": "listening.__main__",
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
RESUME = f"{TRAIN} --resume_from_checkpoint=latest"
CACHED = f"{TRAIN} --latent_cache=cache"
EVALUATION = "mixture --data_root toy --output_dir out --waves --excerpts 1"
PREPARE = "prepare folder out --source toy"
PACK = "pack toy out --size 1MB"
MAKE = "make estimates out/new --data_root toy --systems a b --recordings 1 --seconds 1.2"
ANALYSE = "analyse test/results --output_dir out"
DEMO = "'toy/train/song 0'"
HUB = "song.wav -n someone/song -o out --steps 1"


# -- what there is in each folder ----------------------------------------------------------------------------


def noise(seconds=1.0, gain=0.1):
    return gain * np.random.default_rng(0).standard_normal((round(seconds * RATE), 2))


def make_base(folder: Path) -> None:
    """A song, a system, a data set and a listening test's folders, which every attempt finds in its own."""
    sf.write(folder / "song.wav", noise(), RATE)
    make_pipeline(make_codec(24_000)).save_pretrained(folder / "tiny")
    bsrnn = dict(features=8, pairs_of_layers=1, window=512, hop=128, chunk_samples=8192)
    baselines.load("bsrnn")(**bsrnn, sampling_rate=16_000, channels=1).save_pretrained(folder / "bsrnn")
    for seed, split in enumerate(("train", "train", "test")):
        vocals, accompaniment = render_song(seed, 4.0, RATE)
        song = folder / "toy" / split / f"song {seed}"
        audio.write(song / "mixture.wav", vocals + accompaniment, RATE)
        audio.write(song / "vocals.wav", vocals, RATE)
    for system, gain in (("a", 0.5), ("b", 0.25)):
        audio.write(folder / "estimates" / system / song.name / "vocals.wav", gain * vocals, RATE)
    (folder / "test" / "page").mkdir(parents=True)
    (folder / "test" / "key.json").write_text(json.dumps(KEY))
    (folder / "test" / "page" / "test.json").write_text("{}")
    for number in range(3):
        path = folder / "test" / "results" / f"{number:032x}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(submission(KEY, 1 + number, path.stem)))
    log = "".join(json.dumps({"step": step, "loss": 1.0, "validation_loss": 1.0}) + "\n" for step in range(9))
    text(folder / "results" / "training" / "run" / "log.jsonl", log)()
    for name, cell in NOTEBOOKS.items():
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
        (folder / "notebooks").mkdir(exist_ok=True)
        nbformat.write(notebook, folder / "notebooks" / f"{name}.ipynb")
    given = {name: {} for name in NOTEBOOKS} | {"data": {"data_root": "none"}, "model": {"model": "none"}}
    (folder / "notebooks" / "parameters.yaml").write_text(json.dumps(given))


KEY = {
    "id": "x",
    "systems": ["a", "b"],
    "aspects": ["q"],
    "samples": {
        f"{system}{item}": {"system": system, "item": item, "training": False}
        for system in "ab"
        for item in "12"
    },
}
SCORES = {"run.json": "{", "rows.csv": "system,track,excerpt,metric,value,dropped_reason\n"}
NOTEBOOKS = {
    "works": "print('a result')",
    "refuses": "from dmxlib.errors import InputError\nraise InputError('there is no such song.')",
    "dies": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
}


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


def loop(path="loop"):
    def spoil():
        os.symlink(Path(path).name, path)

    return spoil


FILE = "diffusion_pytorch_model.safetensors"
UNET, CODEC_WEIGHTS, BSRNN = f"tiny/unet/{FILE}", f"tiny/codec/{FILE}", f"bsrnn/{FILE}"


def half(path):
    return lambda: cut(path)


def pickled(path):
    """A pickle in a file's place, that tells where it is opened."""
    return lambda: Path(path).write_bytes(pickle.dumps(Evil("opened")))


def other(path, source=None):
    """Another model's weights in a file's place."""
    return lambda: shutil.copy(source or (CODEC_WEIGHTS if path != CODEC_WEIGHTS else UNET), path)


def other_version(config, **changes):
    """What a config of another version says."""

    def spoil():
        settings = json.loads(Path(config).read_text())
        Path(config).write_text(json.dumps(settings | changes))

    return spoil


def cached(spoil=None):
    """A latent cache, then spoilt."""

    def make():
        attempt("latents", LATENTS.replace("=out", "=cache"))
        if spoil:
            spoil()

    return make


def trained(spoil=None):
    """A run of four steps, then spoilt."""

    def make():
        attempt("train", TRAIN)
        if spoil:
            spoil()

    return make


def repository(spoil=None):
    """The system as the hub's cache holds a repository of it, then spoilt."""

    def make():
        snapshot = Path("hub/models--someone--song/snapshots/0123456789abcdef0123456789abcdef01234567")
        shutil.copytree("tiny", snapshot)
        text(snapshot.parents[1] / "refs" / "main", snapshot.name)()
        if spoil:
            before = os.getcwd()
            os.chdir(snapshot.parent)
            os.rename(snapshot.name, "tiny")
            spoil()
            os.rename("tiny", snapshot.name)
            os.chdir(before)

    return make


def with_code():
    """The repository's own Python, which loading it may not run."""
    code = f"open({os.path.abspath('opened')!r}, 'w')\nclass Pipeline:\n    pass\n"
    text("tiny/pipeline.py", code)()
    text("tiny/unet/unet.py", code)()
    index = json.loads(Path("tiny/model_index.json").read_text())
    text("tiny/model_index.json", json.dumps(index | {"unet": ["unet", "Pipeline"]}))()


def silent_data():
    for path in Path("toy/train").rglob("vocals.wav"):
        audio.write(path, 0 * audio.read(path)[0], RATE)


def damaged_song():
    for path in Path("toy/train/song 0").iterdir():
        wave = audio.read(path)[0]
        wave[:, ::50] = np.nan
        with sf.SoundFile(path, "w", RATE, 2, "FLOAT") as file:
            file.write(wave.T)


OTHER_CODEC = other_version(
    "tiny/codec/config.json", seanet=dict(channels=1, dimension=8, ratios=[4, 2], norm="time_group_norm")
)
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
    ("separate", "a loop of links", f"loop {SEPARATE}", loop()),
    ("separate", "a loop of links to write to", f"song.wav {SEPARATE}", loop("out")),
    ("separate", "a track that the file lacks", f"song.wav --track 3 {SEPARATE}", None),
    ("separate", "a track before the first", f"song.wav --track 0 {SEPARATE}", None),
    ("separate", "a start after the end", f"song.wav --start 9 {SEPARATE}", None),
    ("separate", "no duration", f"song.wav --duration 0 {SEPARATE}", None),
    ("separate", "an overlap of 0.7", f"song.wav --overlap 0.7 {SEPARATE}", None),
    ("separate", "three steps", f"song.wav {SEPARATE}".replace("--steps 1", "--steps 3"), None),
    ("separate", "a seed of 30 digits", f"song.wav --seed {10**30} {SEPARATE}", None),
    ("separate", "a song's name of 300 letters", f"{'x' * 300} {SEPARATE}", None),
    ("separate", "names of 300 letters to write", f"song.wav --filename {{stem:x>300}}.wav {SEPARATE}", None),
    ("separate", "one sample a second", f"bad.wav {SEPARATE}", lambda: sf.write("bad.wav", noise(), 1)),
    ("separate", "samples of 1e20", f"bad.wav {SEPARATE}", with_sample(1e20)),
    ("separate", "no process", f"song.wav -j 0 {SEPARATE}", None),
    ("separate", "both files of one name", f"song.wav --filename x.wav {SEPARATE}", None),
    ("separate", "a format that is none", f"song.wav --filename {{stem}}.docx {SEPARATE}", None),
    ("separate", "32-bit float flac", f"song.wav --flac --float32 {SEPARATE}", None),
    ("separate", "a device that is none", f"song.wav -d abacus {SEPARATE}", None),
    ("separate", "a Mac's device elsewhere", f"song.wav -d mps {SEPARATE}", None),
    ("separate", "a folder without a name", f"song.wav {SEPARATE}".replace("-o out", "--out="), None),
    ("separate", "a file in the folder's place", f"song.wav {SEPARATE}", text("out")),
    ("separate", "a folder of the system's", f"song.wav {SEPARATE.replace('out', '/sys/out')}", None),
    ("separate", "a file as a model", "song.wav -n song.wav -o out", None),
    ("separate", "a loop of links as a model", "song.wav -n loop -o out", loop()),
    ("separate", "a model without its weights", f"song.wav {SEPARATE}", lambda: os.unlink(UNET)),
    ("separate", "half of a model's weights", f"song.wav {SEPARATE}", half(UNET)),
    ("separate", "another model's weights", f"song.wav {SEPARATE}", other(UNET)),
    ("separate", "a pickle under their name", f"song.wav {SEPARATE}", pickled(UNET)),
    (
        "separate",
        "config.json of another version",
        f"song.wav {SEPARATE}",
        other_version("tiny/unet/config.json", level_channels=[8, 8]),
    ),
    ("separate", "config.json that is none", f"song.wav {SEPARATE}", text("tiny/unet/config.json", "{")),
    ("separate", "half of a baseline's weights", "song.wav -n bsrnn -o out", half(BSRNN)),
    ("separate", "a pickle under a baseline's", "song.wav -n bsrnn -o out", pickled(BSRNN)),
    (
        "separate",
        "a baseline's config.json of another version",
        "song.wav -n bsrnn -o out",
        other_version("bsrnn/config.json", layers=3),
    ),
    (
        "separate",
        "a baseline's config.json that is a list",
        "song.wav -n bsrnn -o out",
        text("bsrnn/config.json", "[1]"),
    ),
    ("hub", "a repository that is none", "song.wav -n nobody/nothing -o out", None),
    ("hub", "one that came without its weights", HUB, repository(lambda: os.unlink(UNET))),
    ("hub", "half of its weights", HUB, repository(half(UNET))),
    ("hub", "another model's weights", HUB, repository(other(UNET))),
    ("hub", "a pickle under their name", HUB, repository(pickled(UNET))),
    (
        "hub",
        "pickled weights alone",
        HUB,
        repository(lambda: (pickled(UNET)(), os.rename(UNET, UNET.replace("safetensors", "bin")))),
    ),
    (
        "hub",
        "config.json of another version",
        HUB,
        repository(other_version("tiny/unet/config.json", level_channels=[8, 8])),
    ),
    ("hub", "code of its own", HUB, repository(with_code)),
    ("hub", "a loop of links to write to", HUB, lambda: (repository()(), loop("out")())),
    ("hub", "model_index.json that is none", HUB, repository(text("tiny/model_index.json", "{"))),
    ("demo", "a folder that is no song", "toy", None),
    ("demo", "a loop of links", "loop", loop()),
    ("demo", "a loop of links to write to", DEMO, loop("separated")),
    ("demo", "a start after the end", f"{DEMO} --start=9", None),
    ("demo", "a start before it", f"{DEMO} --start=-1", None),
    ("demo", "half a song", DEMO, half("toy/train/song 0/vocals.wav")),
    ("data", "no source", "prepare folder out --source none", None),
    ("data", "a source without songs", "prepare folder out --source tiny", None),
    ("data", "a loop of links as the source", "prepare folder out --source loop", loop()),
    ("data", "a loop of links to write to", PREPARE, loop("out")),
    ("data", "an option of another set", "prepare toy out --split huang", None),
    ("data", "a folder without a name", PREPARE.replace("out", "''"), None),
    ("data", "half a song in the source", PREPARE, half("toy/train/song 0/vocals.wav")),
    ("pack", "no data", "pack none out", None),
    ("pack", "a size that is too small", f"{PACK} --size 0.01MB", None),
    ("pack", "a size that is no number", f"{PACK} --size nan", None),
    ("pack", "a folder that is there", PACK, text("out/toy/pack.json", "[]")),
    ("pack", "a loop of links as the data", PACK.replace("toy", "loop"), loop()),
    ("pack", "a folder without a name", PACK.replace("out", "''"), None),
    ("pack", "half a song", PACK, half("toy/train/song 0/vocals.wav")),
    ("pack", "a loop of links to write to", PACK, loop("out")),
    ("latents", "no data", LATENTS.replace("toy", "none"), None),
    ("latents", "a loop of links as the data", LATENTS.replace("toy", "loop"), loop()),
    ("latents", "a loop of links to write to", LATENTS, loop("out")),
    ("latents", "a folder without a name", LATENTS.replace("=out", "="), None),
    ("latents", "a codec that is none", LATENTS.replace("tiny/codec", "none"), None),
    ("latents", "the official codec without a network", LATENTS.replace("tiny/codec", "48khz"), None),
    ("latents", "half of the codec's weights", LATENTS, half(CODEC_WEIGHTS)),
    ("latents", "another model's weights", LATENTS, other(CODEC_WEIGHTS)),
    ("latents", "a pickle under their name", LATENTS, pickled(CODEC_WEIGHTS)),
    ("latents", "a codec's config.json that is none", LATENTS, text("tiny/codec/config.json", "{")),
    (
        "latents",
        "a codec's config.json of another version",
        LATENTS,
        OTHER_CODEC,
    ),
    ("latents", "an unknown augmentation", f"{LATENTS} --augmentations=[reverb]", None),
    ("latents", "a cache of other settings", LATENTS, text("out/cache.json", "{}")),
    ("latents", "a cache.json that is none", LATENTS, text("out/cache.json", "{")),
    ("train", "no config", "--config none.yaml", None),
    ("train", "a config that is no YAML", "--config bad.yaml", text("bad.yaml", "a: [")),
    ("train", "an unknown key", "--config bad.yaml", text("bad.yaml", "colour: red")),
    ("train", "a number that is none", f"{TRAIN} --learning_rate=fast", None),
    ("train", "a learning rate that is none", f"{TRAIN} --learning_rate=nan", None),
    ("train", "no item in a batch", f"{TRAIN} --train_batch_size=0", None),
    ("train", "no level", f"{TRAIN} --level_channels=[]", None),
    ("train", "a first injection beyond the levels", f"{TRAIN} --first_injection=3", None),
    ("train", "frames that the levels cannot halve", f"{TRAIN} --chunk_frames=65", None),
    ("train", "a checkpoint every 0 steps", f"{TRAIN} --checkpointing_steps=0", None),
    ("train", "an unknown system", f"{TRAIN} --system=spleeter", None),
    ("train", "no latent cache", f"{TRAIN} --latent_cache=nothing", None),
    ("train", "half a shard of the cache", CACHED, cached(half("cache/000000.safetensors"))),
    ("train", "another file's tensors in a shard", CACHED, cached(other("cache/000000.safetensors"))),
    ("train", "a pickle under a shard's name", CACHED, cached(pickled("cache/000000.safetensors"))),
    ("train", "a batch larger than the data", f"{TRAIN} --train_batch_size=99", None),
    ("train", "nobody sings", TRAIN, silent_data),
    (
        "train",
        "half of the weights to go on from",
        f"{TRAIN} --pretrained_model_name_or_path=tiny",
        half(UNET),
    ),
    (
        "train",
        "a pickle under their name to go on from",
        f"{TRAIN} --pretrained_model_name_or_path=tiny",
        pickled(UNET),
    ),
    (
        "train",
        "config.json of another version to go on from",
        f"{TRAIN} --pretrained_model_name_or_path=tiny",
        other_version("tiny/unet/config.json", level_channels=[8, 8]),
    ),
    ("train", "a folder that holds a run", TRAIN, trained()),
    ("train", "a folder without a name", TRAIN.replace("=out", "="), None),
    ("train", "a loop of links as the data", TRAIN.replace("=toy", "=loop"), loop()),
    ("train", "a loop of links to write to", TRAIN, loop("out")),
    ("train", "a file as a checkpoint", f"{TRAIN} --resume_from_checkpoint=song.wav", None),
    ("train", "half of a checkpoint's optimiser", RESUME, trained(half("out/checkpoint-4/optimizer.pt"))),
    ("train", "half of its weights", RESUME, trained(half("out/checkpoint-4/model.safetensors"))),
    ("train", "another model's", RESUME, trained(other("out/checkpoint-4/model.safetensors"))),
    ("train", "a pickle under their name", RESUME, trained(pickled("out/checkpoint-4/model.safetensors"))),
    ("train_codec", "no data", CODEC.replace("toy", "none"), None),
    ("train_codec", "nobody sings", CODEC, silent_data),
    ("train_codec", "a decoder of no codec", f"{CODEC} --train_decoder_only=yes", None),
    ("train_codec", "a codec without codebooks", f"{CODEC} --init=tiny/codec", None),
    ("train_codec", "a codec's pickled weights", f"{CODEC} --init=tiny/codec", pickled(CODEC_WEIGHTS)),
    ("train_codec", "a codec's config.json of another version", f"{CODEC} --init=tiny/codec", OTHER_CODEC),
    ("train_codec", "a folder without a name", CODEC.replace("=out", "="), None),
    ("train_codec", "a loop of links as the data", CODEC.replace("=toy", "=loop"), loop()),
    ("train_codec", "a loop of links to write to", CODEC, loop("out")),
    ("evaluation", "an unknown system", EVALUATION.replace("mixture", "spleeter"), None),
    ("evaluation", "no data", EVALUATION.replace("toy", "none"), None),
    ("evaluation", "no excerpt", EVALUATION.replace("excerpts 1", "excerpts 0"), None),
    ("evaluation", "seconds before the end that are negative", f"{EVALUATION} --held-out=-5", None),
    ("evaluation", "a seed below 0", f"{EVALUATION} --seed=-1", None),
    ("evaluation", "a model that is none", f"{EVALUATION} --model none".replace("mixture", "bsrnn"), None),
    (
        "evaluation",
        "half of a model's weights",
        f"{EVALUATION} --model bsrnn".replace("mixture", "bsrnn"),
        half(BSRNN),
    ),
    (
        "evaluation",
        "a pickle under their name",
        f"{EVALUATION} --model bsrnn".replace("mixture", "bsrnn"),
        pickled(BSRNN),
    ),
    (
        "evaluation",
        "config.json of another version",
        f"{EVALUATION} --model bsrnn".replace("mixture", "bsrnn"),
        other_version("bsrnn/config.json", layers=3),
    ),
    (
        "evaluation",
        "official weights without a network",
        f"{EVALUATION} --model torchaudio:HDEMUCS_HIGH_MUSDB".replace("mixture", "hdemucs"),
        None,
    ),
    ("evaluation", "a run.json that is none", EVALUATION, text("out/run.json", "{")),
    ("evaluation", "a rows.csv of something else", EVALUATION, text("out/rows.csv", "a,b\n1,2\n")),
    ("evaluation", "a folder without a name", EVALUATION.replace("_dir out", "_dir="), None),
    ("evaluation", "a loop of links as the data", EVALUATION.replace("toy", "loop"), loop()),
    ("evaluation", "a loop of links to write to", EVALUATION, loop("out")),
    ("make", "no estimates", MAKE.replace("estimates", "none"), None),
    ("make", "one system", MAKE.replace("a b", "a"), None),
    ("make", "a seed below 0", f"{MAKE} --seed=-1", None),
    ("make", "a folder that exists", MAKE.replace("out/new", "toy"), None),
    ("make", "half an estimate", MAKE, half("estimates/a/song 2/vocals.wav")),
    (
        "make",
        "an estimate that is silent",
        MAKE,
        lambda: sf.write("estimates/a/song 2/vocals.wav", np.zeros((4 * RATE, 2)), RATE),
    ),
    ("make", "a loop of links as the data", MAKE.replace("toy", "loop"), loop()),
    ("make", "a loop of links to write to", MAKE, loop("out")),
    ("serve", "a folder that is no test", "serve toy", None),
    ("serve", "a key.json that is none", "serve test --port 0", text("test/key.json", "[1")),
    ("serve", "a loop of links", "serve loop", loop()),
    ("serve", "a test without its page", "serve test --port 0", lambda: shutil.rmtree("test/page")),
    ("serve", "an address that is none", "serve test --host 1.2.3.4 --port 0", None),
    ("serve", "a port that is none", "serve test --port 99999", None),
    ("analyse", "no results", "analyse none", None),
    ("analyse", "results that are no JSON", ANALYSE, text("test/results/a.json", "{")),
    ("analyse", "a thousand brackets", ANALYSE, text("test/results/a.json", "[" * 100_000)),
    (
        "analyse",
        "results of another test",
        f"{ANALYSE} --key key.json",
        text("key.json", json.dumps(KEY | {"id": "y"})),
    ),
    ("analyse", "half of a listener's results", ANALYSE, half(f"test/results/{0:032x}.json")),
    ("analyse", "no key", f"{ANALYSE} --key none.json", None),
    ("analyse", "a loop of links as results", "analyse loop", loop()),
    ("analyse", "a loop of links to write to", ANALYSE, loop("out")),
    ("notebooks", "an unknown notebook", "99_none", None),
    ("notebooks", "a data set that is not there", "data", None),
    ("notebooks", "a model that is not there", "model", None),
    ("notebooks", "a cell that refuses its input", "refuses", None),
    ("notebooks", "a loop of links to write to", "works", loop("out")),
    ("report", "a folder without results", "", lambda: shutil.rmtree("results")),
    ("report", "a loop of links", "", lambda: (shutil.rmtree("results"), loop("results")())),
    ("report", "a log that is none", "", text("results/training/run/log.jsonl", "step 1\nstep 2\n")),
    (
        "report",
        "scores that are no table",
        "",
        lambda: [text(f"results/x/{name}", content)() for name, content in SCORES.items()],
    ),
]


# -- faults --------------------------------------------------------------------------------------------------


CHANGES = ("os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir", "os.truncate")
HALF_DONE = [
    (safetensors.torch, "save_file"),
    (checkpoints, "save_file"),
    (latents, "save_file"),
    (torch, "save"),
    (Path, "write_text"),
    (sf.SoundFile, "write"),
]


def at_write(number: int, what: signal.Signals):
    """Sends this process a signal at the n-th time that it writes in its folder, from 0: before a file is
    opened or changes its name, and when half of one is written."""

    def install():
        left, process, here = itertools.count(number, -1), os.getpid(), os.getcwd()

        def due(path):
            ours = os.getpid() == process and os.path.abspath(os.fsdecode(path)).startswith(here)
            return ours and next(left) == 0

        def hook(event, arguments):
            opens = event == "open" and isinstance(arguments[0], (str, bytes))
            if opens and arguments[2] & (os.O_WRONLY | os.O_RDWR) or event in CHANGES:
                if due(arguments[0]):
                    os.kill(process, what)

        def half_done(write):
            def written(*arguments, **more):
                result = write(*arguments, **more)
                path = next((part for part in arguments if isinstance(part, (str, Path))), None)
                if due(path or here):
                    if path:
                        cut(path)
                    os.kill(process, what)
                return result

            return written

        sys.addaudithook(hook)
        for owner, name in HALF_DONE:
            setattr(owner, name, half_done(getattr(owner, name)))

    return install


@contextlib.contextmanager
def small(room="200k", inside=None, options=""):
    """A small file system in memory, at out/, that `inside` is called on; True where it may be had."""
    os.mkdir("out")
    command = ["mount", "-t", "tmpfs", "-o", f"size={room}", "none", "out"]
    mounted = not subprocess.run(command, capture_output=True).returncode
    try:
        if inside:
            inside()
        if options and mounted:
            subprocess.run(["mount", "-o", f"remount,{options}", "out"], check=True)
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "out"], check=True)


def small_files():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))


def full_disk(command, arguments, room="200k", inside=None, hurt=None):
    """Of a small file system in memory, with less room than the command needs."""
    with small(room, inside) as mounted:
        before = files()
        code, line = attempt(command, arguments, hurt if mounted else small_files)
        after = files()
    told = "no space left" in line if mounted else "too large" in line
    whole = not any(".part" in name for name in after)
    return code, line, f"{len(before)} → {len(after)}", code == 1 and one_sentence(line) and told and whole


def no_room_to_decode(command, arguments):
    """Of a song that ffmpeg decodes to a temporary file."""
    converted("long.m4a")
    return full_disk(command, arguments, hurt=lambda: setattr(tempfile, "tempdir", os.path.abspath("out")))


def read_only(command, arguments, inside=None):
    """A file system that nothing may be written to; of a user, a folder."""
    with small("9M", inside, "ro") as mounted:
        before = files()
        if not mounted:
            os.chmod("out", 0o500)
        code, line = attempt(command, arguments)
        if not mounted:
            os.chmod("out", 0o700)
        after = files()
    told = "read-only" in line or "denied" in line
    good = code == 1 and one_sentence(line) and told and before == after
    return code, line, f"{len(before)} → {len(after)}", good


@contextlib.contextmanager
def copied():
    """A copy of the folder, for as long as the body runs."""
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(before, folder, symlinks=True, dirs_exist_ok=True)
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def made(before: set[str]) -> list:
    """What there is more than before: (name, the numbers in it); random names are one."""
    return sorted((re.sub("x[0-9a-f]{8}", "x", name), numbers(Path(name))) for name in files() - before)


def numbers(path: Path) -> bytes:
    """Those that a file holds; a float wav's header holds the time too, as other files do."""
    if path.suffix in (".wav", ".flac"):
        with contextlib.suppress(ValueError, sf.LibsndfileError):  # half of a file
            return sf.read(path)[0].tobytes()
    return path.read_bytes() if path.suffix in (".safetensors", ".opus") or path.name == "rows.csv" else b""


def killed(command, arguments, again=None, what=signal.SIGKILL, every=1):
    """At its first write, or the n-th, each time in a new copy of the folder, and run again to its end: then
    all is as if nothing had been."""
    before, lines, wrong = files(), {}, []
    with copied():
        attempt(command, arguments)
        clean = made(before)
    for number in itertools.count(0, every):
        with copied():
            code, line = attempt(command, arguments, at_write(number, what))
            if code == 0:
                break
            lines[line] = None
            code = 0
            if made(before) != clean:  # else all was whole already
                code, told = attempt(command, again or arguments)
            if code or made(before) != clean:
                wrong.append(f"write {number}: {told if code else 'another result'}")
    times = number // every
    told = "; ".join([f"{times} times: {'; '.join(lines) or 'nothing'}", *wrong, "then it ends as ever"])
    good = times > 0 and not wrong and {*lines} <= {"interrupted" if what == signal.SIGINT else ""}
    return 0, told, f"{len(before)} → {len(before) + len(clean)}", good


every_fifth = functools.partial(killed, every=5)
interrupted = functools.partial(every_fifth, what=signal.SIGINT)


def interrupted_anywhere(command, arguments, again=None, shares=(0.2, 0.5, 0.8)):
    """All its processes, as a terminal does, at these shares of the time that it takes; then it is run to its
    end."""
    before, begin = files(), time.monotonic()
    attempt(command, arguments)
    seconds = time.monotonic() - begin
    shutil.rmtree("out")
    told = []
    for share in shares:
        child = start(command, again if again and told else arguments, os.setpgrp)
        time.sleep(share * seconds)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGINT)
        told.append(ended(child))
    code, _ = attempt(command, again or arguments)
    after = files()
    line = "; ".join(dict.fromkeys(line or "nothing: it had ended" for _, line in told))
    good = code == 0 and all(pair in ((1, "interrupted"), (0, "")) for pair in told)
    whole = not any(".part" in name for name in after)
    change = f"{len(before)} → {len(after)}"
    return code, f"{len(told)} times: {line}; then it ends", change, good and whole


def two_processes(command, arguments):
    """The first is stopped at a write until the second has ended."""
    before = files()
    first = start(command, arguments, at_write(2, signal.SIGSTOP), "first.txt")
    os.waitpid(first, os.WUNTRACED)
    code, line = attempt(command, arguments)
    os.kill(first, signal.SIGCONT)
    ended_with, _ = ended(first, "first.txt")
    return code, line, f"{len(before)} → {len(files())}", code == 1 and one_sentence(line) and ended_with == 0


def side_by_side(command, arguments):
    """Both begin at once: each ends well, or says in a sentence that the other was there."""
    before = files()
    first, second = (start(command, arguments, told=f"{name}.txt") for name in ("first", "second"))
    both = [ended(first, "first.txt"), ended(second, "second.txt")]
    after = files()
    good = any(code == 0 for code, _ in both) and not any(".part" in name for name in after)
    good = good and all(code == 0 or (code == 1 and one_sentence(line)) for code, line in both)
    told = "; ".join(line for _, line in both if line) or "nothing"
    return " and ".join(str(code) for code, _ in both), told, f"{len(before)} → {len(after)}", good


def dying_worker():
    from dmxlib.data import VocalPairs

    item = VocalPairs.__getitem__

    def in_a_worker(pairs, index):
        if torch.utils.data.get_worker_info():
            os.kill(os.getpid(), signal.SIGKILL)
        return item(pairs, index)

    VocalPairs.__getitem__ = in_a_worker


def dying_process():
    """The first process that this one starts is killed when it has begun."""

    def kill():
        while not (children := multiprocessing.active_children()):
            time.sleep(0.1)
        os.kill(children[0].pid, signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()


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


# -- of the server -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def serving(folder="test", hurt=None):
    """(the process, a function that sends it a listener's ratings and gives (status, answer))."""
    told = f"served {time.monotonic_ns()}.txt"
    child = start("serve", f"serve {folder} --port 0", hurt, told)
    while not (
        address := re.search(r"at (http://\S+),", Path(told).read_text() if Path(told).exists() else "")
    ):
        time.sleep(0.1)

    def send(rating=3, listener="f" * 32):
        body = json.dumps(submission(KEY, rating, listener)).encode()
        request = urllib.request.Request(f"{address[1]}/results", body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)
        except OSError:
            return 0, {}

    try:
        yield child, send
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child, 0)
        Path(told).unlink(missing_ok=True)


SENT = Path("test/results") / f"{'f' * 32}.json"


def served_interrupted(command, arguments):
    before = files()
    with serving() as (child, send):
        status, _ = send()
        os.kill(child, signal.SIGINT)
        code, line = ended(child, next(map(str, Path(".").glob("served*.txt"))))
    good = status == 200 and (code, line) == (1, "interrupted") and SENT.exists()
    return code, line, f"{len(before)} → {len(files())}", good


def served_killed(command, arguments):
    """At each write of a save; the listener sends again to a new server."""
    before, times = files(), 0
    while times < 10:
        with serving(hurt=at_write(times, signal.SIGKILL)) as (_, send):
            status, _ = send()
        if status == 200:
            break
        if SENT.exists():
            json.loads(SENT.read_text())
        times += 1
    with serving() as (_, send):
        status, _ = send()
    after = files()
    good = status == 200 and times > 0 and after - before == {str(SENT)}
    return 0, f"{times} times: no answer; then it is saved", f"{len(before)} → {len(after)}", good


def served_twice(command, arguments):
    """Two servers of one test, and one listener's ratings at both, the second time others."""
    before = files()
    with serving() as (_, first), serving() as (_, second):
        answers = first(3), second(3), second(4)
    kept = json.loads(SENT.read_text()) == submission(KEY, 3, "f" * 32)
    codes = [status for status, _ in answers]
    good = codes == [200, 200, 409] and kept
    return " ".join(map(str, codes)), answers[2][1].get("error", ""), f"{len(before)} → {len(files())}", good


def served_early(command, arguments):
    """A second after 1970 began."""
    before = files()
    with serving(hurt=clock_set_back) as (_, send):
        status, _ = send()
    after = files()
    return status, "", f"{len(before)} → {len(after)}", status == 200 and after - before == {str(SENT)}


def served_on(options, room, filled=0):
    """A file system without room, or that nothing may be written to."""

    def inside():
        shutil.copytree("test", "out/test")
        Path("out/filled").write_bytes(bytes(filled))
        with contextlib.suppress(OSError), open("out/more", "wb") as file:
            while options != "ro":
                file.write(bytes(512))

    def fault(command, arguments):
        with small(room, inside, options):
            before = files()
            with serving("out/test") as (_, send):
                status, answer = send()
            after = files()
        told = answer.get("error", "")
        return status, told, f"{len(before)} → {len(after)}", status == 500 and told and before == after

    return fault


# command, what breaks, arguments, how
def long_song():
    sf.write("long.wav", noise(4), RATE)


def filled():
    Path("out/filled").write_bytes(bytes(2**13))


def results_there(filled=0):
    """results/ on the small file system, and little room beside it."""

    def inside():
        shutil.copytree("results", "out/results")
        shutil.rmtree("results")
        os.symlink("out/results", "results")
        Path("out/filled").write_bytes(bytes(filled))

    return inside


LONG = f"long.wav {SEPARATE}"
WORKERS = TRAIN.replace("workers=0", "workers=1")
JOBS = f"song.wav again.wav -j 2 {SEPARATE}"


def separated_there():
    """separated/ on the small file system."""
    os.symlink("out", "separated")


def two_songs():
    shutil.copy("song.wav", "again.wav")


def prepared(before, fault):
    """A fault in a folder that something is done to first."""
    return lambda command, arguments: (before(), fault(command, arguments))[1]


SIX_STEPS = RESUME.replace("steps=4", "steps=6")
FAULTS = [
    ("separate", "a full disk", f"song.wav --float32 {SEPARATE}", full_disk),
    ("separate", "no room to decode in", f"long.m4a {SEPARATE}", no_room_to_decode),
    ("separate", "a read-only disk", f"song.wav {SEPARATE}", read_only),
    ("separate", "kill -9 at each of its writes", f"song.wav {SEPARATE}", killed),
    ("separate", "Ctrl-C at every fifth of its writes", f"song.wav {SEPARATE}", interrupted),
    ("separate", "Ctrl-C anywhere", f"song.wav {SEPARATE}", interrupted_anywhere),
    (
        "separate",
        "Ctrl-C anywhere, two processes",
        JOBS,
        prepared(two_songs, functools.partial(interrupted_anywhere, shares=(0.7,))),
    ),
    ("separate", "a process that dies", JOBS, once(dying_process, two_songs)),
    ("separate", "two calls into one folder", f"song.wav {SEPARATE}", side_by_side),
    ("separate", "the clock set back", f"song.wav {SEPARATE}", once(clock_set_back, None, 0)),
    ("separate", "memory for one chunk, not four", LONG, once(short_of_memory(1), long_song, 0)),
    ("separate", "memory for no chunk", LONG, once(short_of_memory(0), long_song)),
    ("hub", "a full disk", f"{HUB} --float32", prepared(repository(), full_disk)),
    ("hub", "a read-only disk", HUB, prepared(repository(), read_only)),
    ("hub", "kill -9 at every fifth of its writes", HUB, prepared(repository(), every_fifth)),
    ("hub", "Ctrl-C at every fifth of its writes", HUB, prepared(repository(), interrupted)),
    ("hub", "two calls into one folder", HUB, prepared(repository(), side_by_side)),
    ("hub", "the clock set back", HUB, once(clock_set_back, repository(), 0)),
    ("demo", "a full disk", DEMO, functools.partial(full_disk, inside=separated_there)),
    ("demo", "a read-only disk", DEMO, functools.partial(read_only, inside=separated_there)),
    ("demo", "kill -9 at every fifth of its writes", DEMO, every_fifth),
    ("demo", "Ctrl-C at every fifth of its writes", DEMO, interrupted),
    ("demo", "two calls into one folder", DEMO, side_by_side),
    ("demo", "the clock set back", DEMO, once(clock_set_back, None, 0)),
    ("data", "a full disk", PREPARE, full_disk),
    ("data", "a read-only disk", PREPARE, read_only),
    ("data", "kill -9 at each of its writes", PREPARE, killed),
    ("data", "Ctrl-C at every fifth of its writes", PREPARE, interrupted),
    ("data", "two processes in one folder", PREPARE, two_processes),
    ("data", "the clock set back", PREPARE, once(clock_set_back, None, 0)),
    ("pack", "a full disk", PACK, functools.partial(full_disk, room="60k")),
    ("pack", "a read-only disk", PACK, read_only),
    ("pack", "kill -9 at each of its writes", PACK, killed),
    ("pack", "Ctrl-C at every fifth of its writes", PACK, interrupted),
    ("pack", "two processes in one folder", PACK, two_processes),
    ("pack", "the clock set back", PACK, once(clock_set_back, None, 0)),
    ("latents", "a full disk", LATENTS, full_disk),
    ("latents", "a read-only disk", LATENTS, read_only),
    ("latents", "kill -9 at each of its writes", LATENTS, killed),
    ("latents", "Ctrl-C at every fifth of its writes", LATENTS, interrupted),
    ("latents", "Ctrl-C anywhere", LATENTS, interrupted_anywhere),
    ("latents", "a worker that dies", LATENTS, once(dying_worker)),
    ("latents", "two processes in one folder", LATENTS, two_processes),
    ("latents", "the clock set back", LATENTS, once(clock_set_back, None, 0)),
    ("train", "a full disk", TRAIN, full_disk),
    ("train", "a read-only disk", TRAIN, read_only),
    ("train", "kill -9 at each of its writes", RESUME, killed),
    ("train", "Ctrl-C at every fifth of its writes", RESUME, interrupted),
    (
        "train",
        "Ctrl-C anywhere, with a worker",
        WORKERS,
        functools.partial(interrupted_anywhere, again=RESUME),
    ),
    ("train", "two processes in one folder", TRAIN, two_processes),
    ("train", "a worker that dies", WORKERS, once(dying_worker)),
    ("train", "the clock set back", SIX_STEPS, once(clock_set_back, trained(), 0)),
    ("train", "samples that are NaN in one song", TRAIN, once(None, damaged_song, 0)),
    ("train_codec", "a full disk", CODEC, functools.partial(full_disk, room="40k")),
    ("train_codec", "a read-only disk", CODEC, read_only),
    (
        "train_codec",
        "kill -9 at every fifth of its writes",
        f"{CODEC} --resume_from_checkpoint=latest",
        every_fifth,
    ),
    (
        "train_codec",
        "Ctrl-C at every fifth of its writes",
        f"{CODEC} --resume_from_checkpoint=latest",
        interrupted,
    ),
    ("train_codec", "two processes in one folder", CODEC, two_processes),
    ("train_codec", "the clock set back", CODEC, once(clock_set_back, None, 0)),
    ("train_codec", "a worker that dies", f"{CODEC} --dataloader_num_workers=1", once(dying_worker)),
    ("evaluation", "a full disk", f"{EVALUATION} --keep out/kept", full_disk),
    ("evaluation", "a read-only disk", EVALUATION, read_only),
    ("evaluation", "kill -9 at each of its writes", f"{EVALUATION} --keep out/kept", killed),
    ("evaluation", "Ctrl-C at every fifth of its writes", EVALUATION, interrupted),
    ("evaluation", "Ctrl-C anywhere", EVALUATION, interrupted_anywhere),
    ("evaluation", "two processes in one folder", EVALUATION, side_by_side),
    ("evaluation", "the clock set back", EVALUATION, once(clock_set_back, None, 0)),
    ("make", "a full disk", MAKE, full_disk),
    ("make", "a read-only disk", MAKE, read_only),
    ("make", "kill -9 at each of its writes", MAKE, killed),
    ("make", "Ctrl-C at every fifth of its writes", MAKE, interrupted),
    ("make", "two processes in one folder", MAKE, side_by_side),
    ("make", "the clock set back", MAKE, once(clock_set_back, None, 0)),
    ("serve", "a full disk", "", served_on("", "900k")),
    ("serve", "a read-only disk", "", served_on("ro", "9M")),
    ("serve", "kill -9 at each write of a save", "", served_killed),
    ("serve", "Ctrl-C", "", served_interrupted),
    ("serve", "two servers, one listener", "", served_twice),
    ("serve", "the clock set back", "", served_early),
    ("analyse", "a full disk", ANALYSE, functools.partial(full_disk, room="16k")),
    ("analyse", "a read-only disk", ANALYSE, read_only),
    ("analyse", "kill -9 at each of its writes", ANALYSE, killed),
    ("analyse", "Ctrl-C at every fifth of its writes", ANALYSE, interrupted),
    ("analyse", "two processes in one folder", ANALYSE, side_by_side),
    ("analyse", "the clock set back", ANALYSE, once(clock_set_back, None, 0)),
    (
        "notebooks",
        "a full disk",
        "works",
        functools.partial(full_disk, room="8k", inside=filled),
    ),
    ("notebooks", "a read-only disk", "works", read_only),
    ("notebooks", "kill -9 at every fifth of its writes", "works", every_fifth),
    ("notebooks", "Ctrl-C anywhere", "works", interrupted_anywhere),
    ("notebooks", "a kernel that dies", "dies", once(None)),
    ("notebooks", "two processes in one folder", "works", side_by_side),
    ("notebooks", "the clock set back", "works", once(clock_set_back, None, 0)),
    ("report", "a full disk", "", functools.partial(full_disk, room="24k", inside=results_there(9000))),
    ("report", "a read-only disk", "", functools.partial(read_only, inside=results_there())),
    ("report", "kill -9 at each of its writes", "", killed),
    ("report", "Ctrl-C at every fifth of its writes", "", interrupted),
    ("report", "two processes in one folder", "", side_by_side),
    ("report", "the clock set back", "", once(clock_set_back, None, 0)),
]


# -- an attempt ----------------------------------------------------------------------------------------------


def start(command, arguments: str, hurt=None, told="told.txt") -> int:
    """Fork off a process that runs the command in this folder, without a network; what it prints goes to a
    file."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        output = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1), os.dup2(output, 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False, buffering=1)
        signal.alarm(600)
        alone_here()
        main = import_module(f"dmxlib.{MODULES[command]}").main
        given = {"root": Path.cwd()} if command == "notebooks" else {}
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if hurt:
            hurt()
        main(*[shlex.split(arguments)] if command != "report" else [], **given)
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


def alone_here():
    """No network, and in place of this machine's caches and the project's notebooks those of the folder."""
    from huggingface_hub import constants

    here = Path.cwd()
    for name in ("http_proxy", "https_proxy"):
        os.environ[name] = "http://127.0.0.1:9"
    constants.HF_HUB_CACHE = str(here / "hub")
    torch.hub.set_dir(str(here / "hub"))
    notebooks.ROOT, notebooks.SOURCES, notebooks.COPIES = here, here / "notebooks", here / "out"
    with contextlib.suppress(AttributeError):  # what it starts does not run this file again
        del sys.modules["__main__"].__file__


def ended(child: int, told="told.txt") -> tuple[int, str]:
    """(exit code, the lines that say error, warning or interrupted, or the last one of a traceback)."""
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    lines = Path(told).read_text(errors="replace").replace("\r", "\n").splitlines()
    os.unlink(told)
    told = [line.strip() for line in lines if line.startswith(("error: ", "warning: ", "interrupted"))]
    if any(line.startswith("Traceback") for line in lines):
        told = [f"TRACEBACK {lines[-1]}"]
    elif code not in (0, -signal.SIGKILL) and not told:
        told = [f"? {lines[-1] if lines else ''}"]
    return code, "; ".join(told).replace(f"{os.getcwd()}/", "")


def attempt(command, arguments: str, hurt=None) -> tuple[int, str]:
    """What `ended` gives, of one that is waited for."""
    return ended(start(command, arguments, hurt))


def one_sentence(line: str) -> bool:
    return line.startswith("error: ") and line.endswith(".") and "; error: " not in line


def files() -> set[str]:
    ours = ("told.txt", "first.txt", "second.txt")
    paths = [path for path in Path(".").rglob("*") if path.is_symlink() or not path.is_dir()]
    return {str(path) for path in paths if path.name not in ours and not path.name.startswith("served ")}


CASES = [("bad input", *case) for case in INPUTS] + [("fault", *case) for case in FAULTS]


def tried(base: Path, cases: list):
    """A row of each bad input and fault."""
    commit = reproduce.git_commit()
    for kind, command, wrong, arguments, how in cases:
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
        row = [kind, command, wrong, line, code, change, "" if good else "falls short", commit]
        print(*row, sep=" | ", flush=True)
        yield list(map(str, row))


COLUMNS = ["kind", "command", "what", "line", "code", "files", "verdict", "commit"]
TITLES = {"data": "data prepare", "pack": "data pack"} | {
    name: f"listening {name}" for name in ("make", "serve", "analyse")
}


def read() -> dict[tuple, list]:
    """The rows that there are of today's cases."""
    path = RESULTS / "rows.csv"
    if not path.exists():
        return {}
    with open(path, newline="") as file:
        rows = {tuple(row[:3]): row for row in list(csv.reader(file))[1:]}
    return {case[:3]: rows[case[:3]] for case in CASES if case[:3] in rows}


def write(row: list) -> None:
    """rows.csv, with the rows there are of others, and table.md."""
    path, known = RESULTS / "rows.csv", read() | {tuple(row[:3]): row}
    rows = [known[case[:3]] for case in CASES if case[:3] in known]
    order = list(MODULES)
    rows.sort(key=lambda row: (row[0], order.index(row[1])))
    with reproduce.whole(path) as part, open(part, "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
    text = "# Nothing lost: bad inputs and faults\n\n"
    counts = [sum(row[0] == kind for row in rows) for kind in ("bad input", "fault")]
    short = sum(bool(row[6]) for row in rows)
    commits = ", ".join(sorted({row[7] for row in rows}))
    text += (
        f"{counts[0]} bad inputs and {counts[1]} faults were tried, {short} fell short. A bad input has to\n"
        "be told in one sentence, with exit code 1 and no file more or less; after a fault nothing is half\n"
        f"written. Made by `python tests/faults.py` at commit {commits}; files are those of the\n"
        "folder that each was tried in, before and after. Of the server the code is the HTTP status.\n"
    )
    for kind, title in (("bad input", "Bad inputs"), ("fault", "Faults")):
        text += f"\n## {title}\n\n| command | what | the line that came | code | files | |\n"
        text += "|---|---|---|---|---|---|\n"
        for row in rows:
            if row[0] == kind:
                cells = [TITLES.get(row[1], row[1]), *row[2:7]]
                text += "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |\n"
    (RESULTS / "table.md").write_text(text)


def warm(base: Path) -> None:
    """Import what the commands import when they need it, once for all processes."""
    dmxlib.ensemble.load_separator(str(base / "tiny"))
    plots.training_curve(base / "results/training/run/log.jsonl", "").savefig(io.BytesIO())
    for name in ("papermill", "pyloudnorm", "tornado.web", "scipy.stats"):
        import_module(name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("commands", nargs="*", choices=[[], *MODULES], metavar="COMMAND")
    parser.add_argument("--missing", action="store_true")
    options = parser.parse_args()
    names = options.commands or list(MODULES)
    known = read() if options.missing else {}
    cases = [case for case in CASES if case[1] in names and case[:3] not in known]
    cases.sort(key=lambda case: names.index(case[1]))
    torch.set_num_threads(1)
    metrics.voiced_mask = lambda wave, rate: above(wave, rate, -40.0)  # pYIN is slow, and so is drawing
    plots.spectrograms = lambda waves, rate: Figure(figsize=(1, 1))
    for name in {case[1] for case in cases}:
        import_module(f"dmxlib.{MODULES[name]}")  # once, for all processes
    short = False
    with tempfile.TemporaryDirectory() as base:
        make_base(Path(base))
        warm(Path(base))
        for row in tried(Path(base), cases):
            short |= bool(row[6])
            with reproduce.alone(RESULTS, wait=True):
                write(row)
    sys.exit(short)


if __name__ == "__main__":
    main()
