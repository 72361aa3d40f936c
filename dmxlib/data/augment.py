"""The paper's augmentations of training pairs, and ours: the configs list them by name.

A pair is (vocals, accompaniment), each (channels, samples). Every augmentation is a function of
(pair, generator), of REMIXES of (pair, a function that reads another pair, generator): what is not taken is
not read. Those of VOICES change the vocals alone, which the model then has to bring back so changed; they are
functions of (vocals, rate in Hz, generator).
"""

from collections.abc import Callable

import numpy as np
import scipy.fft
import scipy.signal
import torch

from dmxlib import audio
from dmxlib.reproduce import choice, coin, uniform

Pair = tuple[np.ndarray, np.ndarray]


def polarity(pair: Pair, generator: torch.Generator) -> Pair:
    """Invert the sign of each source half of the time."""
    return tuple(-source if coin(generator) else source for source in pair)


def channel_flip(pair: Pair, generator: torch.Generator) -> Pair:
    """Exchange left and right of each source half of the time."""
    return tuple(source[::-1] if coin(generator) else source for source in pair)


PITCH_SEMITONES = 2.0  # ours


def pitch_shift(pair: Pair, generator: torch.Generator) -> Pair:
    """Shift both sources together by up to PITCH_SEMITONES either way; the length changes by the same factor.

    By resampling, tempo and formants with it: cheap enough to be done anew for every pair, and free of the
    artifacts of a phase vocoder, which the model would learn to generate.
    """
    factor = 2 ** (uniform(generator, -PITCH_SEMITONES, PITCH_SEMITONES) / 12)
    return tuple(audio.resample(source, 10_000, round(10_000 / factor)) for source in pair)


TONE_DB, TONE_OCTAVES = 6.0, 7  # ours


def tone(pair: Pair, generator: torch.Generator) -> Pair:
    """Another tone for each source: a gain of up to TONE_DB either way at each octave below the highest
    frequency, straight lines between them, no change of phase."""
    return tuple(_with_tone(source, generator) for source in pair)


def _with_tone(source, generator):
    gains_db = [uniform(generator, -TONE_DB, TONE_DB) for _ in range(TONE_OCTAVES)]
    size = scipy.fft.next_fast_len(source.shape[1], real=True)
    spectrum = scipy.fft.rfft(source, size)
    octaves = np.log2(np.linspace(0, 1, spectrum.shape[1])[1:], dtype=np.float32)
    gain_db = np.interp(octaves, np.arange(1 - TONE_OCTAVES, 1), gains_db).astype(np.float32)
    spectrum[:, 1:] *= 10 ** (gain_db / 20)
    return scipy.fft.irfft(spectrum, size)[:, : source.shape[1]]


LEVEL_DB = (-12.0, 6.0)  # of the vocals over the accompaniment


def levels(pair: Pair, generator: torch.Generator) -> Pair:
    """Bring the vocals to a random level of LEVEL_DB over the accompaniment, where neither is silent, then
    both alike to a peak of at most 1."""
    vocals, accompaniment = pair
    target = uniform(generator, *LEVEL_DB)
    own, other = audio.level_dbfs(vocals), audio.level_dbfs(accompaniment)
    if min(own, other) > audio.SILENCE_DBFS:
        vocals = vocals * np.float32(10 ** ((target + other - own) / 20))
    peak = max(1.0, float(np.abs(vocals + accompaniment).max()))
    return vocals / peak, accompaniment / peak


def over(pair: Pair, other: Pair) -> Pair:
    """The vocals of one excerpt over the accompaniment of another."""
    return pair[0], audio.fit(other[1], pair[0].shape[1])  # songs shorter than an excerpt give shorter ones


def stem_remix(pair: Pair, another: Callable[[], Pair], generator: torch.Generator) -> Pair:
    """The vocals of one excerpt over the accompaniment of another half of the time."""
    return over(pair, another()) if coin(generator) else pair


LAYER_DB = (-12.0, 0.0)  # ours


def layer(pair: Pair, another: Callable[[], Pair], generator: torch.Generator) -> Pair:
    """Another accompaniment under the excerpt's half of the time, quieter by LAYER_DB."""
    if not coin(generator):
        return pair
    vocals, accompaniment = pair
    added = audio.fit(another()[1], accompaniment.shape[1])
    if min(levels_db := [audio.level_dbfs(accompaniment), audio.level_dbfs(added)]) > audio.SILENCE_DBFS:
        drop = uniform(generator, *LAYER_DB)
        added = added * np.float32(10 ** ((drop + levels_db[0] - levels_db[1]) / 20))
    return vocals, accompaniment + added


