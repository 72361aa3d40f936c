"""How close an estimated voice is to the true one: waveform, spectrum, pitch.

What others' programs compute, BSS Eval, PESQ and the like, is in `dmxlib.metrics.external`.

Audio is a float array of shape (channels, samples) in [-1, 1]. `sdr` and `si_sdr` compare the waveforms, all
channels at once and at the rate they come in; our tables give them the mono mean at 44.1 kHz, `mono`. The
others take that mean themselves. LSD, Mel-MAE and F0 lie on one grid of frames, 2048 samples long and one
every 512, so that a voiced mask made here fits every spectrogram made here.

One rule for bad data: a score without meaning (a silent reference, fewer samples than one frame, a NaN or an
infinity, no voiced frame) is NaN, never an exception, so that one bad track cannot end an evaluation. A
silent estimate of a voice that sounds is a bad answer, not bad data, and gets the bad score its formula gives
it; only SI-SDR, BSS Eval, PESQ and the log-F0 RMSE have none to give. Shapes that differ raise ValueError.
"""

import librosa
import numpy as np
import soxr

RATE = 44_100  # Hz
FRAME = 2048  # samples: 46 ms, three periods of the lowest F0 searched (ours)
HOP = 512  # samples (ours)
MEL_BANDS = 128  # librosa's default: Slaney's scale and norm, 0 Hz to 22.05 kHz (ours)
F0_MIN_HZ, F0_MAX_HZ = 65.0, 1047.0  # C2 to C6 (ours)
OCTAVES_HZ = (0, 250, 500, 1000, 2000, 4000, 8000, 16_000, 22_050)  # edges; the first and last are no octaves
FULL_BAND = (0.0, np.inf)  # Hz
SDR_EPSILON = 1e-7  # SDX23's
# (STFT size, hop, window) in samples: Parallel WaveGAN's, made for 24 kHz and kept at ours, as auraloss does
RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))

# dB under the peak of the reference's spectrogram, for both powers (ours: the paper names no floor). Most of
# a voice's spectrogram is near-silence, whose logarithm is arbitrary, so this choice scales both numbers:
# compare scores of one floor only. Measured on 121-141 s of the stem "BGVOX MAIN" of Caesium (Everything is
# Free; AAC, empty above 15 kHz; 45 % of the frames voiced), all frames, against the same (a) plus white noise
# at 20 dB SNR and (b) low-passed at 8 kHz (Butterworth of order 4, forwards and backwards):
#
#   floor   bins of the reference above it   LSD (a)   LSD (b)   Mel-MAE (a)   Mel-MAE (b)
#           all   8-15 kHz, voiced frames
#    -60    24 %            25 %              0.29      0.18       2.2 dB        0.5 dB
#    -80    41 %            50 %              1.62      0.51       8.1 dB        1.5 dB
#   -100    52 %            69 %              2.95      0.94      11.7 dB        2.7 dB
#
# -60 ignores three quarters of the 8-15 kHz bins of the sung frames; -100 is where the rounding of a 16-bit
# file lies (the empty band of this stem: -99 dB), and would score it like a part of the voice.
FLOOR_DB = -80.0


def mono(audio: np.ndarray, rate: int, new_rate: int = RATE) -> np.ndarray:
    """The mean of the channels at 44.1 kHz, what all our tables score: (channels, samples) -> (1, samples).

    ValueError unless the shape is (channels, samples).
    """
    # Single precision halves the memory; its rounding, 2^-24 or -144 dB, lies far under the floor.
    mean = _audio(audio).mean(axis=0, keepdims=True).astype(np.float32)
    return mean if rate == new_rate else soxr.resample(mean.T, rate, new_rate).T


def low_pass(audio: np.ndarray, rate: int, bandwidth: float) -> np.ndarray:
    """(channels, samples) without what lies above `bandwidth` Hz: resampled to twice that rate and back."""
    if bandwidth >= rate / 2:
        return audio
    narrow = soxr.resample(_audio(audio).T, rate, 2 * bandwidth)
    return librosa.util.fix_length(soxr.resample(narrow, 2 * bandwidth, rate).T, size=audio.shape[1])


