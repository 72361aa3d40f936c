"""Training pairs made on a GPU from waves that lie there: no reading, no workers, no cache.

An hour takes 4 bytes a sample and channel of voice and accompaniment: 0.35 GB at 24 kHz mono, twice that
where the channels differ, 1.4 GB at 48 kHz stereo. MUSDB18-HQ's training songs are 7.5 GB at the paper's
size, which fits beside its training on 40 GB and more; on less, workers read.
"""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import scipy.fft
import torch
from tqdm import tqdm

from dmxlib import audio
from dmxlib.data.augment import LAYER_DB, LEVEL_DB, PITCH_SEMITONES, TONE_DB, TONE_OCTAVES, polarity
from dmxlib.data.pairs import VocalPairs
from dmxlib.data.tracks import Track
from dmxlib.errors import InputError
from dmxlib.reproduce import coin, uniform

BLOCK = 256  # samples that the loudness of a voice is known for without asking the device
Pair = tuple[torch.Tensor, torch.Tensor]


def stem_remix(pair: Pair, another, generator: torch.Generator) -> Pair:
    """As augment's."""
    return over(pair, another()) if coin(generator) else pair


def over(pair: Pair, other: Pair) -> Pair:
    """As augment's."""
    return pair[0], fit(other[1], pair[0].shape[1])


def layer(pair: Pair, another, generator: torch.Generator) -> Pair:
    """As augment's, but the gain is chosen where a source is silent as well."""
    if not coin(generator):
        return pair
    vocals, accompaniment = pair
    added = fit(another()[1], accompaniment.shape[1])
    drop = uniform(generator, *LAYER_DB)
    return vocals, accompaniment + added * gain_over(added, accompaniment, drop)


def one_band(pair: Pair, rate: int, lowest: int) -> Pair:
    """As augment's, with a filter instead of two resamplings."""

    def filtered(source):
        spectrum = torch.fft.rfft(source)
        share = torch.linspace(0, rate / lowest, spectrum.shape[1], device=source.device)
        fall = ((share - PASSBAND) / (1 - PASSBAND)).clamp(0, 1)
        return torch.fft.irfft(spectrum * (0.5 + 0.5 * torch.cos(math.pi * fall)), source.shape[1])

    return tuple(map(filtered, pair))


def channel_flip(pair: Pair, generator: torch.Generator) -> Pair:
    """As augment's."""
    return tuple(source.flip(0) if coin(generator) else source for source in pair)


def pitch_shift(pair: Pair, generator: torch.Generator) -> Pair:
    """As augment's, with a resampling of its own."""
    factor = 2 ** (uniform(generator, -PITCH_SEMITONES, PITCH_SEMITONES) / 12)
    return tuple(resample(torch.stack(pair), 10_000, round(10_000 / factor)))


def tone(pair: Pair, generator: torch.Generator) -> Pair:
    """As augment's."""
    return tuple(_with_tone(source, generator) for source in pair)


def _with_tone(source, generator):
    gains_db = [uniform(generator, -TONE_DB, TONE_DB) for _ in range(TONE_OCTAVES)]
    size = scipy.fft.next_fast_len(source.shape[1], real=True)
    spectrum = torch.fft.rfft(source, size)
    octaves = torch.linspace(0, 1, spectrum.shape[1], device=source.device).log2() + TONE_OCTAVES - 1
    octaves = octaves.clamp(min=0)
    # straight lines between the gains, each the peak of a hat
    gain_db = sum(gain * (1 - (octaves - place).abs()).clamp(min=0) for place, gain in enumerate(gains_db))
    gain = 10 ** (gain_db / 20)
    gain[0] = 1
    return torch.fft.irfft(spectrum * gain, size)[:, : source.shape[1]]


def levels(pair: Pair, generator: torch.Generator) -> Pair:
    """As augment's."""
    vocals, accompaniment = pair
    vocals = vocals * gain_over(vocals, accompaniment, uniform(generator, *LEVEL_DB))
    peak = (vocals + accompaniment).abs().max().clamp(min=1)
    return vocals / peak, accompaniment / peak


def gain_over(wave: torch.Tensor, reference: torch.Tensor, target_db: float) -> torch.Tensor:
    """The gain that brings a wave to a level over another's; 1 where one of them is silent."""
    powers = [source.square().mean() for source in (reference, wave)]
    audible = torch.stack(powers).min() > 10 ** (audio.SILENCE_DBFS / 10)
    return torch.where(audible, 10 ** (target_db / 20) * (powers[0] / powers[1]).sqrt(), 1.0)


REMIXES = {"stem_remix": stem_remix, "layer": layer}
VOICES = {}
CHANGES = {
    "polarity": polarity,
    "channel_flip": channel_flip,
    "pitch_shift": pitch_shift,
    "tone": tone,
    "levels": levels,
}
SUPPORTED = (*REMIXES, "one_band", *CHANGES)

