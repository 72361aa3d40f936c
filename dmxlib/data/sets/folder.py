"""Any tree of `<split>/<track>/{mixture,vocals}.*`, such as MUSDB18-HQ as it is downloaded."""

from functools import partial
from pathlib import Path

import numpy as np

from dmxlib.data.tracks import SPLITS, Song, Track, is_musdb, load_tracks
from dmxlib.errors import InputError


def songs(destination: Path, source: Path | None, quiet: bool, target: str = "vocals") -> list[Song]:
    """The songs of every split there is, with the stem `target`.

    Raises InputError where the source is no folder.
    """
    if source is None or not source.is_dir():
        raise InputError(f"--source {source} is no folder; name one that holds train/ and test/.")
    present = [split for split in SPLITS if (source / split).is_dir()] or ["train"]
    return [
        Song(split, track.name, partial(_load, track))
        for split in (SPLITS if is_musdb(source) else present)
        for track in load_tracks(source, split, target)
    ]


def _load(track: Track) -> tuple[np.ndarray, np.ndarray, int]:
    vocals = track.vocals()
    return vocals, track.mixture() - vocals, track.rate
