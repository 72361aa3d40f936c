"""IRM, the oracle: the ideal ratio mask on the mixture's STFT, the one system that sees the true vocals.

What filters the mixture's STFT by a real mask is not expected to do better. Of the masks that go by that name
this is the one of magnitudes, |V| / (|V| + |A|); window and hop are ours.
"""

import numpy as np
import torch

from dmxlib.data import Track

WINDOW = 4096


def separate(track: Track) -> np.ndarray:
    """The vocals of a track, (2, frames): each channel's STFT under its own mask."""
    vocals, mixture = torch.from_numpy(track.vocals()), torch.from_numpy(track.mixture())
    settings = {"n_fft": WINDOW, "hop_length": WINDOW // 4, "window": torch.hann_window(WINDOW)}
    waves = torch.stack([vocals, mixture - vocals, mixture]).flatten(0, 1)
    # zeros beyond the ends: reflection needs half a window of signal
    spectra = torch.stft(waves, **settings, pad_mode="constant", return_complex=True)
    voice, rest, spectrum = spectra.unflatten(0, (3, 2))
    mask = voice.abs() / (voice.abs() + rest.abs()).clamp(min=1e-8)
    return torch.istft(spectrum * mask, **settings, length=track.frames).numpy()
