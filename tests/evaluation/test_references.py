"""The oracles are what their formulas say."""

from types import SimpleNamespace

import numpy as np

from dmxlib.evaluation.references import best_gain, ideal_ratio_mask


def test_ideal_ratio_mask_is_of_magnitudes_and_each_channels_own():
    tone = np.sin(2 * np.pi * 1000 * np.arange(30_000) / 44_100)
    vocals, rest = (np.outer(gains, tone).astype(np.float32) for gains in ((0.1, 0.3), (0.3, 0.1)))
    track = SimpleNamespace(vocals=lambda: vocals, mixture=lambda: vocals + rest, samples=30_000)
    # |V| / (|V| + |A|) of sources in phase gives the vocals back; of powers it would give 0.04 and 0.36
    assert np.allclose(ideal_ratio_mask(track)[:, 4096:-4096], vocals[:, 4096:-4096], atol=1e-4)


def test_the_best_gain_is_of_the_mean_of_the_channels(rng):
    source = rng.standard_normal(1000).astype(np.float32)
    vocals, mixture = (np.outer(gains, source).astype(np.float32) for gains in ((1, 1), (1, 3)))
    track = SimpleNamespace(vocals=lambda: vocals, mixture=mixture.copy, samples=1000, rate=100)
    np.testing.assert_allclose(best_gain(track), 0.5 * mixture, rtol=1e-5)  # of the left channel: 1
