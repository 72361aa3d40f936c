"""Every score against a closed form, the library it stands on, or a property that a wrong formula breaks."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.signal import butter, sosfiltfilt

from dmxlib import metrics
from dmxlib.metrics import RATE, external, f0, f0_error, lsd, mel_mae, sdr, si_sdr, voiced_mask

SEMITONE = math.log(2) / 12
SPECTRAL = [lsd, mel_mae]


def noise(seconds: float = 1.0, deviation: float = 0.1, seed: int = 0, rate: int = RATE) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.0, deviation, (2, int(seconds * rate)))


def tone(hertz: float, seconds: float = 1.0, rate: int = RATE) -> np.ndarray:
    """A stereo tone of five harmonics."""
    time = np.arange(int(seconds * rate)) / rate
    wave = sum(np.sin(2 * np.pi * hertz * k * time) / k for k in range(1, 6))
    return np.stack([0.2 * wave, 0.1 * wave])


@pytest.fixture(scope="module")
def gapped():
    """A tone of 220 Hz in the first second, digital silence in the second; and its F0."""
    audio = np.concatenate([tone(220.0), np.zeros((2, RATE))], axis=1)
    return audio, f0(audio, RATE)


# sdr and si_sdr


def test_sdr_of_known_noise_power():
    reference = noise()
    error = noise(seed=1)
    error *= np.sqrt(np.sum(reference**2) / np.sum(error**2) / 1000)
    assert sdr(reference, reference + error) == pytest.approx(30.0, abs=1e-4)


def test_sdr_sums_channels_before_the_ratio():
    reference, estimate = np.ones((2, 100)), np.ones((2, 100))
    estimate[1] = 0.0  # one channel perfect, one lost: half of the energy, not a mean of two ratios
    assert sdr(reference, estimate) == pytest.approx(10 * math.log10(2), abs=1e-6)


def test_sdr_adds_1e_7_above_and_below():
    silence, reference = np.zeros((2, 100)), np.full((2, 100), 0.1)  # the reference's energy is 2
    assert sdr(silence, silence) == 0.0
    assert sdr(reference, silence) == 0.0
    assert sdr(silence, reference) == pytest.approx(10 * math.log10(1e-7 / (2 + 1e-7)))
    assert sdr(reference, reference) == pytest.approx(10 * math.log10((2 + 1e-7) / 1e-7))


def test_si_sdr_ignores_gain_and_sdr_does_not():
    reference, estimate = noise(), noise() + noise(seed=1, deviation=0.03)
    assert si_sdr(reference, -0.3 * estimate) == pytest.approx(si_sdr(reference, estimate))
    assert si_sdr(5.0 * reference, estimate) == pytest.approx(si_sdr(reference, estimate))
    assert sdr(reference, 0.3 * estimate) < sdr(reference, estimate) - 3


def test_si_sdr_of_orthogonal_noise():
    time = np.arange(1000) / 1000
    sine, cosine = np.sin(2 * np.pi * 5 * time)[None], np.cos(2 * np.pi * 5 * time)[None]
    assert si_sdr(sine, 0.7 * (sine + 0.1 * cosine)) == pytest.approx(20.0)
    assert si_sdr(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])) == -math.inf
    assert si_sdr(sine, 2 * sine) == math.inf


def test_si_sdr_keeps_the_mean():
    # 1 = 0.5 * [2, 0] + [0, 1]: 0 dB; with the means removed the estimate would be silent.
    assert si_sdr(np.array([[2.0, 0.0]]), np.array([[1.0, 1.0]])) == pytest.approx(0.0)


# lsd and mel_mae


@pytest.mark.parametrize("gain", [0.5, 2.0])
def test_a_gain_moves_every_bin_by_itself(gain):
    reference = noise()  # white: every bin lies far above the floor
    decibels = abs(20 * math.log10(gain))
    assert lsd(reference, gain * reference, RATE) == pytest.approx(decibels / 10, rel=1e-3)
    assert mel_mae(reference, gain * reference, RATE) == pytest.approx(decibels, rel=1e-3)


@pytest.mark.parametrize("metric", SPECTRAL)
def test_what_lies_under_the_floor_is_not_heard(metric):
    reference = tone(220.0)
    peak = np.abs(reference).max()
    assert metric(reference, reference + noise(deviation=1e-7 * peak), RATE) < 1e-3
    assert metric(reference, reference + noise(deviation=1e-2 * peak), RATE) > 1.0


def test_a_silent_estimate_falls_exactly_to_the_floor():
    reference = noise(seconds=2048 / RATE)
    power = metrics._power(reference.mean(axis=0))
    above = np.log10(np.maximum(power, power.max() * 1e-8)) - np.log10(power.max() * 1e-8)
    expected = np.sqrt((above**2).mean(axis=0)).mean()
    assert lsd(reference, np.zeros_like(reference), RATE) == pytest.approx(expected, rel=1e-4)
    assert 6.0 < expected < 8.0  # the floor lies 8 powers of ten under the peak
    assert 60.0 < mel_mae(reference, np.zeros_like(reference), RATE) < 80.0


@pytest.mark.parametrize("metric", SPECTRAL)
def test_the_floor_is_the_references(metric):
    loud, quiet = noise(), 1e-6 * noise()  # 120 dB apart
    assert metric(loud, quiet, RATE) == pytest.approx(metric(loud, np.zeros_like(loud), RATE))
    assert metric(quiet, loud, RATE) == pytest.approx(12.0 if metric is lsd else 120.0, rel=1e-3)


@pytest.mark.parametrize("metric", SPECTRAL)
def test_only_the_mono_mean_is_scored(metric):
    reference = noise()
    swapped = reference[::-1].copy()
    assert metric(reference, swapped, RATE) == pytest.approx(0.0, abs=1e-6)
    assert metric(reference, np.broadcast_to(reference.mean(axis=0), reference.shape), RATE) < 1e-4


@pytest.mark.parametrize("metric", SPECTRAL)
def test_other_rates_are_scored_at_44100(metric):
    reference = noise(rate=22_050)
    frames = 1 + RATE // metrics.HOP  # of one second at 44.1 kHz
    in_band = metric(reference, 0.5 * reference, 22_050, np.ones(frames, dtype=bool))
    full = 20 * math.log10(2) / (10 if metric is lsd else 1)
    assert 0.4 * full < in_band < 0.98 * full  # half of the bins lie above 11 kHz, empty in both


@pytest.mark.parametrize("metric", SPECTRAL)
def test_the_mask_keeps_its_frames_only(metric):
    reference, estimate = noise(2.0), noise(2.0)
    estimate[:, RATE:] *= 0.5
    mask = np.zeros(1 + 2 * RATE // metrics.HOP, dtype=bool)
    mask[:80] = True  # 80 frames of 512 end before the first second does
    assert metric(reference, estimate, RATE, mask) == pytest.approx(0.0, abs=1e-5)
    assert metric(reference, estimate, RATE, ~mask) > 0.5
    assert math.isnan(metric(reference, estimate, RATE, np.zeros_like(mask)))
    with pytest.raises(ValueError, match="voiced mask"):
        metric(reference, estimate, RATE, mask[:-1])


def test_a_band_keeps_what_lies_in_it():
    reference = noise()
    estimate = sosfiltfilt(butter(12, 8000, fs=RATE, output="sos"), reference)
    for metric, full in ((lsd, 1.0), (mel_mae, 2.0)):
        assert metric(reference, estimate, RATE, band=(0, 6000)) < 0.05
        assert metric(reference, estimate, RATE, band=(11_000, 22_050)) > metric(reference, estimate, RATE)
        assert metric(reference, estimate, RATE) > full
        everything = metric(reference, estimate, RATE, band=(0, RATE))
        assert everything == metric(reference, estimate, RATE)


def test_octaves_add_up_to_the_spectrum():
    reference, estimate = noise(2048 / RATE), noise(2048 / RATE, seed=1)
    edges = metrics.OCTAVES_HZ
    bins = np.histogram(np.arange(1025) * RATE / 2048, edges)[0]
    frames = 5
    octaves = [lsd(reference, estimate, RATE, only(f, frames), band) ** 2
               for f in range(frames) for band in zip(edges, edges[1:], strict=False)]  # fmt: skip
    whole = [lsd(reference, estimate, RATE, only(f, frames)) ** 2 for f in range(frames)]
    np.testing.assert_allclose(np.reshape(octaves, (frames, -1)) @ bins / bins.sum(), whole, rtol=1e-5)


def only(frame, frames):
    return np.arange(frames) == frame


def test_low_pass_keeps_what_lies_below():
    low, high = tone(440.0), 0.2 * np.sin(2 * np.pi * 9000 * np.arange(RATE) / RATE)
    inside = slice(2000, -2000)  # of the filter's ends
    np.testing.assert_allclose(metrics.low_pass(low + high, RATE, 8000)[:, inside], low[:, inside], atol=1e-4)
    assert metrics.low_pass(low, RATE, RATE / 2) is low


# stft_distance


@pytest.mark.parametrize("gain", [0.5, 2.0])
def test_stft_distance_of_a_gain(gain):
    reference = noise()
    expected = abs(1 - gain) + abs(math.log(gain))
    assert metrics.stft_distance(reference, gain * reference, RATE) == pytest.approx(expected, rel=1e-3)
    louder = metrics.stft_distance(100 * reference, 100 * gain * reference, RATE)
    assert louder == pytest.approx(expected, rel=1e-3)


def test_stft_distance_by_torchs_stft():
    """Against the formula on another library's STFT: a voice an octave off, nothing near the floor."""
    reference, estimate = (tone(hertz) + noise(deviation=0.01) for hertz in (220.0, 440.0))
    distances = []
    for size, hop, window in ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240)):
        a, b = (
            torch.stft(
                torch.from_numpy(wave.mean(axis=0)), size, hop, window, torch.hann_window(window).double(),
                pad_mode="constant", return_complex=True,
            ).abs()
            for wave in (reference, estimate)
        )  # fmt: skip
        distances.append(((a - b).norm() / a.norm() + (a.log() - b.log()).abs().mean()).item())
    found = metrics.stft_distance(reference, estimate, RATE)
    assert found == pytest.approx(np.mean(distances), rel=1e-3)


