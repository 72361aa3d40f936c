"""The CC0 album "Everything is Free" by Software-Entwicklungskit, which comes with its stems, in a clone.

`python -m dmxlib.data prepare everything-is-free DST --source CLONE` makes songs of them;
`everything-is-free-stems` in its place writes the training songs' stems one by one, as sources: a training
pair then has a band that never played together.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dmxlib import audio
from dmxlib.data.tracks import Song
from dmxlib.errors import InputError

STEMS = "*_Stem_*_mobile.m4a"  # beside them lie a master and, in some versions, another bit rate

ALBUM = dict.fromkeys(("Hydrogen", "Lithium", "Sodium", "Potassium", "Rubidium"), "train") | {
    "Caesium": "test"
}
HELD_OUT_SECONDS = 40  # of the end, which validation is for: the configs' hold_out_seconds
TARGETS = {  # a stem is of one where its name holds one of these words
    "vocals": ("VOX",),
    "drums": ("DRUM", "KICK", "HAT", "HH", "CLAP", "CRASH", "TOPS", "BEAT", "K & SN"),
    "bass": ("BASS",),
}
SOUND_DBFS = -50.0  # RMS of a second that is kept; a stem is silent most of the time
LEAST_SECONDS = 10  # of sound that a stem has to have: more than an excerpt at any pitch


def song_folders(source: Path | None) -> dict[Path, str]:
    """Folder -> split of the CC0 album's songs in a clone; InputError where there are none."""
    found = {path.parent for path in Path(source or ".").glob(f"src/*/{STEMS}")}
    folders = sorted(folder for folder in found if folder.name.partition(".")[2] in ALBUM)
    if not folders:
        raise InputError(
            f"--source {source} holds no src/<n>.<Song>/<n>.<Song>_Stem_<NAME>_mobile.m4a; clone "
            "github.com/ichbinsoftware/everythingisremixed and name its folder with --source."
        )
    return {folder: ALBUM[folder.name.partition(".")[2]] for folder in folders}


@dataclass(frozen=True)
class Stem:
    """One of a song's stems, which start together and differ in length."""

    path: Path
    rate = 48_000

    @property
    def name(self) -> str:
        """What the album calls it."""
        return self.path.stem.partition("_Stem_")[2].removesuffix("_mobile")

    def is_of(self, target: str) -> bool:
        """Whether it is a part of one of TARGETS."""
        return any(word in self.name for word in TARGETS[target])

    def read(self) -> np.ndarray:
        """The wave, (channels, samples) at `rate`."""
        return audio.resample(*audio.read(self.path), self.rate)


def stems_of(folder: Path) -> list[Stem]:
    """The stems of a song, sorted by name."""
    return [Stem(path) for path in sorted(folder.glob(STEMS))]


def songs(destination: Path, source: Path | None, quiet: bool, target: str = "vocals") -> list[Song]:
    """The album: five songs train, Caesium tests.

    Raises InputError where the source is missing, or the target is none of TARGETS.
    """
    if target not in TARGETS:
        raise InputError(f"the album has no stems of target '{target}'; choose {', '.join(TARGETS)}.")
    return [
        Song(split, folder.name, partial(_sum_stems, folder, target))
        for folder, split in song_folders(source).items()
    ]


def _sum_stems(folder: Path, target: str) -> tuple[np.ndarray, np.ndarray, int]:
    waves = {stem: stem.read() for stem in stems_of(folder)}
    vocals, accompaniment = np.zeros((2, 2, max(wave.shape[1] for wave in waves.values())), np.float32)
    for stem, wave in waves.items():
        source = vocals if stem.is_of(target) else accompaniment
        source[:, : wave.shape[1]] += wave
    return vocals, accompaniment, Stem.rate


def stems(destination: Path, source: Path | None, quiet: bool) -> list[Song]:
    """Write what is missing of the stems, 48 kHz, 16-bit flac; there are no songs.

    Raises InputError where the source is missing.
    """
    folders = [folder for folder, split in song_folders(source).items() if split == "train"]
    for folder in tqdm(folders, desc="prepare stems", unit="song", disable=quiet):
        for stem in stems_of(folder):
            kind = "voices" if stem.is_of("vocals") else "music"
            path = destination / "train" / kind / f"{folder.name} {stem.name}.flac"
            if path.exists():
                continue
            sounding = sound(stem.read()[:, : -HELD_OUT_SECONDS * stem.rate], stem.rate)
            if sounding.shape[1] >= LEAST_SECONDS * stem.rate:
                audio.write(path, audio.stereo(sounding), stem.rate, "PCM_16")
    return []


def sound(wave: np.ndarray, rate: int) -> np.ndarray:
    """The seconds of (channels, samples) that are louder than SOUND_DBFS, one after the other."""
    seconds = [wave[:, start : start + rate] for start in range(0, wave.shape[1], rate)]
    kept = [second for second in seconds if audio.level_dbfs(second) > SOUND_DBFS]
    return np.concatenate([wave[:, :0], *kept], axis=1)
