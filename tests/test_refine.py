"""The soft mask takes a voice out of the recording itself: its phase, its image, its upper octaves."""

import numpy as np
import pytest
import torch

from dmxlib.refine import istft, stft, wiener

RATE, SECONDS = 44_100, 1.5


def tones(*frequencies, image=(1, 1)):
    """(2, samples): sines of amplitude 0.1."""
    time = np.arange(round(SECONDS * RATE)) / RATE
    wave = 0.1 * sum(np.sin(2 * np.pi * frequency * time) for frequency in frequencies)
    return np.outer(image, wave).astype(np.float32)


def level(wave):
    """In dB."""
    return 10 * np.log10(np.square(wave, dtype=np.float64).mean() + 1e-20)


def test_perfect_estimate_gives_the_voice_back():
    voice, rest = tones(300, 900, 2100), tones(150, 600, 5000)
    refined = wiener(voice + rest, voice, RATE, 12_000)
    assert refined.shape == voice.shape and refined.dtype == np.float32
    assert level(refined - voice) < level(voice) - 30


def test_phase_of_the_estimate_does_not_matter():
    voice, rest = tones(300, 900, 2100), tones(150, 600, 5000)
    assert np.allclose(wiener(voice + rest, -voice, RATE, 12_000), wiener(voice + rest, voice, RATE, 12_000))


@pytest.mark.parametrize(
    ("amplitude", "exponent", "least_db"), [(0, 0.5, 150), (1e-5, 0.5, 49), (1e-5, 1, 99)]
)
def test_no_estimate_gives_no_voice(amplitude, exponent, least_db):
    mixture = tones(300, 600)
    refined = wiener(mixture, amplitude * tones(300, 600), RATE, 12_000, exponent)
    assert level(refined) < level(mixture) - least_db


def test_whole_mixture_as_the_estimate_gives_the_mixture():
    mixture = tones(300, 600, 5000)
    assert np.allclose(wiener(mixture, mixture, RATE, RATE / 2), mixture, atol=1e-4)


def test_image_of_the_mixture_is_kept():
    voice, rest = tones(300, 900, image=(1, 0.25)), tones(150, 600, image=(0.5, 0.7))
    mid = np.repeat(voice.mean(axis=0, keepdims=True), 2, axis=0)  # what a mono codec gives
    refined = wiener(voice + rest, mid, RATE, 12_000)
    assert level(refined - voice) < level(voice) - 30


@pytest.mark.parametrize(("below", "expected"), [(1.0, 1.0), (0.25, 0.366)])  # p = 0.5
def test_above_the_bandwidth_the_mask_is_what_lies_below_it(below, expected):
    rng = np.random.default_rng(0)
    mixture = np.repeat(0.1 * rng.standard_normal((1, round(SECONDS * RATE)), np.float32), 2, axis=0)
    spectrum = np.fft.rfft(mixture)
    frequency = np.fft.rfftfreq(mixture.shape[1], 1 / RATE)
    estimate = np.fft.irfft(below * spectrum * (frequency < 12_000), mixture.shape[1]).astype(np.float32)
    refined = np.fft.rfft(wiener(mixture, estimate, RATE, 12_000))
    band = (frequency > 13_000) & (frequency < 20_000)
    gain = np.linalg.norm(refined[:, band]) / np.linalg.norm(spectrum[:, band])
    assert gain == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("rate", [8000, 22_050, 48_000])
@pytest.mark.parametrize("samples", [1, 500, 20_000])
def test_any_rate_and_length(rate, samples):
    mixture = tones(300, 600)[:, :samples]
    refined = wiener(mixture, mixture / 2, rate, 12_000)
    assert refined.shape == mixture.shape and np.isfinite(refined).all()


@pytest.mark.parametrize("size", [512, 4096])
@pytest.mark.parametrize("samples", [1, 700, 20_000])
def test_istft_is_the_inverse_of_stft(size, samples):
    wave = np.random.default_rng(0).standard_normal((2, samples)).astype(np.float32)
    spectrum = stft(wave, size)
    assert spectrum.shape == (2, size // 2 + 1, samples // (size // 4) + 1)
    assert np.allclose(istft(spectrum, samples), wave, atol=1e-5)


def test_stft_has_a_hann_window_and_zeros_beyond_the_ends():
    spectrum = stft(torch.ones(1, 20_000))
    middle, edge = spectrum[0, :2, 10].abs(), spectrum[0, 0, 0].abs()
    assert middle.tolist() == pytest.approx([2048, 1024], rel=1e-3)  # a Hann window's first two bins
    assert edge.item() == pytest.approx(1024, rel=1e-2)  # half the window lies before the signal