# bss_eval


def test_bss_eval_is_musevals_of_vocals_and_accompaniment():
    import museval

    vocals, rest, error = noise(2.0), noise(2.0, seed=1), noise(2.0, seed=2)
    estimate = vocals + 0.1 * rest + 0.05 * error
    found = external.bss_eval(vocals, estimate, vocals + rest, RATE)
    sources = (
        np.stack([voice.mean(axis=0), (vocals + rest - voice).mean(axis=0)])[..., None]
        for voice in (vocals, estimate)
    )
    csdr, _, sir, sar = (np.median(figures[0]) for figures in museval.evaluate(*sources, win=RATE, hop=RATE))
    assert found == pytest.approx({"csdr": csdr, "sir": sir, "sar": sar}, abs=0.01)
    assert found["sir"] == pytest.approx(20, abs=0.3)
    assert found["csdr"] == pytest.approx(-10 * math.log10(0.1**2 + 0.05**2), abs=0.1)
    assert found["sar"] == pytest.approx(10 * math.log10(1.01 / 0.05**2), abs=0.3)


@pytest.mark.filterwarnings("error")
def test_bss_eval_leaves_out_silent_frames():
    vocals, rest = noise(3.0), noise(3.0, seed=1)
    vocals[:, :RATE] = 0.0
    estimate = vocals + 0.1 * rest
    assert external.bss_eval(vocals, estimate, vocals + rest, RATE)["sir"] == pytest.approx(20, abs=0.5)
    for nothing in (vocals, vocals + rest):  # no accompaniment; none left by the estimate
        assert np.isnan(list(external.bss_eval(vocals, nothing, nothing, RATE).values())).all()


