"""The album's stems one by one, as sources: a training pair then has a band that never played together.

`python -m dmxlib.data prepare everything-is-free-stems data/stems --source CLONE` writes each stem of the
training songs to `train/voices/` or `train/music/`, which `training_tracks` reads beside the songs.
"""

from pathlib import Path

import numpy as np
from tqdm import tqdm

from dmxlib import audio
from dmxlib.data import album_folders, album_stems

HELD_OUT_SECONDS = 40  # of the end, which validation is for: the configs' hold_out_seconds
SOUND_DBFS = -50.0  # RMS of a second that is kept; a stem is silent most of the time
LEAST_SECONDS = 10  # of sound that a stem has to have: more than an excerpt at any pitch


def write_stems(destination, source, quiet: bool = False) -> None:
    """Write what is missing; 48 kHz, 16-bit flac.

    Raises InputError where the source is missing.
    """
    folders = [folder for folder, split in album_folders(source).items() if split == "train"]
    for folder in tqdm(folders, desc="prepare stems", unit="song", disable=quiet):
        for stem in album_stems(folder):
            kind = "voices" if stem.is_vocal else "music"
            path = Path(destination) / "train" / kind / f"{folder.name} {stem.name}.flac"
            if path.exists():
                continue
            sounding = sound(stem.read()[:, : -HELD_OUT_SECONDS * stem.rate], stem.rate)
            if sounding.shape[1] >= LEAST_SECONDS * stem.rate:
                audio.write(path, audio.stereo(sounding), stem.rate, "PCM_16")


def sound(wave: np.ndarray, rate: int) -> np.ndarray:
    """The seconds of (channels, frames) that are louder than SOUND_DBFS, one after the other."""
    seconds = [wave[:, start : start + rate] for start in range(0, wave.shape[1], rate)]
    kept = [second for second in seconds if audio.level_dbfs(second) > SOUND_DBFS]
    return np.concatenate([wave[:, :0], *kept], axis=1)