# -- waveforms -----------------------------------------------------------------------------------------------


def sdr(reference: np.ndarray, estimate: np.ndarray) -> float:
    """Signal-to-distortion ratio in dB, over the whole track and all its channels.

    10 log10((sum s^2 + 1e-7) / (sum (s - s_hat)^2 + 1e-7)). Finite for silence: a silent estimate of any
    reference scores 0 dB, and a perfect estimate has a ceiling that depends on the reference's energy.
    NaN if empty or not finite; ValueError unless both have one shape (channels, samples).
    Source: Fabbro et al., "The Sound Demixing Challenge 2023 - Music Demixing Track", TISMIR 2024.
    """
    reference, estimate = paired(reference, estimate)
    if not (usable(reference, 1) and usable(estimate, 1)):
        return float("nan")
    signal, error = _energy(reference), _energy(reference - estimate)
    return float(10 * np.log10((signal + SDR_EPSILON) / (error + SDR_EPSILON)))


def si_sdr(reference: np.ndarray, estimate: np.ndarray) -> float:
    """Scale-invariant signal-to-distortion ratio in dB, over the whole track and all its channels.

    10 log10(sum (a s)^2 / sum (a s - s_hat)^2) with a = <s_hat, s> / <s, s>: one gain for all channels, no
    mean removed. +inf for an exact multiple of the reference, -inf for an estimate orthogonal to it.
    NaN if empty, not finite, or either is silent; ValueError unless both have one shape (channels, samples).
    Source: Le Roux et al., "SDR - half-baked or well done?", ICASSP 2019.
    """
    reference, estimate = paired(reference, estimate)
    finite = usable(reference, 1) and usable(estimate, 1)
    if not (finite and reference.any() and estimate.any()):
        return float("nan")
    target = reference * (np.sum(reference * estimate) / _energy(reference))
    with np.errstate(divide="ignore"):
        return float(10 * np.log10(_energy(target) / _energy(target - estimate)))


# -- spectra -------------------------------------------------------------------------------------------------


def lsd(
    reference: np.ndarray,
    estimate: np.ndarray,
    rate: int,
    voiced: np.ndarray | None = None,
    band: tuple[float, float] = FULL_BAND,
) -> float:
    """Log-spectral distance in log10 of power (1.0 = 10 dB), of the mono mean at 44.1 kHz.

    mean over frames of sqrt(mean over bins of (log10 |S|^2 - log10 |S_hat|^2)^2). STFT of 2048 samples every
    512, Hann window (ours); both powers are floored at `FLOOR_DB` under the reference's peak.
    `rate` in Hz; `voiced`, a mask from `voiced_mask`, keeps only the frames it marks, `band` in Hz the bins
    whose centre lies in it: (0, bandwidth) is all that a system of lower rate can answer for.
    NaN by the module's rule; ValueError if the shapes differ or the mask has another number of frames.
    Source: Gray and Markel, "Distance measures for speech processing", IEEE Trans. ASSP 1976.
    """
    bins = librosa.fft_frequencies(sr=RATE, n_fft=FRAME)
    difference = _log_difference(reference, estimate, rate, voiced, _power, _inside(bins, bins, band))
    return _mean(np.sqrt(np.mean(difference**2, axis=0)))


