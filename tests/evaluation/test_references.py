"""The oracle's mask is the one its formula says."""

from types import SimpleNamespace

import numpy as np

from dmxlib.evaluation.references import ideal_ratio_mask


def test_ideal_ratio_mask_is_of_magnitudes_and_each_channels_own():
    tone = np.sin(2 * np.pi * 1000 * np.arange(30_000) / 44_100)
    vocals, rest = (np.outer(gains, tone).astype(np.float32) for gains in ((0.1, 0.3), (0.3, 0.1)))
    track = SimpleNamespace(vocals=lambda: vocals, mixture=lambda: vocals + rest, samples=30_000)
    # |V| / (|V| + |A|) of sources in phase gives the vocals back; of powers it would give 0.04 and 0.36
    assert np.allclose(ideal_ratio_mask(track)[:, 4096:-4096], vocals[:, 4096:-4096], atol=1e-4)
