"""Scores that others' programs or a trained codec compute: BSS Eval, PESQ, DNSMOS, a distance of latents.

Shapes, and the rule for bad data, are those of `dmxlib.metrics`.
"""

import librosa
import numpy as np
import torch
from pesq import NoUtterancesError
from pesq import pesq as p862

from dmxlib.errors import InputError
from dmxlib.metrics import RATE, mono, paired, sdr, usable

SPEECH_RATE = 16_000  # Hz: PESQ's wide band and DNSMOS
PESQ_SECONDS = (0.25, 20.0)  # the least it takes; more could hold 50 utterances, after which its code crashes


def bss_eval(reference: np.ndarray, estimate: np.ndarray, mixture: np.ndarray, rate: int) -> dict[str, float]:
    """museval's {"csdr", "sir", "sar"} of the vocals in dB, of the mono mean at 44.1 kHz.

    BSS Eval 4 (images): the estimate is split into the true voice through a filter of 512 taps, one for the
    whole excerpt, interference (what such filters make of the accompaniment) and artifacts (the rest). Each
    figure is the median over frames of 1 s; frames in which a source is silent are left out. museval is given
    vocals and accompaniment, the true one being mixture - reference, the estimated one mixture - estimate.
    All NaN by the module's rule, under 1 s, or where one of the four is silent throughout; ValueError if the
    shapes differ.
    Source: Stoeter, Liutkus and Ito, "The 2018 Signal Separation Evaluation Campaign", LVA/ICA 2018.
    """
    signals = (*paired(reference, estimate), paired(reference, mixture)[1])
    figures = _museval(*(mono(audio, rate) for audio in signals), RATE)
    return {"csdr": figures["sdr"], "sir": figures["sir"], "sar": figures["sar"]}


def musdb(reference: np.ndarray, estimate: np.ndarray, mixture: np.ndarray, rate: int) -> dict[str, float]:
    """The field's figures of the vocals of a whole track in dB, all channels, at its own rate.

    museval's {"sdr", "isr", "sir", "sar"}, medians over frames of 1 s, as `museval.eval_mus_track` has them
    of vocals and accompaniment (published: the median over tracks of these); and SDX23's "usdr", the `sdr` of
    the track (published: the mean over tracks). None of them compares with those of the mono mean.
    NaN as in `bss_eval`; ValueError if the shapes differ.
    Source: as of `bss_eval` and of `sdr`.
    """
    signals = (*paired(reference, estimate), paired(reference, mixture)[1])
    return {**_museval(*signals, rate), "usdr": sdr(reference, estimate)}


def _museval(reference, estimate, mixture, rate) -> dict[str, float]:
    """Medians over frames of 1 s of BSS Eval 4's figures of the vocals, each wave (channels, samples)."""
    from museval.metrics import bss_eval as museval  # which needs ffmpeg on the PATH already at import

    true, guess, whole = (audio.T.astype(np.float64) for audio in (reference, estimate, mixture))
    references, estimates = np.stack([true, whole - true]), np.stack([guess, whole - guess])
    sources = np.concatenate([references, estimates])  # (4, samples, channels)
    names = ("sdr", "isr", "sir", "sar")
    if not (usable(sources.swapaxes(1, 2), rate) and sources.any(axis=(1, 2)).all()):
        return dict.fromkeys(names, float("nan"))
    figures = museval(references, estimates, window=rate, hop=rate)[:4]  # each (sources, frames)
    return {name: _median(figure[0]) for name, figure in zip(names, figures, strict=True)}


def bss_eval_sources(vocals: np.ndarray, estimate: np.ndarray, mixture: np.ndarray) -> dict[str, float]:
    """BSS Eval 3's {"sdr", "sir", "sar"} of a vocal estimate in dB, each (1, samples), at any rate.

    One filter of 512 taps over all of it, by which, unlike in `bss_eval`, the true voice may change at no
    cost; mir_eval's `bss_eval_sources` has the same figures. All NaN where one of the three, or the
    accompaniment, is silent; ValueError if the shapes differ.
    Source: Vincent, Gribonval and Fevotte, "Performance measurement in blind audio source separation", IEEE
    Trans. ASLP 2006.
    """
    from museval.metrics import bss_eval as museval  # as above

    if not vocals.shape == estimate.shape == mixture.shape:
        raise ValueError(f"shapes differ: {vocals.shape}, {estimate.shape}, {mixture.shape}")
    vocals, estimate, mixture = (wave.astype(np.float64) for wave in (vocals, estimate, mixture))
    references, estimates = np.concatenate([vocals, mixture - vocals]), np.concatenate([estimate, mixture])
    if not (np.isfinite(estimates).all() and np.concatenate([references, estimates]).any(axis=1).all()):
        return dict.fromkeys(("sdr", "sir", "sar"), float("nan"))
    # the second estimate is not looked at; museval wants as many as there are references
    sdr, _, sir, sar, _ = museval(references, estimates, window=np.inf, bsseval_sources_version=True)
    return {"sdr": float(sdr[0, 0]), "sir": float(sir[0, 0]), "sar": float(sar[0, 0])}


