"""Tracks, the data sets behind them, and random training pairs of vocals and mixture.

`python -m dmxlib.data prepare SET DST` makes a data set ready once: `DST/<split>/<track>/{mixture,vocals}.*`,
the layout of MUSDB18-HQ, which every other module reads with `load_tracks`.
"""

import argparse
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
import yaml
from tqdm import tqdm

from dmxlib import audio
from dmxlib.augment import AUGMENTATIONS, CHANGES, PITCH_SEMITONES, REMIXES, one_band, over
from dmxlib.errors import InputError, exit_on_input_error
from dmxlib.reproduce import choice, seeded_generator, uniform

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Track:
    """A song with its vocals, read lazily: frames `first` to `last` (None: the end) of two files.

    Where both are the same file it is a voice alone; without a file of vocals it is instrumental.

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
    def frames(self) -> int:
        """Length in frames at `rate`."""
        return (self._info[1] if self.last is None else self.last) - self.first

    @property
    def has_vocals(self) -> bool:
        """Whether anybody sings."""
        return self.vocals_path is not None

    @property
    def has_accompaniment(self) -> bool:
        """Whether there is more than the vocals."""
        return self.vocals_path != self.mixture_path

    def mixture(self, start: int = 0, frames: int | None = None) -> np.ndarray:
        """The mixture, (2, frames) from frame `start` on."""
        return self._read(self.mixture_path, start, frames)

    def vocals(self, start: int = 0, frames: int | None = None) -> np.ndarray:
        """The vocals, (2, frames) from frame `start` on."""
        return self._read(self.vocals_path, start, frames)

    def _read(self, path, start, frames):
        left = max(0, self.frames - start)
        count = left if frames is None else min(frames, left)
        if path is None:
            return np.zeros((2, count), np.float32)
        return audio.read(path, self.first + start, count)[0]


def load_tracks(root, split: str) -> list[Track]:
    """The tracks of a prepared data set's split ("train", "test", ...), sorted by name.

    MUSDB18-HQ as it is downloaded is read through `musdb`, whose "train" leaves out its own "valid" songs.

    Raises InputError where there are none.
    """
    root = Path(root)
    read_tracks = _musdb_tracks if split in SPLITS and _is_musdb(root) else _folder_tracks
    tracks = read_tracks(root, split)
    if not tracks:
        raise InputError(
            f"{root} holds no tracks for '{split}'; expected {root}/{split}/<track>/mixture.wav and "
            "vocals.wav (or .flac); `python -m dmxlib.data prepare --help` makes a data set ready."
        )
    return tracks


def _folder_tracks(root: Path, split: str) -> list[Track]:
    parent = root / split if (root / split).is_dir() else root
    tracks = [folder_track(folder) for folder in sorted(parent.glob("*")) if folder.is_dir()]
    return [track for track in tracks if track]


def folder_track(folder: Path) -> Track | None:
    """The track of a folder that holds mixture.* and vocals.*, or None."""
    paths = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in audio.EXTENSIONS]
    files = {path.stem: path for path in paths}
    if {"mixture", "vocals"} <= files.keys():
        return Track(folder.name, files["mixture"], files["vocals"])


def load_sources(root, split: str) -> list[Track]:
    """The voices alone and instrumental pieces of a split, which only remixing makes songs of; maybe none."""
    voices, music = (sorted((Path(root) / split / kind).glob("*.flac")) for kind in ("voices", "music"))
    return [Track(path.stem, path, path) for path in voices] + [
        Track(path.stem, path, None) for path in music
    ]


def _is_musdb(root: Path) -> bool:
    """Whether songs that `musdb` keeps for validation lie among the training songs, as downloaded."""
    package = Path(importlib.util.find_spec("musdb").origin).parent
    names = yaml.safe_load((package / "configs" / "mus.yaml").read_text())["validation_tracks"]
    return any((root / "train" / name / "mixture.wav").is_file() for name in names)


def _musdb_tracks(root: Path, split: str) -> list[Track]:
    import musdb  # needs ffmpeg on the PATH already at import

    subset, part = ("test", None) if split == "test" else ("train", split)
    database = musdb.DB(root=str(root), is_wav=True, subsets=subset, split=part)
    paths = [Path(track.path) for track in database.tracks]
    return [Track(path.parent.name, path, path.with_name("vocals.wav")) for path in paths]


def hold_out(tracks: list[Track], seconds: float) -> tuple[list[Track], list[Track]]:
    """Split every track in time: (all but the last `seconds`, the last `seconds`), for validation.

    Raises InputError for a track that is not longer than that.
    """
    for track in tracks:
        if track.frames <= seconds * track.rate:
            raise InputError(
                f"{track.name} is not longer than the {seconds} s to hold out of it; hold out less."
            )
    cuts = [track.first + track.frames - round(seconds * track.rate) for track in tracks]
    kept = [replace(track, last=cut) for track, cut in zip(tracks, cuts, strict=True)]
    held = [replace(track, first=cut) for track, cut in zip(tracks, cuts, strict=True)]
    return kept, held


def training_tracks(roots, seconds: float) -> tuple[list[list[Track]], list[list[Track]]]:
    """What to train on and what to validate on, a list for each of the data sets `roots` (one or several).

    A set is validated on its valid songs where it has any, else on the last `seconds` of each of its
    training songs; voices and pieces that lie apart have no such ends. A set that is named twice is trained
    on twice as often, and validated on once.

    Raises InputError where nothing is left to validate on.
    """
    roots = [roots] if isinstance(roots, str | Path) else roots
    parts = {str(root): _training_and_validation(Path(root), seconds) for root in roots}
    validation = [held for _, held in parts.values() if held]
    if not validation:
        raise InputError(
            f"{', '.join(parts)}: no songs to validate on; add a data set that has a valid/ folder."
        )
    return [parts[str(root)][0] for root in roots], validation


def _training_and_validation(root: Path, seconds: float) -> tuple[list[Track], list[Track]]:
    sources = load_sources(root, "train")
    tracks = sources or load_tracks(root, "train")
    if (root / "valid").is_dir() or _is_musdb(root):
        return tracks, load_tracks(root, "valid")
    return (sources, []) if sources else hold_out(tracks, seconds)


# -- training pairs ------------------------------------------------------------------------------------------


class VocalPairs(torch.utils.data.Dataset):
    """Random excerpts as {"vocals", "mixture"}, float tensors (channels, frames) at the model's rate.

    Which excerpt and which augmentation item `index` is depends on (seed, epoch, index) alone, never on the
    worker that makes it. Of excerpts without singing 95 % are drawn again, as in the authors' sibling paper.
    A voice alone always gets the accompaniment of another track.

    Args:
        tracks: a list, or one list for each of several data sets: each set is drawn with equal probability,
            then one of its tracks, then an excerpt.
        augmentations: which of AUGMENTATIONS to apply.

    Raises InputError for one that is unknown.
    """

    SILENT_KEPT = 0.05

    def __init__(self, tracks, length, seconds, rate, channels, seed, augmentations=AUGMENTATIONS):
        unknown = sorted({*augmentations} - {*AUGMENTATIONS})
        if unknown:
            raise InputError(f"unknown augmentation {unknown[0]}; choose from {', '.join(AUGMENTATIONS)}.")
        sets = [tracks] if isinstance(tracks[0], Track) else tracks
        self.singers = _nonempty([track for track in tracks if track.has_vocals] for tracks in sets)
        self.bands = _nonempty([track for track in tracks if track.has_accompaniment] for tracks in sets)
        self.length, self.seconds, self.rate = length, seconds, rate
        self.channels, self.seed, self.augmentations = channels, seed, augmentations
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the training loop: a new epoch draws new pairs."""
        self.epoch = epoch

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        generator = seeded_generator(self.seed, self.epoch, index)
        track, pair = self._sung(generator)
        rates = [track.rate]

        def draw():
            band = self._draw(self.bands, generator)
            rates.append(band.rate)
            return self._excerpt(band, generator)

        if not track.has_accompaniment:
            pair = over(pair, draw())
        for name, remix in REMIXES.items():
            if name in self.augmentations:
                pair = remix(pair, draw, generator)
        if "one_band" in self.augmentations and min(rates) < min(max(rates), self.rate):
            pair = one_band(pair, self.rate, min(rates))
        for name, change in CHANGES.items():
            if name in self.augmentations:
                pair = change(pair, generator)
        frames = round(self.seconds * self.rate)
        vocals, accompaniment = (
            audio.fit(audio.match_channels(source, self.channels), frames) for source in pair
        )
        return {"vocals": torch.from_numpy(vocals), "mixture": torch.from_numpy(vocals + accompaniment)}

    def _sung(self, generator):
        for _ in range(100):  # an almost silent data set still ends
            track = self._draw(self.singers, generator)
            pair = self._excerpt(track, generator)
            if audio.level_dbfs(pair[0]) > audio.SILENCE_DBFS or uniform(generator, 0, 1) < self.SILENT_KEPT:
                break
        return track, pair

    def _draw(self, sets, generator):
        # no draw for the set where there is one only
        return choice(sets[0] if len(sets) == 1 else choice(sets, generator), generator)

    def _excerpt(self, track, generator):
        # a raised pitch shortens the excerpt
        margin = 2 ** (PITCH_SEMITONES / 12) if "pitch_shift" in self.augmentations else 1
        frames = round(self.seconds * margin * track.rate)
        start = int(uniform(generator, 0, max(1, track.frames - frames)))
        vocals, mixture = track.vocals(start, frames), track.mixture(start, frames)
        sources = (vocals, mixture - vocals)
        return tuple(audio.resample(source, track.rate, self.rate) for source in sources)