# bss_eval_sources


def sources(seconds: float = 2.0, taps: int = 512) -> list[np.ndarray]:
    """A voice, an accompaniment and an error: white, of equal power, with `taps` of silence at the end."""
    return [np.pad(noise(seconds, seed=seed, rate=16_000)[:1], ((0, 0), (0, taps))) for seed in range(3)]


def test_bss_eval_sources_forgives_a_filter_and_no_longer_one():
    voice, rest, _ = sources(taps=1024)
    for delay, forgiven in ((511, True), (600, False)):
        taps = np.zeros(delay + 1)
        taps[[0, 3, delay]] = 0.2, -0.9, 0.5
        estimate = np.convolve(voice[0], taps)[None, : voice.shape[1]]
        found = external.bss_eval_sources(voice, estimate, voice + rest)
        assert sdr(voice, estimate) < 0
        assert found["sdr"] > 100 if forgiven else 0 < found["sdr"] < 10


@pytest.mark.parametrize("gain", [0.1, 0.5])
@pytest.mark.parametrize("level", [1, 3])
def test_bss_eval_sources_of_accompaniment_left_over(gain, level):
    voice, rest, _ = sources()
    found = external.bss_eval_sources(voice, voice + gain * level * rest, voice + level * rest)
    expected = -20 * math.log10(gain) - 20 * math.log10(level)
    assert found["sir"] == pytest.approx(expected, abs=0.3) and found["sdr"] == pytest.approx(found["sir"])
    assert found["sar"] > 100