def _median(frames: np.ndarray) -> float:
    """Of the frames that have a value."""
    frames = frames[~np.isnan(frames)]
    return float(np.median(frames)) if frames.size else float("nan")


def pesq(reference: np.ndarray, estimate: np.ndarray, rate: int) -> float:
    """Perceptual evaluation of speech quality, wide band, of the mono mean at 16 kHz: about 1 to 4.64.

    A model of telephone listeners, which aligns both in time and level and hears up to 8 kHz: a gain changes
    nothing. It needs signals that go on, so it takes whole excerpts, not their voiced frames (ours).
    `rate` in Hz. NaN where either is silent or not finite, under 0.25 s or over 20 s, or where it finds no
    utterance in the reference; ValueError if the shapes differ.
    Source: ITU-T P.862 with P.862.2, as the package `pesq` computes them.
    """
    pair = [mono(audio, rate, SPEECH_RATE)[0] for audio in paired(reference, estimate)]
    seconds = len(pair[0]) / SPEECH_RATE
    sound = all(usable(signal, 1) and signal.any() for signal in pair)
    if not (sound and PESQ_SECONDS[0] <= seconds <= PESQ_SECONDS[1]):
        return float("nan")
    try:
        return float(p862(SPEECH_RATE, *pair, "wb"))
    except (NoUtterancesError, ValueError):  # the second where a level is too low for single precision
        return float("nan")


@torch.no_grad()
def latent_distance(
    reference: np.ndarray, estimate: np.ndarray, rate: int, codec, chunk_samples: int
) -> float:
    """RMS difference of the two signals' latents in a `dmxlib.codec.Codec`.

    sqrt(mean over channels and frames of (z - z_hat)^2). The codec's normalisation gives the latents a mean
    variance of 1 over its data, though not in each channel, so that two unrelated voices are about sqrt(2)
    apart. The mono mean is coded, on the codec's device, in whole chunks of `chunk_samples` at the codec's
    rate, one after the other, since group normalisation ties the codec to that length; what is left over does
    not count, and less than one chunk is padded with silence. The codec takes no notice of a chunk's level.
    `rate` in Hz; NaN by the module's rule; ValueError if the shapes differ.
    Source: ours.
    """
    new_rate = codec.config.sampling_rate
    pair = np.stack([mono(audio, rate, new_rate)[0] for audio in paired(reference, estimate)])
    if not (usable(pair, 1) and pair[0].any()):
        return float("nan")
    size = chunk_samples * max(1, pair.shape[1] // chunk_samples)
    waves = torch.from_numpy(librosa.util.fix_length(pair, size=size)).unflatten(1, (-1, chunk_samples))
    waves = waves.to(codec.device)[:, :, None]  # (2, chunks, channels, chunk_samples)
    waves = waves.expand(-1, -1, codec.channels, -1)
    true, guess = (codec.encode(wave) for wave in waves)
    return (true - guess).square().mean().sqrt().item()


def dnsmos(audio: np.ndarray, rate: int) -> dict[str, float]:
    """DNSMOS P.835 of the mono mean at 16 kHz: {"sig", "bak", "ovrl", "p808"}, about 1 to 5; no reference.

    Predicted opinions of speech quality, background and the whole, and of the whole after P.808. Trained on
    noisy speech, not on singing: a proxy. Audio that peaks above 1 is divided by its peak; under 9 s it is
    repeated. All NaN for audio that is empty, silent or not finite. `rate` in Hz; ValueError unless the
    shape is (channels, samples); InputError without the package `speechmos`.
    Source: Reddy et al., "DNSMOS P.835", ICASSP 2022, with the models that `speechmos` carries.
    """
    try:
        from speechmos import dnsmos as model
    except ImportError as error:
        raise InputError(
            "DNSMOS needs speechmos and onnxruntime; pip install speechmos onnxruntime."
        ) from error
    names = ("sig", "bak", "ovrl", "p808")
    signal = mono(audio, rate, SPEECH_RATE)[0]
    if not (usable(signal, 1) and signal.any()):  # speechmos would repeat an empty array for ever
        return dict.fromkeys(names, float("nan"))
    scores = model.run(
        signal / max(1, np.abs(signal).max()), SPEECH_RATE
    )  # it refuses what passes full scale
    return {name: float(scores[f"{name}_mos"]) for name in names}
