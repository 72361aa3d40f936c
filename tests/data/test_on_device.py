"""Pairs drawn where the waves lie are those of the workers."""

import numpy as np
import pytest
import torch
from test_data import tone, write_track

from dmxlib import audio, data
from dmxlib.data import on_device
from dmxlib.data.augment import AUGMENTATIONS
from dmxlib.data.on_device import DevicePairs
from dmxlib.errors import InputError

EXACT = tuple(name for name in AUGMENTATIONS if name not in ("one_band", "pitch_shift"))


def both(tracks, rate, channels, augmentations, length=12, seconds=0.5):
    """The items of the pairs, of one epoch, from both kinds."""
    pairs = data.VocalPairs(tracks, length, seconds, rate, channels, 0, augmentations)
    pairs.set_epoch(3)
    there = DevicePairs(pairs, "cpu")
    return [(pairs[index], there[index]) for index in range(length)]


def snr_db(expected, item):
    """Of an item against another, over its vocals and mixture."""
    error = sum(((expected[key] - item[key]) ** 2).sum() for key in expected)
    return 10 * torch.log10(sum((wave**2).sum() for wave in expected.values()) / error).item()


@pytest.mark.parametrize("channels", [1, 2])
def test_pairs_at_the_tracks_rate_are_the_same(toy_root, channels):
    tracks = data.load_tracks(toy_root, "train")
    for expected, item in both(tracks, 44_100, channels, EXACT):
        assert item.keys() == expected.keys()
        for key, wave in expected.items():
            assert wave.shape == item[key].shape and (wave - item[key]).abs().max() < 2e-3
        assert snr_db(expected, item) > 60


def magnitudes(item):
    """Of the spectra of an item's waves: half a sample earlier or later they are the same."""
    return {key: torch.fft.rfft(wave * torch.hann_window(wave.shape[1])).abs() for key, wave in item.items()}


def test_resampled_pairs_differ_at_the_band_s_end(toy_root):
    tracks = data.load_tracks(toy_root, "train")
    for expected, item in both(tracks, 44_100, 1, ("pitch_shift",), length=4):
        assert snr_db(expected, item) > 25
    for expected, item in both(tracks, 16_000, 1, AUGMENTATIONS, length=6):
        assert snr_db(magnitudes(expected), magnitudes(item)) > 25


def test_voices_and_pieces_apart_in_two_bands(tmp_path):
    """A voice of 16 kHz over a piece of 44.1 kHz, which `one_band` has to narrow."""
    kinds = (("voices", (440, 1000), 16_000), ("music", (1500, 10_000), 44_100))
    for kind, frequencies, rate in kinds:
        wave = np.float32(sum(tone(frequency, 3, rate) for frequency in frequencies))
        audio.write(tmp_path / "train" / kind / "a.flac", wave, rate)
    tracks = data.load_sources(tmp_path, "train")
    for expected, item in both(tracks, 24_000, 1, ("one_band", "levels")):
        assert snr_db(magnitudes(expected), magnitudes(item)) > 30
        assert (item["mixture"] - item["vocals"]).abs().max() > 0


def test_songs_shorter_than_an_excerpt_and_silent_ones(tmp_path):
    short = write_track(tmp_path / "short", tone(440, 0.1, 16_000), tone(1500, 0.1, 16_000), 16_000)
    silent = write_track(tmp_path / "silent", 0 * tone(440, 1, 16_000), tone(1500, 1, 16_000), 16_000)
    for expected, item in both([short, silent], 16_000, 1, ("stem_remix", "polarity", "levels")):
        assert all((expected[key] - item[key]).abs().max() < 1e-3 for key in expected)


@pytest.mark.parametrize("ratio", [0.9, 1.1])
def test_resample_is_soxr_s(rng, ratio):
    wave = audio.resample(rng.standard_normal((2, 4000)).astype(np.float32), 8000, 10_000)
    expected = audio.resample(wave, 10_000, round(10_000 * ratio))
    found = on_device.resample(torch.from_numpy(wave), 10_000, round(10_000 * ratio)).numpy()
    assert found.shape == expected.shape
    middle = slice(200, -200)
    assert np.abs(found - expected)[:, middle].max() < 0.01


def test_what_is_not_supported_is_refused(toy_root):
    tracks = data.load_tracks(toy_root, "train")
    with pytest.raises(InputError, match="data_on_device has no reverberation"):
        both(tracks, 44_100, 1, ("reverberation",))