@pytest.mark.parametrize("deviation", [0.03, 0.3])
def test_bss_eval_sources_of_noise(deviation):
    voice, rest, error = sources()
    found = external.bss_eval_sources(voice, voice + deviation * error, voice + rest)
    assert found["sar"] == pytest.approx(-20 * math.log10(deviation), abs=0.3)
    assert found["sdr"] == pytest.approx(found["sar"], abs=0.3) and found["sir"] > found["sar"] + 10
    louder = external.bss_eval_sources(voice, 0.01 * (voice + deviation * error), voice + rest)
    assert louder == pytest.approx(found)  # a gain is a filter


def test_bss_eval_sources_is_mir_evals():
    """Frozen values of mir_eval 0.8.2, of [voice, rest] and [estimate, mixture - estimate]."""
    voice, rest, error = (noise(seed=seed, rate=16_000)[:1] for seed in range(3))
    estimate = voice + 0.5 * np.roll(voice, 40) + 0.2 * rest + 0.05 * error
    found = external.bss_eval_sources(voice, estimate, voice + rest)
    assert found == pytest.approx({"sdr": 14.702551, "sir": 15.056270, "sar": 25.902963}, abs=1e-4)
    single = (wave.astype(np.float32) for wave in (voice, estimate, voice + rest))
    assert external.bss_eval_sources(*single) == pytest.approx(found, abs=1e-3)


@pytest.mark.filterwarnings("error")
def test_bss_eval_sources_of_bad_data():
    voice, rest, _ = sources(0.1)
    song, silence = voice + rest, 0 * voice
    for waves in [
        (silence, voice, song), (voice, silence, song), (voice, voice, silence), (voice, voice, voice),
        (voice, voice + np.nan, song), (voice, voice, song + np.inf),
    ]:  # fmt: skip
        found = external.bss_eval_sources(*waves)
        assert found.keys() == {"sdr", "sir", "sar"} and np.isnan(list(found.values())).all()
    for waves in [(voice[:, 1:], voice, song), (voice, voice[:, 1:], song), (voice, voice, song[:, 1:])]:
        with pytest.raises(ValueError, match="shapes differ"):
            external.bss_eval_sources(*waves)


# pesq


def speech(seconds=2.0):
    """A tone that comes and goes."""
    time = np.arange(int(seconds * RATE)) / RATE
    return tone(220.0, seconds) * (np.sin(2 * np.pi * 1.5 * time) > -0.5)


def test_pesq_of_the_truth_is_the_top_of_its_scale():
    assert external.pesq(speech(), speech(), RATE) == pytest.approx(
        0.999 + 4 / (1 + math.exp(3.8224 - 1.3669 * 4.5))
    )


def test_pesq_is_the_packages():
    """A frozen value of the package, 0.0.4, from two waves at 16 kHz; gain is nothing to it."""
    voice, dirty = (wave[:, :32_000] for wave in (speech(), speech() + 0.02 * tone(440.0, 2.0)))
    assert external.pesq(voice, dirty, 16_000) == pytest.approx(2.6116, abs=1e-3)
    assert external.pesq(voice, 0.1 * dirty, 16_000) == pytest.approx(2.6116, abs=1e-3)