def mel_mae(
    reference: np.ndarray,
    estimate: np.ndarray,
    rate: int,
    voiced: np.ndarray | None = None,
    band: tuple[float, float] = FULL_BAND,
) -> float:
    """Mean absolute difference in dB of the mel spectrograms of the mono mean at 44.1 kHz.

    mean over bands and frames of |10 log10 M - 10 log10 M_hat|, M = 128 mel bands (ours) of the power that
    `lsd` compares; both are floored at `FLOOR_DB` under the peak of the reference's mel spectrogram.
    `rate` in Hz; `voiced`, a mask from `voiced_mask`, keeps only the frames it marks, `band` in Hz the mel
    bands that lie wholly in it.
    NaN by the module's rule; ValueError if the shapes differ or the mask has another number of frames.
    Source: librosa.feature.melspectrogram, with its defaults.
    """
    edges = librosa.mel_frequencies(MEL_BANDS + 2, fmax=RATE / 2)  # band k reaches from edge k to k + 2
    inside = _inside(edges[:-2], edges[2:], band)
    return _mean(10 * np.abs(_log_difference(reference, estimate, rate, voiced, _mel_power, inside)))


def stft_distance(reference: np.ndarray, estimate: np.ndarray, rate: int) -> float:
    """Multi-resolution STFT distance of the mono mean at 44.1 kHz; 0 is equal, a silent estimate above 1.

    The mean over three STFTs of spectral convergence, || |S| - |S_hat| || / || |S| ||, and the mean over bins
    and frames of |ln |S| - ln |S_hat||: the definition of Parallel WaveGAN, which auraloss computes too, with
    their STFTs, `RESOLUTIONS`, and Hann windows. Ours: magnitudes in the logarithm are floored as in `lsd`,
    where they have an absolute floor, so that level makes no difference.
    `rate` in Hz; NaN by the module's rule; ValueError if the shapes differ.
    Source: Yamamoto, Song and Kim, "Parallel WaveGAN", ICASSP 2020.
    """
    pair = [mono(audio, rate)[0] for audio in paired(reference, estimate)]
    if not (all(usable(signal, FRAME) for signal in pair) and pair[0].any()):
        return float("nan")
    distances = []
    for size, hop, window in RESOLUTIONS:
        true, guess = (
            np.abs(librosa.stft(signal, n_fft=size, hop_length=hop, win_length=window)) for signal in pair
        )
        convergence = np.linalg.norm(true - guess) / np.linalg.norm(true)
        floor = true.max() * np.float32(10 ** (FLOOR_DB / 20))
        logarithms = np.log(np.maximum(true, floor)) - np.log(np.maximum(guess, floor))
        distances.append(convergence + np.abs(logarithms).mean())
    return float(np.mean(distances))


# -- pitch ---------------------------------------------------------------------------------------------------


def f0(audio: np.ndarray, rate: int) -> tuple[np.ndarray, np.ndarray]:
    """The fundamental frequency of the mono mean at 44.1 kHz: (Hz, voiced), one value of each a frame.

    librosa.pyin between 65 and 1047 Hz; Hz is NaN where unvoiced, and lies on a grid of 10 cents. `voiced` is
    pyin's own flag, not a threshold on its probability. It knows no level: digital silence is unvoiced, but
    of white noise, however faint, up to a third of the frames came out voiced (2 s, eight seeds: 0 to 35 %).
    pyin is slow: run this once a signal and keep the result.
    Audio that is silent, not finite or shorter than one frame is unvoiced throughout; ValueError unless the
    shape is (channels, samples).
    Source: Mauch and Dixon, "pYIN: a fundamental frequency estimator", ICASSP 2014.
    """
    signal = mono(audio, rate)[0]
    if not (usable(signal, FRAME) and signal.any()):
        frames = 1 + len(signal) // HOP
        return np.full(frames, np.nan), np.zeros(frames, dtype=bool)
    hertz, voiced, _ = librosa.pyin(
        signal, fmin=F0_MIN_HZ, fmax=F0_MAX_HZ, sr=RATE, frame_length=FRAME, hop_length=HOP
    )
    return hertz, voiced


def voiced_mask(reference: np.ndarray, rate: int) -> np.ndarray:
    """The frames in which the reference is voiced, by pyin's flag: a boolean array, see `f0`."""
    return f0(reference, rate)[1]


