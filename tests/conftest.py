"""What the tests share: a small prepared data set, a tiny codec, one thread."""

import numpy as np
import pytest
import torch

from dmxlib import audio
from dmxlib.codec import Codec
from dmxlib.toy import render_song

RATE, SECONDS = 44_100, 6.0


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """The same sums on every machine, and no fight for cores with the DataLoader's workers."""
    torch.set_num_threads(1)


@pytest.fixture
def rng():
    """A numpy generator, the same for every test."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def toy_root(tmp_path_factory):
    """A data set in the layout of MUSDB18-HQ: three toy songs to train on, one to test on, 6 s each."""
    root = tmp_path_factory.mktemp("toy")
    for seed, split in enumerate(("train", "train", "train", "test")):
        vocals, accompaniment = render_song(seed, SECONDS, RATE)
        folder = root / split / f"Toy Song {seed}"
        audio.write(folder / "mixture.wav", vocals + accompaniment, RATE)
        audio.write(folder / "vocals.wav", vocals, RATE)
    return root


@pytest.fixture(scope="session")
def tiny_codec():
    """A calibrated codec with random weights: 24 kHz mono, hop 320, 16 latent channels."""
    seanet = dict(channels=1, dimension=16, n_filters=4, ratios=[5, 4, 4, 4], norm="time_group_norm")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        codec = Codec(24_000, seanet, n_q=4, bins=32).eval()
        codec.calibrate(torch.randn(1, 1, 320 * 64) for _ in range(4))
    return codec
