"""Tracks: folders in the layout of MUSDB18-HQ, `<split>/<track>/{mixture,vocals}.*`, read lazily.

Another stem may take the vocals' place, the `target`: the code says vocals for what is taken out of a song.
"""

import contextlib
import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import yaml

from dmxlib import audio
from dmxlib.config import setting
from dmxlib.errors import InputError

SPLITS = ("train", "valid", "test")
PACK = "pack.json"  # in the folder of a data set that dmxlib.data.pack wrote


@dataclass(frozen=True)
class Track:
    """A song with its vocals, read lazily: samples `first` to `last` (None: the end) of two files.

    Where both are the same file it is a voice alone; without a file of vocals it is instrumental. All lengths
    and places are in samples of one channel.

    Raises InputError on first use where the files differ in rate or length.
    """

    name: str
    mixture_path: Path
    vocals_path: Path | None
    first: int = 0
    last: int | None = None

    @cached_property
    def _info(self):
        infos = []
        for path in filter(None, (self.mixture_path, self.vocals_path)):
            with audio.open_audio(path) as file:
                infos.append((file.samplerate, file.frames))
        if infos[0] != infos[-1]:
            raise InputError(f"{self.vocals_path} differs in rate or length from {self.mixture_path.name}.")
        return infos[0]

    @property
    def rate(self) -> int:
        """Sampling rate in Hz."""
        return self._info[0]

    @property
    def samples(self) -> int:
        """Length in samples at `rate`."""
        return (self._info[1] if self.last is None else self.last) - self.first

    @property
    def has_vocals(self) -> bool:
        """Whether anybody sings."""
        return self.vocals_path is not None

    @property
    def has_accompaniment(self) -> bool:
        """Whether there is more than the vocals."""
        return self.vocals_path != self.mixture_path

    def mixture(self, start: int = 0, samples: int | None = None) -> np.ndarray:
        """The mixture, float32 (2, samples), from sample `start` on; fewer at the end of the track."""
        return self._read(self.mixture_path, start, samples)

    def vocals(self, start: int = 0, samples: int | None = None) -> np.ndarray:
        """The vocals, as the mixture; zeros of an instrumental."""
        return self._read(self.vocals_path, start, samples)

    def _read(self, path, start, samples):
        left = max(0, self.samples - start)
        count = left if samples is None else min(samples, left)
        if path is None:
            return np.zeros((2, count), np.float32)
        return audio.read(path, self.first + start, count)[0]


class PackedTrack(Track):
    """A song of a pack: `mixture_path` is its accompaniment's file, and the mixture the sum of both."""

    def mixture(self, start: int = 0, samples: int | None = None) -> np.ndarray:
        """As a track's."""
        return super().mixture(start, samples) + self.vocals(start, samples)


def load_tracks(root, split: str, target: str = "vocals") -> list[Track]:
    """The tracks of a prepared data set's split ("train", "test", ...), sorted by name.

    Args:
        target: the stem that is the vocals, `<target>.*` beside each mixture.

    MUSDB18-HQ as it is downloaded is read through `musdb`, whose "train" leaves out its own "valid" songs.

    Raises InputError where there are none.
    """
    root = Path(root)
    if (root / PACK).is_file() and target == "vocals":
        tracks = [track for track in _packed(root, split) if isinstance(track, PackedTrack)]
    else:
        read_tracks = _musdb_tracks if split in SPLITS and is_musdb(root) else _folder_tracks
        tracks = read_tracks(root, split, target)
    if not tracks:
        raise InputError(
            f"{root} holds no tracks for '{split}'; expected {root}/{split}/<track>/mixture.wav and "
            f"{target}.wav (or .flac); `python -m dmxlib.data prepare --help` makes a data set ready."
        )
    return tracks


def _folder_tracks(root: Path, split: str, target: str) -> list[Track]:
    parent = root / split if (root / split).is_dir() else root
    tracks = [folder_track(folder, target) for folder in sorted(parent.glob("*")) if folder.is_dir()]
    return [track for track in tracks if track]


def folder_track(folder: Path, target: str = "vocals") -> Track | None:
    """The track of a folder that holds mixture.* and <target>.*, or None."""
    paths = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in audio.EXTENSIONS]
    files = {path.stem: path for path in paths}
    if {"mixture", target} <= files.keys():
        return Track(folder.name, files["mixture"], files[target])


def load_sources(root, split: str) -> list[Track]:
    """The voices alone and instrumental pieces of a split, which only remixing makes songs of; maybe none."""
    if (Path(root) / PACK).is_file():
        return [track for track in _packed(Path(root), split) if not isinstance(track, PackedTrack)]
    voices, music = (sorted((Path(root) / split / kind).glob("*.flac")) for kind in ("voices", "music"))
    return [Track(path.stem, path, path) for path in voices] + [
        Track(path.stem, path, None) for path in music
    ]


