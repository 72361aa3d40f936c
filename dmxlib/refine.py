"""Mixture-consistent refinement: the generated vocal's magnitude as a soft mask on the mixture's own STFT.

Phase, level and stereo image then come from the recording, at its own rate and bandwidth.
"""

import math

import numpy as np
import torch

WINDOW_SECONDS = 4096 / 44_100  # as in Demucs and Open-Unmix; ours
EXPONENT = 0.5  # of the mask's magnitudes; 2 is Wiener's own, less is softer: results/steps
TINY = 1e-16  # of magnitudes: a power of 0 has no gradient
SHELF = 0.75  # above the codec's bandwidth the mask is the mean of its last quarter below


def wiener(
    mixture: np.ndarray,
    vocals: np.ndarray,
    rate: int,
    bandwidth: float = math.inf,
    exponent: float = EXPONENT,
    window_seconds: float = WINDOW_SECONDS,
    mid: bool = True,
) -> np.ndarray:
    """Refine `vocals` (2, samples) against `mixture` (2, samples), both at `rate` Hz; returns (2, samples).

    An exponent above 1 raises what is more voice than band and lowers what is less; below, it is softer.

    Args:
        bandwidth: in Hz, above which the estimate holds nothing (half the codec's rate).
        exponent: p of `soft_mask`.
        window_seconds: of the STFT.
        mid: whether the mask is the mid's, one for left and right, which keeps the mixture's image; else each
            channel has its own.
    """
    size = 2 * round(window_seconds * rate / 2)
    spectrum = target = stft(mixture, size)
    if mid:
        target, vocals = target.mean(dim=0, keepdim=True), vocals.mean(axis=0, keepdims=True)
    mask = soft_mask(target.abs(), stft(vocals, size).abs(), exponent)
    top = int(min(bandwidth / rate, 1) * size)
    if top < mask.shape[1]:
        mask[:, top:] = mask[:, int(SHELF * top) : top].mean(dim=1, keepdim=True)
    return istft(spectrum * mask, mixture.shape[1]).numpy()


def soft_mask(mixture: torch.Tensor, vocals: torch.Tensor, exponent: float) -> torch.Tensor:
    """V^p / (V^p + A^p), V the vocals' magnitudes and A = max(X - V, 0) what they leave of the mixture's."""
    voice, rest = (x.clamp(min=TINY) ** exponent for x in (vocals, mixture - vocals))
    return voice / (voice + rest)


def stft(wave: np.ndarray | torch.Tensor, size: int = 4096) -> torch.Tensor:
    """(channels, samples) -> (channels, size / 2 + 1, frames), complex: Hann windows, a quarter apart.

    Zeros stand beyond the ends: reflection would need half a window of signal.
    """
    settings = {"window": torch.hann_window(size), "pad_mode": "constant", "return_complex": True}
    return torch.stft(torch.as_tensor(wave), size, size // 4, **settings)


def istft(spectrum: torch.Tensor, samples: int) -> torch.Tensor:
    """The inverse of `stft`, (channels, samples)."""
    size = 2 * (spectrum.shape[-2] - 1)
    return torch.istft(spectrum, size, size // 4, window=torch.hann_window(size), length=samples)
