"""What is heard: tracks, the folders they lie in, and random training pairs of them."""

from dmxlib.data.augment import AUGMENTATIONS
from dmxlib.data.pairs import PairsConfig, VocalPairs, training_pairs
from dmxlib.data.preparation import prepare
from dmxlib.data.tracks import (
    SPLITS,
    Song,
    SongsConfig,
    Track,
    folder_track,
    hold_out,
    load_sources,
    load_tracks,
    training_tracks,
)

__all__ = [
    "AUGMENTATIONS",
    "PairsConfig",
    "SPLITS",
    "Song",
    "SongsConfig",
    "Track",
    "VocalPairs",
    "folder_track",
    "hold_out",
    "load_sources",
    "load_tracks",
    "prepare",
    "training_pairs",
    "training_tracks",
]
