"""`VocalPairs`: random training pairs of vocals and mixture. Item k is a function of (seed, epoch, k)."""

import warnings
from dataclasses import dataclass

import torch

from dmxlib import audio
from dmxlib.config import setting
from dmxlib.data import augment
from dmxlib.data.augment import AUGMENTATIONS, EXTRA, PITCH_SEMITONES
from dmxlib.data.tracks import SongsConfig, Track, training_tracks
from dmxlib.errors import InputError
from dmxlib.reproduce import choice, seeded_generator, uniform


class VocalPairs(torch.utils.data.Dataset):
    """Random excerpts as {"vocals", "mixture"}, float tensors (channels, samples) at the model's rate.

    Which excerpt and which augmentation item `index` is depends on (seed, epoch, index) alone, never on the
    worker that makes it. Of excerpts without singing 95 % are chosen anew, as in the authors' sibling paper.
    A voice alone always gets the accompaniment of another track. An excerpt that cannot be read, for samples
    that are NaN or a damaged file, is left out for another one, and a warning names its track once.

    Args:
        tracks: a list, or one list for each of several data sets: each set is chosen with equal probability,
            then one of its tracks, then an excerpt.
        length: items of an epoch.
        seconds: of an excerpt; an item has round(seconds * rate) samples.
        rate: sampling rate of the items in Hz.
        channels: of the items, 1 or 2.
        seed: an integer, of every random choice.
        augmentations: names out of AUGMENTATIONS, which is the default, and EXTRA, in any order.

    Raises InputError for a name that is neither's.
    """

    SILENT_KEPT = 0.05
    REMIXES, VOICES, CHANGES = augment.REMIXES, augment.VOICES, augment.CHANGES
    over, one_band = staticmethod(augment.over), staticmethod(augment.one_band)

    def __init__(self, tracks, length, seconds, rate, channels, seed, augmentations=AUGMENTATIONS):
        known = (*AUGMENTATIONS, *EXTRA)
        unknown = sorted({*augmentations} - {*known})
        if unknown:
            raise InputError(f"unknown augmentation {unknown[0]}; choose from {', '.join(known)}.")
        sets = [tracks] if isinstance(tracks[0], Track) else tracks
        self.singers = _nonempty([track for track in tracks if track.has_vocals] for tracks in sets)
        self.bands = _nonempty([track for track in tracks if track.has_accompaniment] for tracks in sets)
        self.length, self.seconds, self.rate = length, seconds, rate
        self.channels, self.seed, self.augmentations = channels, seed, augmentations
        self.epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # workers that go on see it change
        self.numbers = {track: number for number, track in enumerate({*sum(self.singers + self.bands, [])})}
        self.named = torch.zeros(len(self.numbers), dtype=torch.bool).share_memory_()  # of what is damaged

    def set_epoch(self, epoch: int) -> None:
        """Called by the training loop: a new epoch has new pairs."""
        self.epoch.fill_(epoch)

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        generator = seeded_generator(self.seed, int(self.epoch), index)
        track, pair = self._sung(generator)
        rates = [track.rate]

        def another():
            band, _, excerpt = self._draw(self.bands, generator)
            rates.append(band.rate)
            return excerpt

        if not track.has_accompaniment:
            pair = self.over(pair, another())
        for name, remix in self.REMIXES.items():
            if name in self.augmentations:
                pair = remix(pair, another, generator)
        if "one_band" in self.augmentations and min(rates) < min(max(rates), self.rate):
            pair = self.one_band(pair, self.rate, min(rates))
        for name, change in self.VOICES.items():
            if name in self.augmentations:
                pair = change(pair[0], self.rate, generator), pair[1]
        for name, change in self.CHANGES.items():
            if name in self.augmentations:
                pair = change(pair, generator)
        return self._item(pair)

    def _item(self, pair):
        samples = round(self.seconds * self.rate)
        vocals, accompaniment = (
            audio.fit(audio.match_channels(source, self.channels), samples) for source in pair
        )
        return {"vocals": torch.from_numpy(vocals), "mixture": torch.from_numpy(vocals + accompaniment)}

    def _sung(self, generator):
        for _ in range(100):  # an almost silent data set still ends
            track, place, pair = self._draw(self.singers, generator)
            sung = self._level_dbfs(track, pair, *place) > audio.SILENCE_DBFS
            if sung or uniform(generator, 0, 1) < self.SILENT_KEPT:
                break
        return track, pair

    def _draw(self, sets, generator):
        for _ in range(100):
            track = self._choose(sets, generator)
            try:
                place = self._place(track, generator)
                return track, place, self._read(track, *place)
            except InputError as error:
                unread = error
            if not self.named[self.numbers[track]]:
                self.named[self.numbers[track]] = True
                warnings.warn(f"{unread} What cannot be read of it is left out.", stacklevel=2)
        raise unread

    def _choose(self, sets, generator):
        # nothing random for the set where there is one only
        return choice(sets[0] if len(sets) == 1 else choice(sets, generator), generator)

    def _place(self, track, generator):
        # a raised pitch shortens the excerpt
        margin = 2 ** (PITCH_SEMITONES / 12) if "pitch_shift" in self.augmentations else 1
        samples = round(self.seconds * margin * track.rate)
        return int(uniform(generator, 0, max(1, track.samples - samples))), samples

    def _level_dbfs(self, track, pair, start, samples):
        return audio.level_dbfs(pair[0])

    def _read(self, track, start, samples):
        vocals, mixture = track.vocals(start, samples), track.mixture(start, samples)
        sources = (vocals, mixture - vocals)
        return tuple(audio.resample(source, track.rate, self.rate) for source in sources)


def _nonempty(lists):
    return [items for items in lists if items]


@dataclass
class PairsConfig(SongsConfig):
    """What `training_pairs` makes of them, beside the seed that a command has."""

    pairs: int = setting(1024, "training pairs of an epoch")
    augmentations: list = setting(list(AUGMENTATIONS), "names of those in dmxlib/data/augment.py")
    validation_pairs: int = setting(32, "pairs of validation, without augmentations")


def training_pairs(
    config: PairsConfig, seconds: float, rate: int, channels: int
) -> tuple[VocalPairs, VocalPairs]:
    """The (training, validation) pairs of a data set's training songs, whose last part is held out.

    Args:
        config: has a seed as well.
        seconds, rate, channels: of an excerpt; rate in Hz.
    """
    kept, held = training_tracks(config.data_root, config.hold_out_seconds, config.target)
    excerpts = (seconds, rate, channels)
    training = VocalPairs(kept, config.pairs, *excerpts, config.seed, config.augmentations)
    return training, VocalPairs(held, config.validation_pairs, *excerpts, seed=1, augmentations=())
