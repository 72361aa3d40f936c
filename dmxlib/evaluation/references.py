"""What the systems are compared with: the mixture, a fixed filter, repetition, and two oracles.

Each is a function of a track that returns its vocals, (2, samples) at the track's rate. Those that see the
true vocals say so.
"""

from collections.abc import Callable

import librosa
import numpy as np
import torch

from dmxlib import audio
from dmxlib.data import Track
from dmxlib.pipeline import VocalSeparationPipeline
from dmxlib.refine import istft, stft

Separator = Callable[[Track], np.ndarray]


def identity(track: Track) -> np.ndarray:
    """The mixture itself."""
    return track.mixture()


GAIN_SECONDS = 7.0  # one best gain each


def at_best_gain(separate: Separator, track: Track, seconds: float = GAIN_SECONDS) -> np.ndarray:
    """A separator's output times the gain that gives the mono mean of each window of so many seconds its best
    SDR (sees the target)."""
    estimate, vocals = separate(track), track.vocals()
    size = round(seconds * track.rate)
    for start in range(0, track.samples, size):
        x, v = (wave[:, start : start + size].mean(axis=0) for wave in (estimate, vocals))
        estimate[:, start : start + size] *= np.vdot(x, v) / max(np.vdot(x, x), 1e-12)
    return estimate


def best_gain(track: Track) -> np.ndarray:
    """The mixture at its best gain (sees the target)."""
    return at_best_gain(identity, track)


def equalizer(songs) -> Separator:
    """A fixed filter: for each frequency the gain that fits the mono mean of the vocals of `songs` best."""
    cross, power = 0, 0
    for song in songs:
        x, v = (stft(wave.mean(axis=0, keepdims=True)) for wave in (song.mixture(), song.vocals()))
        cross = cross + (v * x.conj()).real.sum(dim=(0, 2), dtype=torch.float64)
        power = power + x.abs().square().sum(dim=(0, 2), dtype=torch.float64)
    gain = (cross / power.clamp(min=1e-12)).float()[:, None]
    return lambda track: istft(gain * stft(track.mixture()), track.samples).numpy()


REPEAT_SECONDS, REPEAT_WIDTH = 30.0, 2.0  # a window that is searched for repetitions; their least distance


def repetition(track: Track) -> np.ndarray:
    """What does not repeat: REPET-SIM (Rafii and Pardo 2012) as in librosa's gallery, in windows of 30 s.

    Each STFT frame is compared with its nearest neighbours; what rises above their median is the voice's.
    """
    mixture, size = track.mixture(), round(REPEAT_SECONDS * track.rate)
    parts = [mixture[:, start : start + size] for start in range(0, track.samples, size)]
    return np.concatenate([_not_repeated(part, track.rate) for part in parts], axis=1)


def repet(track: Track) -> np.ndarray:
    """`repetition` at its best gain (sees the target)."""
    return at_best_gain(repetition, track)


def _not_repeated(mixture, rate):
    spectrum = stft(mixture)
    magnitude = spectrum.abs().mean(dim=0).numpy()
    width = min(round(REPEAT_WIDTH * rate / 1024), (magnitude.shape[1] - 1) // 2 - 1)
    if width < 1:  # too short to repeat anything
        return mixture
    background = np.minimum(
        magnitude, librosa.decompose.nn_filter(magnitude, aggregate=np.median, metric="cosine", width=width)
    )
    mask = librosa.util.softmask(magnitude - background, 10 * background, power=2)
    return istft(spectrum * torch.from_numpy(mask), mixture.shape[1]).numpy()


def ideal_ratio_mask(track: Track) -> np.ndarray:
    """The mixture's STFT under |V| / (|V| + |A|), each channel under its own mask (sees the target).

    What filters the mixture's STFT by a real mask is not expected to do better. Of the masks that go by the
    name of IRM this is the one of magnitudes; window and hop are ours.
    """
    vocals, mixture = track.vocals(), track.mixture()
    voice, rest, spectrum = map(stft, (vocals, mixture - vocals, mixture))
    mask = voice.abs() / (voice.abs() + rest.abs()).clamp(min=1e-8)
    return istft(spectrum * mask, track.samples).numpy()


@torch.no_grad()
def through_codec(pipeline: VocalSeparationPipeline, track: Track) -> np.ndarray:
    """The true vocals coded chunk by chunk, their level by the pipeline's rule (sees the target)."""
    codec = pipeline.codec
    rate, channels = codec.config.sampling_rate, codec.channels

    def code(chunks):
        for chunk in chunks:
            vocals, mixture = torch.from_numpy(chunk).to(codec.device).unflatten(0, (2, 1, channels))
            yield pipeline.decode(pipeline.encode(vocals, mixture), mixture)[0].cpu().numpy()

    waves = (audio.to_model(wave, track.rate, rate, channels) for wave in (track.vocals(), track.mixture()))
    blocks = list(audio.in_chunks(code, [np.concatenate(list(waves))], pipeline.chunk_samples))
    return audio.from_model(np.concatenate(blocks, axis=1), rate, track.rate, track.samples)