@pytest.mark.filterwarnings("error")
def test_pesq_of_bad_data_is_nan():
    good = speech()
    for pair in [
        (0 * good, good),
        (good, 0 * good),
        (good, 1e-44 * good),
        (good, np.full_like(good, np.nan)),
    ]:
        assert math.isnan(external.pesq(*pair, RATE))
    assert math.isnan(external.pesq(good[:, : RATE // 5], good[:, : RATE // 5], RATE))
    assert math.isnan(external.pesq(good[:, :0], good[:, :0], RATE))
    bursts = np.tile(good[:, RATE // 2 : 3 * RATE // 2] * (np.arange(RATE) < RATE // 3), 70)
    assert math.isnan(external.pesq(bursts, bursts, RATE))  # the package would crash


# latent_distance


def coder(channels=1, gain=1.0):
    """A codec whose latents are the samples."""
    config = SimpleNamespace(sampling_rate=RATE)
    return SimpleNamespace(config=config, channels=channels, device="cpu", encode=lambda wave: gain * wave)


@pytest.mark.parametrize("channels", [1, 2])
def test_latent_distance_is_the_latents_rms_difference(channels):
    reference = noise()
    estimate = reference + 0.3
    codec = coder(channels, gain=2.0)
    assert external.latent_distance(reference, estimate, RATE, codec, 1000) == pytest.approx(0.6, rel=1e-4)
    estimate[:, 44_000:] = 9.0  # past the last whole chunk
    assert external.latent_distance(reference, estimate, RATE, codec, 1000) == pytest.approx(0.6, rel=1e-4)
    half = external.latent_distance(reference[:, :500], reference[:, :500] + 0.3, RATE, codec, 1000)
    assert half == pytest.approx(0.6 / math.sqrt(2), rel=1e-4)  # the other half is silence in both


def test_latent_distance_of_a_codec(tiny_codec):
    voice, other, chunk = tone(220.0), tone(330.0), 16 * tiny_codec.hop_length
    distance = [
        external.latent_distance(voice, wave, RATE, tiny_codec, chunk) for wave in (voice, 0.5 * voice, other)
    ]
    assert distance[0] == 0 and distance[1] < 1e-3 < 0.1 < distance[2]


# f0, voiced_mask and f0_error


def test_voiced_on_a_tone_and_not_on_silence(gapped):
    audio, (hertz, voiced) = gapped
    assert voiced.dtype == bool and len(voiced) == 1 + audio.shape[1] // metrics.HOP
    assert voiced[:84].all() and not voiced[90:].any()
    assert np.allclose(hertz[2:84], 220.0, rtol=0.006)  # pyin's grid: 10 cents
    assert np.isnan(hertz[~voiced]).all()
    assert lsd(audio, 0.5 * audio, RATE, voiced) > 0.0  # a mask made here fits the spectrograms made here


def test_noise_is_not_voiced():
    assert voiced_mask(noise(), RATE).mean() < 0.25  # pyin finds a pitch in some of it


def test_f0_of_another_rate():
    hertz, voiced = f0(tone(220.0, 0.5, rate=22_050), 22_050)
    assert len(voiced) == 1 + RATE // 2 // metrics.HOP
    assert voiced.mean() > 0.9
    assert np.nanmedian(hertz) == pytest.approx(220.0, rel=0.006)


def test_a_semitone_is_a_twelfth_of_ln_2():
    rmse, missed = f0_error(f0(tone(220.0), RATE), f0(tone(220.0 * math.exp(SEMITONE)), RATE))
    assert rmse == pytest.approx(SEMITONE, abs=0.006)
    assert missed < 0.05


def test_missed_frames_do_not_enter_the_error(gapped):
    audio, pitch = gapped
    half = audio.copy()
    half[:, RATE // 2 :] = 0.0
    rmse, missed = f0_error(pitch, f0(half, RATE))
    assert rmse < 0.006
    assert missed == pytest.approx(0.5, abs=0.05)


def test_f0_error_closed_form():
    nan = math.nan
    reference = (np.array([100.0, 100.0, 200.0, nan]), np.array([True, True, True, False]))
    estimate = (np.array([100.0, 200.0, nan, 300.0]), np.array([True, True, False, True]))
    rmse, missed = f0_error(reference, estimate)
    assert rmse == pytest.approx(math.log(2) / math.sqrt(2))
    assert missed == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="equal lengths"):
        f0_error(reference, (estimate[0][:3], estimate[1][:3]))


# bad data


@pytest.mark.parametrize("metric", [lsd, mel_mae])
@pytest.mark.filterwarnings("error")
def test_spectral_scores_of_bad_data_are_nan(metric):
    good = noise(0.2)
    broken = good.copy()
    broken[0, 100] = np.nan
    for reference, estimate in [(broken, good), (good, broken), (0 * good, good), (0 * good, 0 * good)]:
        assert math.isnan(metric(reference, estimate, RATE))
        assert math.isnan(metric(reference, estimate, 22_050))
    for frames in (0, 1, 2047):
        assert math.isnan(metric(good[:, :frames], good[:, :frames], RATE))
    assert metric(good[:, :2048], good[:, :2048], RATE) == 0.0


@pytest.mark.filterwarnings("error")
def test_waveform_scores_of_bad_data_are_nan():
    good, empty, silent = noise(0.1), np.zeros((2, 0)), np.zeros((2, 4410))
    for broken in (np.full_like(good, np.nan), np.full_like(good, np.inf)):
        for metric in (sdr, si_sdr):
            assert math.isnan(metric(good, broken)) and math.isnan(metric(broken, good))
    assert math.isnan(sdr(empty, empty)) and math.isnan(si_sdr(empty, empty))
    assert math.isnan(si_sdr(silent, good)) and math.isnan(si_sdr(good, silent))


@pytest.mark.filterwarnings("error")
def test_other_distances_of_bad_data_are_nan(tiny_codec):
    good, short = noise(1.1), noise(0.01)
    broken = np.full_like(good, np.nan)
    for reference, estimate in [
        (broken, good),
        (good, broken),
        (0 * good, good),
        (short[:, :0], short[:, :0]),
    ]:
        assert math.isnan(metrics.stft_distance(reference, estimate, RATE))
        assert math.isnan(external.latent_distance(reference, estimate, RATE, tiny_codec, 5120))
        found = external.bss_eval(reference, estimate, reference + 0.5, RATE)
        assert np.isnan(list(found.values())).all()
    assert math.isnan(metrics.stft_distance(short, short, RATE))
    assert np.isnan(list(external.bss_eval(short, short, short, RATE).values())).all()
    assert metrics.stft_distance(good, 0 * good, RATE) > 1
    assert external.latent_distance(good, 0 * good, RATE, tiny_codec, 5120) > 0.1


@pytest.mark.filterwarnings("error")
def test_f0_of_bad_data_is_unvoiced(gapped):
    audio, pitch = gapped
    for bad in (np.zeros_like(audio), np.full_like(audio, np.nan)):
        unvoiced = f0(bad, RATE)
        assert not unvoiced[1].any() and np.isnan(unvoiced[0]).all()
        rmse, missed = f0_error(pitch, unvoiced)
        assert math.isnan(rmse) and missed == 1.0
        assert all(math.isnan(number) for number in f0_error(unvoiced, pitch))
    assert not voiced_mask(audio[:, :2047], RATE).any()
    short = f0(audio[:, :10], RATE)
    assert all(math.isnan(number) for number in f0_error(short, short))


@pytest.mark.parametrize("metric", [sdr, si_sdr, lsd, mel_mae, external.pesq, metrics.stft_distance])
def test_shapes_must_agree(metric):
    rate = () if metric in (sdr, si_sdr) else (RATE,)
    audio = noise(0.1)
    with pytest.raises(ValueError, match="same shape"):
        metric(audio, audio[:, :-1], *rate)
    with pytest.raises(ValueError, match="same shape"):
        metric(audio, audio[:1], *rate)
    with pytest.raises(ValueError, match=r"\(channels, samples\)"):
        metric(audio[0], audio[0], *rate)


# dnsmos


@pytest.fixture(scope="module")
def dnsmos():
    pytest.importorskip("speechmos", reason="speechmos is not installed; pip install speechmos onnxruntime")
    return external.dnsmos


def test_dnsmos_hears_noise_and_takes_what_passes_full_scale(dnsmos):
    wave = 8 * tone(220.0, seconds=9.5)  # 9.01 s and less than a second more: one window
    clean, noisy = (dnsmos(wave + noise(9.5, level), RATE) for level in (1e-3, 0.8))
    assert clean.keys() == {"sig", "bak", "ovrl", "p808"}
    assert 1 <= noisy["bak"] < clean["bak"] <= 5


@pytest.mark.parametrize(
    "audio", [np.zeros((2, 0)), np.zeros((2, 1)), np.zeros((2, RATE)), np.full((2, RATE), np.nan)]
)
def test_dnsmos_of_nothing_is_nan(dnsmos, audio):
    assert np.isnan(list(dnsmos(audio, RATE).values())).all()