def one_band(pair: Pair, rate: int, lowest: int) -> Pair:
    """Both sources at `rate` Hz as if recorded at `lowest`, the lowest rate of what they are made
    of: a voice that ends at 8 kHz over a band that does not would teach that voices end there."""
    return tuple(audio.resample(audio.resample(source, rate, lowest), lowest, rate) for source in pair)


def vocal_tone(vocals: np.ndarray, rate: int, generator: torch.Generator) -> np.ndarray:
    """Another tone for the voice alone half of the time; the gains are those of `tone`."""
    return _with_tone(vocals, generator) if coin(generator) else vocals


INTERVALS = (-5, -4, -3, 0, 0, 0, 3, 4, 5)  # semitones: a double half as often as a harmony
DETUNE_SEMITONES, LATE_SECONDS, SECOND_DB = 0.2, (0.01, 0.04), (-9.0, -3.0)
GRAIN_SECONDS = 0.06


def second_voice(vocals: np.ndarray, rate: int, generator: torch.Generator) -> np.ndarray:
    """The same voice once more half of the time, quieter by SECOND_DB and late by LATE_SECONDS: a double,
    detuned by up to DETUNE_SEMITONES either way, or a harmony at one of INTERVALS."""
    if not coin(generator):
        return vocals
    semitones = choice(INTERVALS, generator) + uniform(generator, -DETUNE_SEMITONES, DETUNE_SEMITONES)
    late = uniform(generator, *LATE_SECONDS) * rate
    gain = np.float32(10 ** (uniform(generator, *SECOND_DB) / 20))
    return vocals + gain * _shifted(vocals, 2 ** (semitones / 12), late, GRAIN_SECONDS * rate)


def _shifted(wave, factor, late, grain):
    """The pitch of (channels, samples) times `factor` at the same tempo: two delays that run from `late` to
    `grain` samples more or back, each faded out where it jumps."""
    now = np.arange(wave.shape[1])
    shifted = np.zeros_like(wave)
    for start in (0, 0.5):
        phase = (start + now * (1 - factor) / grain) % 1
        places = now - late - phase * grain
        fade = np.sin(np.pi * phase) ** 2
        shifted += [fade * np.interp(places, now, channel, left=0) for channel in wave]
    return shifted


REVERBERATION_SECONDS, WET_DB = (0.2, 1.2), (-20.0, -6.0)  # the time to fall by 60 dB; of the tail's energy


def reverberation(vocals: np.ndarray, rate: int, generator: torch.Generator) -> np.ndarray:
    """The voice in a room half of the time: a tail of decaying noise, other on each channel."""
    if not coin(generator):
        return vocals
    seconds = uniform(generator, *REVERBERATION_SECONDS)
    shape = (len(vocals), round(seconds * rate))
    tail = torch.randn(shape, generator=generator).numpy() * 10 ** (-3 * np.linspace(0, 1, shape[1]))
    tail *= 10 ** (uniform(generator, *WET_DB) / 20) / np.linalg.norm(tail, axis=1, keepdims=True)
    wet = scipy.signal.oaconvolve(vocals, tail.astype(np.float32), axes=1)[:, : vocals.shape[1]]
    return vocals + wet


AUTOMATION_DB, AUTOMATION_POINTS = 6.0, 6  # either way; over the excerpt


def band_automation(pair: Pair, generator: torch.Generator) -> Pair:
    """A fader on the accompaniment half of the time: gains of up to AUTOMATION_DB either way at
    AUTOMATION_POINTS times, straight lines between them."""
    if not coin(generator):
        return pair
    vocals, accompaniment = pair
    gains_db = [uniform(generator, -AUTOMATION_DB, AUTOMATION_DB) for _ in range(AUTOMATION_POINTS)]
    times = np.linspace(0, AUTOMATION_POINTS - 1, accompaniment.shape[1])
    gain_db = np.interp(times, range(AUTOMATION_POINTS), gains_db).astype(np.float32)
    return vocals, accompaniment * 10 ** (gain_db / 20)


# In the order they are applied in: REMIXES, one_band, VOICES, CHANGES.
REMIXES = {"stem_remix": stem_remix, "layer": layer}
VOICES = {"vocal_tone": vocal_tone, "second_voice": second_voice, "reverberation": reverberation}
CHANGES = {
    "band_automation": band_automation,
    "polarity": polarity,
    "channel_flip": channel_flip,
    "pitch_shift": pitch_shift,
    "tone": tone,
    "levels": levels,
}
EXTRA = (*VOICES, "band_automation")  # only where a config names them
AUGMENTATIONS = (*REMIXES, "one_band", *(name for name in CHANGES if name not in EXTRA))