def _packed(root: Path, split: str) -> list[Track]:
    """All of a pack's split. Its files hold one track after the other; pack.json says what lies where."""
    tracks = []
    for row in json.loads((root / PACK).read_text()):
        vocals, accompaniment = (row[stem] and root / row[stem] for stem in ("vocals", "accompaniment"))
        kind = PackedTrack if vocals and accompaniment else Track
        if row["split"] == split:
            tracks.append(kind(row["name"], accompaniment or vocals, vocals, row["first"], row["last"]))
    return tracks


def has_valid(root: Path) -> bool:
    """Whether a data set has valid songs of its own."""
    if (root / PACK).is_file():
        return bool(_packed(root, "valid"))
    return (root / "valid").is_dir() or is_musdb(root)


def is_musdb(root: Path) -> bool:
    """Whether songs that `musdb` keeps for validation lie among the training songs, as downloaded."""
    package = Path(importlib.util.find_spec("musdb").origin).parent
    names = yaml.safe_load((package / "configs" / "mus.yaml").read_text())["validation_tracks"]
    return any((root / "train" / name / "mixture.wav").is_file() for name in names)


def _musdb_tracks(root: Path, split: str, target: str) -> list[Track]:
    import musdb  # needs ffmpeg on the PATH already at import

    subset, part = ("test", None) if split == "test" else ("train", split)
    database = musdb.DB(root=str(root), is_wav=True, subsets=subset, split=part)
    paths = [Path(track.path) for track in database.tracks]
    return [Track(path.parent.name, path, path.with_name(f"{target}.wav")) for path in paths]


def hold_out(tracks: list[Track], seconds: float) -> tuple[list[Track], list[Track]]:
    """Split every track in time: (all but the last `seconds`, the last `seconds`), for validation.

    Raises InputError for a track that is not longer than that.
    """
    for track in tracks:
        if track.samples <= seconds * track.rate:
            raise InputError(
                f"{track.name} is not longer than the {seconds} s to hold out of it; hold out less."
            )
    cuts = [track.first + track.samples - round(seconds * track.rate) for track in tracks]
    kept = [replace(track, last=cut) for track, cut in zip(tracks, cuts, strict=True)]
    held = [replace(track, first=cut) for track, cut in zip(tracks, cuts, strict=True)]
    return kept, held


@dataclass
class SongsConfig:
    """Which songs a command learns from: what `training_tracks` takes."""

    data_root: str | list = setting("data/toy", "folder of a data set, or a list of them")
    target: str = setting("vocals", "what is taken out of the mixture: a stem, <target>.wav beside it")
    hold_out_seconds: float = setting(
        8.0, "seconds of the end of each training song that are kept for validation", least=0
    )


def training_tracks(
    roots, seconds: float, target: str = "vocals"
) -> tuple[list[list[Track]], list[list[Track]]]:
    """What to train on and what to validate on, a list for each of the data sets `roots` (one or several).

    A set is validated on its valid songs where it has any, else on the last `seconds` of each of its
    training songs; voices and pieces that lie apart have no such ends. A set that is named twice is trained
    on twice as often, and validated on once. Voices that lie apart are of no use to another `target`.

    Raises InputError where nothing is left to validate on, or nobody sings in what is to be trained on.
    """
    roots = [roots] if isinstance(roots, str | Path) else roots
    parts = {str(root): _training_and_validation(Path(root), seconds, target) for root in roots}
    validation = [held for _, held in parts.values() if held]
    if not validation:
        raise InputError(
            f"{', '.join(parts)}: no songs to validate on; add a data set that has a valid/ folder."
        )
    training = [parts[str(root)][0] for root in roots]
    if not any(_sung(track) for tracks in training for track in tracks if track.has_vocals):
        raise InputError(
            f"{', '.join(parts)}: no second of the training songs' vocals is louder than "
            f"{audio.SILENCE_DBFS:.0f} dBFS, so nobody sings; look into their vocals files."
        )
    return training, validation


def _sung(track: Track) -> bool:
    """Whether one of a track's seconds is sung; what cannot be read is not."""
    with contextlib.suppress(InputError), audio.open_audio(track.vocals_path) as file:
        file.seek(track.first)
        blocks = audio.read_blocks(file, track.rate, track.samples)
        return any(audio.level_dbfs(block) > audio.SILENCE_DBFS for block in blocks)
    return False


def _training_and_validation(root: Path, seconds: float, target: str) -> tuple[list[Track], list[Track]]:
    sources = load_sources(root, "train") if target == "vocals" else []
    tracks = sources or load_tracks(root, "train", target)
    if has_valid(root):
        return tracks, load_tracks(root, "valid", target)
    return (sources, []) if sources else hold_out(tracks, seconds)


@dataclass(frozen=True)
class Song:
    """A song to prepare: `load()` gives (vocals, accompaniment, rate in Hz), each source (2, samples)."""

    split: str
    name: str
    load: Callable[[], tuple[np.ndarray, np.ndarray, int]]