def _nonempty(lists):
    return [items for items in lists if items]


def training_pairs(config, seconds: float, rate: int, channels: int) -> tuple[VocalPairs, VocalPairs]:
    """The (training, validation) pairs of a data set's training songs, whose last part is held out.

    Args:
        config: has data_root, pairs, augmentations, hold_out_seconds, validation_pairs and seed.
        seconds, rate, channels: of an excerpt.
    """
    kept, held = training_tracks(config.data_root, config.hold_out_seconds)
    excerpts = (seconds, rate, channels)
    training = VocalPairs(kept, config.pairs, *excerpts, config.seed, config.augmentations)
    return training, VocalPairs(held, config.validation_pairs, *excerpts, seed=1, augmentations=())


# -- preparation ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Song:
    """A song to prepare: `load()` gives (vocals, accompaniment, rate), each source (2, frames)."""

    split: str
    name: str
    load: Callable[[], tuple[np.ndarray, np.ndarray, int]]


def toy_songs(source: Path | None) -> list[Song]:
    """The package's own synthetic songs: four to train on, two to test on, 20 s each."""
    from dmxlib.toy import render_song

    def load(seed):
        return *render_song(seed, seconds=20.0), 44_100

    splits = ["train"] * 4 + ["test"] * 2
    return [Song(split, f"Toy Song {seed}", partial(load, seed)) for seed, split in enumerate(splits)]


