"""Mixture-consistent refinement: the generated vocal's magnitude as a soft mask on the mixture's own STFT.

Phase, level and stereo image then come from the recording, at its own rate and bandwidth.
"""

import numpy as np
import torch

WINDOW_SECONDS = 4096 / 44_100  # as in Demucs and Open-Unmix; ours
EXPONENT = 0.5  # of the mask's magnitudes; 2 is Wiener's own, less is softer: results/sampling
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

    mask = V^p / (V^p + A^p), V the estimate's magnitude and A = max(X - V, 0) what it leaves of the
    mixture's, both of the mid: one mask for left and right keeps the mixture's image.

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
    voice, rest = estimate**exponent, (target - estimate).clamp(min=0) ** exponent
    mask = voice / (voice + rest + 1e-8)
    top = int(bandwidth / rate * size)
    if top < mask.shape[1]:
        mask[:, top:] = mask[:, int(SHELF * top) : top].mean(dim=1, keepdim=True)
    return torch.istft(spectrum * mask, size, size // 4, window=window, length=mixture.shape[1]).numpy()


def _stft(wave, window):
    """(channels, T) -> (channels, bins, frames), complex; padded, so that a short chunk works."""
    return torch.stft(
        wave, len(window), len(window) // 4, window=window, pad_mode="constant", return_complex=True
    )