PASSBAND = 0.91  # of the lower Nyquist frequency, as soxr's
ZEROS = 32  # of a resampling's windowed sinc, each side


def resample(wave: torch.Tensor, rate: int, new_rate: int) -> torch.Tensor:
    """(..., samples) at `rate` -> (..., ceil(samples * new_rate / rate)) at `new_rate`, any two integers."""
    cutoff = min(1.0, new_rate / rate) * (1 + PASSBAND) / 2
    reach = math.ceil(ZEROS / cutoff)
    places = torch.arange(math.ceil(wave.shape[-1] * new_rate / rate), device=wave.device) * rate
    taps = torch.arange(1 - reach, reach + 1, device=wave.device)
    distance = (places % new_rate / new_rate)[:, None] - taps
    window = torch.cos(math.pi / 2 * distance / reach).square()
    kernel = cutoff * torch.sinc(cutoff * distance) * window
    padded = torch.nn.functional.pad(wave, (reach - 1, reach + 1))
    indices = (places // new_rate)[:, None] + taps + reach - 1
    return (padded[..., indices] * kernel).sum(dim=-1)


def fit(wave: torch.Tensor, samples: int) -> torch.Tensor:
    """(channels, any) -> (channels, samples): cut, or padded with silence, at the end."""
    return torch.nn.functional.pad(wave[:, :samples], (0, max(0, samples - wave.shape[1])))


class DevicePairs(VocalPairs):
    """The pairs of a `VocalPairs` on a device.

    The same seed chooses the same excerpts, gains and other numbers. Items are the same to 16 bits with
    stem_remix, layer, polarity, channel_flip, tone and levels, of tracks at the model's rate. Those at other
    rates are resampled once, and excerpts of them begin up to half a sample beside. pitch_shift and one_band
    differ in the last tenth of the band. The voices' own augmentations and band_automation are not supported.

    Raises InputError for those, and where the device has no room.
    """

    REMIXES, VOICES, CHANGES = REMIXES, {}, CHANGES
    over, one_band = staticmethod(over), staticmethod(one_band)

    def __init__(self, pairs: VocalPairs, device):
        unsupported = sorted({*pairs.augmentations} - {*SUPPORTED})
        if unsupported:
            raise InputError(f"data_on_device has no {unsupported[0]}; choose from {', '.join(SUPPORTED)}.")
        vars(self).update(vars(pairs))
        self.device = device
        tracks = list({track for tracks in (*self.singers, *self.bands) for track in tracks})
        try:
            with ThreadPoolExecutor() as pool:
                loaded = tqdm(pool.map(self._load, tracks), "load", len(tracks), unit="track")
                self.waves = dict(zip(tracks, loaded, strict=True))
        except torch.OutOfMemoryError as error:
            raise InputError(
                f"{device} has no room for {len(tracks)} tracks; leave data_on_device out."
            ) from error

    def _load(self, track: Track):
        """Vocals and accompaniment, int16 (channels, samples) at the model's rate or None for silence, and
        the energy of the vocals before each block."""
        vocals, mixture = track.vocals(), track.mixture()
        sources = [audio.resample(source, track.rate, self.rate) for source in (vocals, mixture - vocals)]
        energy = np.square(sources[0], dtype=np.float64).mean(axis=0)
        starts = np.arange(0, len(energy), BLOCK)
        blocks = np.concatenate([[0], np.cumsum(np.add.reduceat(energy, starts))])
        return *map(self._stored, sources), blocks

    def _stored(self, source):
        if not source.any():
            return None
        source = source[:1] if np.array_equal(*source) else source
        integers = np.clip(np.round(source * 32768), -32768, 32767).astype(np.int16)
        return torch.from_numpy(integers).to(self.device)

    def _span(self, track, start, samples):
        """Where samples of the track lie at the model's rate."""
        samples = min(samples, track.samples - start)
        first = round(start * self.rate / track.rate)
        return first, first + math.ceil(samples * self.rate / track.rate)

    def _level_dbfs(self, track, pair, start, samples):
        blocks = self.waves[track][2]
        first, last = (
            min(round(place / BLOCK), len(blocks) - 1) for place in self._span(track, start, samples)
        )
        power = (blocks[last] - blocks[first]) / max(1, (last - first) * BLOCK)
        return 10 * math.log10(power) if power > 0 else -math.inf

    def _read(self, track, start, samples):
        first, last = self._span(track, start, samples)
        silence = torch.zeros(1, 0, device=self.device)
        sources = (silence if wave is None else wave[:, first:last] for wave in self.waves[track][:2])
        return tuple(fit(source.float() / 32768, last - first).expand(2, -1) for source in sources)

    def _item(self, pair):
        samples = round(self.seconds * self.rate)
        vocals, accompaniment = (
            fit(source.mean(dim=0, keepdim=True) if self.channels == 1 else source, samples)
            for source in pair
        )
        return {"vocals": vocals, "mixture": vocals + accompaniment}
