"""Make a data set ready, once: `DST/<split>/<track>/{mixture,vocals}.*`, which every command reads."""

import inspect
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dmxlib import audio
from dmxlib.errors import InputError
from dmxlib.reproduce import alone

# name: a function of (destination, source, quiet) and the set's own options, that returns the songs to write.
# A set whose voices and pieces lie apart writes those itself.
SETS = {
    "toy": "dmxlib.data.sets.toy:songs",
    "musdb18-hq": "dmxlib.data.sets.folder:songs",
    "folder": "dmxlib.data.sets.folder:songs",
    "everything-is-free": "dmxlib.data.sets.album:songs",
    "everything-is-free-stems": "dmxlib.data.sets.album:stems",
    "mir-1k": "dmxlib.data.sets.mir1k:songs",
    "debian": "dmxlib.data.sets.debian:songs",
    "solo-singing": "dmxlib.data.sets.solo:voices",
    "voicebanks": "dmxlib.data.sets.voicebanks:voices",
}


def find(name: str) -> Callable:
    """The function that SETS names."""
    module, _, function = SETS[name].partition(":")
    return getattr(import_module(module), function)


def prepare(name: str, destination, source=None, quiet: bool = False, **options) -> None:
    """Write the songs of data set `name` to `destination/<split>/<track>/`; finished ones stay.

    A song that peaks above 1 is divided by its peak. The toy set is 16-bit wav like MUSDB18-HQ, the others
    24-bit flac.

    Args:
        source: where the data set as downloaded lies.
        options: of a set's own, such as mir-1k's `split`, debian's `sing`, and the `target` of sets with
            stems, which is written in the vocals' place.

    Raises InputError where the source is missing, the set has no such option, or another process prepares
    data in the folder.
    """
    ending, subtype = (".wav", "PCM_16") if name == "toy" else (".flac", "PCM_24")
    songs_of = find(name)
    unknown = sorted(options.keys() - inspect.signature(songs_of).parameters.keys())
    if unknown:
        raise InputError(f"{name} has no --{unknown[0]}; leave it out.")
    with alone(destination):
        songs = songs_of(Path(destination), source and Path(source), quiet, **options)
        for song in tqdm(songs, desc=f"prepare {name}", unit="song", disable=quiet):
            folder = Path(destination) / song.split / song.name
            paths = [folder / (stem + ending) for stem in ("mixture", options.get("target", "vocals"))]
            if not all(path.exists() for path in paths):
                vocals, accompaniment, rate = song.load()
                waves = (vocals + accompaniment, vocals)
                peak = max(1.0, *(float(np.abs(wave).max()) for wave in waves))
                for path, wave in zip(paths, waves, strict=True):
                    audio.write(path, wave / peak, rate, subtype)
