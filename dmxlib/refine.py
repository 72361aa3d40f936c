"""Mixture-consistent refinement: the generated vocal's magnitude as a soft mask on the mixture's own STFT.

Phase, level and stereo image then come from the recording, at its own rate and bandwidth.
"""

import numpy as np
import torch

WINDOW_SECONDS = 4096 / 44_100  # as in Demucs and Open-Unmix; ours
EXPONENT = 0.5  # of the mask's magnitudes; 2 is Wiener's own, less is softer: results/sampling
TINY = 1e-16  # of magnitudes: a power of 0 has no gradient
SHELF = 0.75  # above the codec's bandwidth the mask is the mean of its last quarter below


def wiener(
    mixture: np.ndarray,
    vocals: np.ndarray,
    rate: int,
    bandwidth: float,
    exponent: float = EXPONENT,
    window_seconds: float = WINDOW_SECONDS,
) -> np.ndarray:
    """Refine `vocals` (2, frames) against `mixture` (2, frames), both at `rate` Hz; returns (2, frames).

    `soft_mask` of the mid: one for left and right keeps the mixture's image.

    Args:
        bandwidth: in Hz, above which the estimate holds nothing (half the codec's rate).
        exponent: p.
        window_seconds: of the STFT.
    """
    size = 2 * round(window_seconds * rate / 2)
    window = torch.hann_window(size)
    spectrum = _stft(torch.from_numpy(mixture), window)
    target = spectrum.mean(dim=0, keepdim=True).abs()
    estimate = _stft(torch.from_numpy(vocals).mean(dim=0, keepdim=True), window).abs()
    mask = soft_mask(target, estimate, exponent)
    top = int(bandwidth / rate * size)
    if top < mask.shape[1]:
        mask[:, top:] = mask[:, int(SHELF * top) : top].mean(dim=1, keepdim=True)
    return torch.istft(spectrum * mask, size, size // 4, window=window, length=mixture.shape[1]).numpy()


def soft_mask(mixture: torch.Tensor, vocals: torch.Tensor, exponent: float) -> torch.Tensor:
    """V^p / (V^p + A^p), V the vocals' magnitudes and A = max(X - V, 0) what they leave of the mixture's."""
    voice, rest = (x.clamp(min=TINY) ** exponent for x in (vocals, mixture - vocals))
    return voice / (voice + rest)


def _stft(wave, window):
    """(channels, T) -> (channels, bins, frames), complex; padded, so that a short chunk works."""
    return torch.stft(
        wave, len(window), len(window) // 4, window=window, pad_mode="constant", return_complex=True
    )