def folder_songs(source: Path | None) -> list[Song]:
    """Any tree of <split>/<track>/{mixture,vocals}.*, such as MUSDB18-HQ's."""
    if source is None or not source.is_dir():
        raise InputError(f"--source {source} is no folder; name one that holds train/ and test/.")
    present = [split for split in SPLITS if (source / split).is_dir()] or ["train"]
    return [
        Song(split, track.name, partial(_load_track, track))
        for split in (SPLITS if _is_musdb(source) else present)
        for track in load_tracks(source, split)
    ]


def _load_track(track: Track) -> tuple[np.ndarray, np.ndarray, int]:
    vocals = track.vocals()
    return vocals, track.mixture() - vocals, track.rate


SETS = {"toy": toy_songs, "musdb18-hq": folder_songs, "folder": folder_songs}
OTHER_SETS = ("everything-is-free", "everything-is-free-stems", "mir-1k", "debian")  # modules of their own


def prepare(
    name: str, destination, source=None, split: str = "singers", sing: bool = False, quiet: bool = False
) -> None:
    """Write the songs of data set `name` to `destination/<split>/<track>/`; finished ones stay.

    A song that peaks above 1 is divided by its peak. The toy set is 16-bit wav like MUSDB18-HQ, the others
    24-bit flac. `split` is mir-1k's, `sing` debian's. Raises InputError where the source is missing.
    """
    if name in OTHER_SETS:
        # they rest on this module, and on what the others need not wait for
        from dmxlib import album, debian, mir1k
    source = source and Path(source)
    ending, subtype = (".wav", "PCM_16") if name == "toy" else (".flac", "PCM_24")
    if name == "everything-is-free-stems":
        return album.write_stems(destination, source, quiet)
    if name == "everything-is-free":
        songs = album.songs(source)
    elif name == "mir-1k":
        songs = mir1k.songs(source, split)
    elif name == "debian":
        songs = debian.songs(destination, sing, quiet)
    else:
        songs = SETS[name](source)
    for song in tqdm(songs, desc=f"prepare {name}", unit="song", disable=quiet):
        folder = Path(destination) / song.split / song.name
        paths = [folder / (stem + ending) for stem in ("mixture", "vocals")]
        if not all(path.exists() for path in paths):
            vocals, accompaniment, rate = song.load()
            waves = (vocals + accompaniment, vocals)
            peak = max(1.0, *(float(np.abs(wave).max()) for wave in waves))
            for path, wave in zip(paths, waves, strict=True):
                audio.write(path, wave / peak, rate, subtype)


@exit_on_input_error
def main(argv=None) -> None:
    """Command line: `python -m dmxlib.data prepare SET DST [--source DIR]`."""
    parser = argparse.ArgumentParser(
        prog="python -m dmxlib.data", description="Make a data set ready for dmxlib."
    )
    prepare_parser = parser.add_subparsers(required=True).add_parser(
        "prepare", help="write one data set, once"
    )
    prepare_parser.add_argument(
        "name", metavar="SET", choices=[*SETS, *OTHER_SETS], help=f"one of {', '.join((*SETS, *OTHER_SETS))}"
    )
    prepare_parser.add_argument("destination", metavar="DST", help="folder to write to, e.g. data/toy")
    prepare_parser.add_argument("--source", metavar="DIR", help="where the data set as downloaded lies")
    prepare_parser.add_argument(
        "--split",
        choices=("singers", "huang"),
        default="singers",
        help="mir-1k: no singer in two splits, or the published benchmark's",
    )
    prepare_parser.add_argument("--sing", action="store_true", help="debian: add sung copies of the voices")
    prepare(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    main()