def f0_error(
    reference: tuple[np.ndarray, np.ndarray], estimate: tuple[np.ndarray, np.ndarray]
) -> tuple[float, float]:
    """(log-F0 RMSE, missed share) of two results of `f0`; the first means little without the second.

    RMSE = sqrt(mean (ln F - ln F_hat)^2) over the frames voiced in both, natural log: a semitone throughout
    is ln(2) / 12 = 0.058, one frame in a hundred off by an octave 0.069. Missed share = the reference's
    voiced frames that are unvoiced in the estimate / all its voiced frames.
    RMSE is NaN if no frame is voiced in both, the share is NaN if the reference has none voiced.
    ValueError if the numbers of frames differ.
    """
    (hertz, voiced), (hertz_hat, voiced_hat) = reference, estimate
    if len(voiced) != len(voiced_hat):
        raise ValueError(f"F0 tracks must have equal lengths, got {len(voiced)} and {len(voiced_hat)}")
    both = voiced & voiced_hat
    rmse = np.sqrt(_mean(np.log(hertz[both] / hertz_hat[both]) ** 2))
    return float(rmse), _mean(~voiced_hat[voiced])


# -- what they share -----------------------------------------------------------------------------------------


def _log_difference(reference, estimate, rate, voiced, power, inside) -> np.ndarray:
    """log10 P - log10 P_hat, both floored, (bands inside, frames kept); no frames if there is nothing to
    score."""
    reference, estimate = (mono(audio, rate)[0] for audio in paired(reference, estimate))
    kept = _kept_frames(voiced, 1 + len(reference) // HOP)
    nothing = np.empty((1, 0))
    if not (usable(reference, FRAME) and usable(estimate, FRAME)):
        return nothing
    reference, estimate = power(reference), power(estimate)
    floor = reference.max() * np.float32(10 ** (FLOOR_DB / 10))
    if floor == 0:
        return nothing
    # One floor for both: with a floor of its own, an estimate would be scored on less the quieter it is.
    true, guess = (np.log10(np.maximum(power, floor))[inside][:, kept] for power in (reference, estimate))
    return true - guess


def _inside(low: np.ndarray, high: np.ndarray, band: tuple[float, float]) -> np.ndarray:
    """Which of the ranges of frequencies from low to high lie in the band."""
    return (band[0] <= low) & (high <= band[1])


def _kept_frames(voiced, frames: int) -> np.ndarray:
    kept = np.ones(frames, dtype=bool) if voiced is None else np.asarray(voiced, dtype=bool)
    if kept.shape != (frames,):
        raise ValueError(f"the voiced mask must have shape ({frames},) for this audio, got {kept.shape}")
    return kept


def _power(signal: np.ndarray) -> np.ndarray:
    return np.abs(librosa.stft(signal, n_fft=FRAME, hop_length=HOP)) ** 2  # (bins, frames)


def _mel_power(signal: np.ndarray) -> np.ndarray:
    return librosa.feature.melspectrogram(S=_power(signal), sr=RATE, n_mels=MEL_BANDS)  # (bands, frames)


def paired(reference, estimate) -> tuple[np.ndarray, np.ndarray]:
    """Both in double precision; ValueError unless they have one shape (channels, samples)."""
    reference, estimate = _audio(reference), _audio(estimate)
    if reference.shape != estimate.shape:
        raise ValueError(
            f"reference and estimate must have the same shape, got {reference.shape} and {estimate.shape}"
        )
    return reference, estimate


def _audio(audio) -> np.ndarray:
    audio = np.asarray(audio, dtype=np.float64)
    if audio.ndim != 2:
        raise ValueError(f"audio must have shape (channels, samples), got {audio.shape}")
    return audio


def usable(audio: np.ndarray, least: int) -> bool:
    """At least `least` samples, all of them finite."""
    return audio.shape[-1] >= least and bool(np.isfinite(audio).all())


def _energy(audio: np.ndarray) -> np.float64:  # not a float: x / 0 must give inf
    return np.sum(audio**2)


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values, dtype=np.float64)) if values.size else float("nan")
