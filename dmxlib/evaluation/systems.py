"""Every system of the tables by its name: what the numbers are held against, the model and its parts.

A separator is a function of a track that returns the vocals, (2, frames) at the track's rate. Those that see
the true vocals say so. Nothing is loaded before it is asked for.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import librosa
import numpy as np
import torch

from dmxlib import audio, baselines, weights
from dmxlib.data import Track
from dmxlib.errors import InputError
from dmxlib.pipeline import STEPS, VocalSeparationPipeline, encode_pair
from dmxlib.refine import wiener

Separator = Callable[[Track], np.ndarray]


@dataclass(frozen=True)
class System:
    """A separator with its number of parameters and of sampling steps, where it has any, and the frequency in
    Hz up to which it gives a voice. An iterative one's `separate` takes another number as `steps`.

    Where all that it does to another system's vocals of a track is `refine(track, vocals)`, `refines` is that
    system's name.
    """

    separate: Separator
    parameters: int | None = None
    steps: int | None = None
    bandwidth: float = math.inf
    refines: str | None = None
    refine: Callable[[Track, np.ndarray], np.ndarray] | None = None


@dataclass(frozen=True)
class Options:
    """What a system is made with; one that has no use for a value ignores it.

    Args:
        model: the weights, in place of those that ship with the system: what LDM-dmx's `from_pretrained`
            takes, or the model folder of another system's training run.
        steps: of sampling; None is each iterative system's own number.
        seed: of all noise; every track starts from it.
        training: songs to learn a fixed filter from.
    """

    model: str | None = None
    steps: int | None = None
    seed: int = 0
    training: tuple[Track, ...] = ()


def make_system(name: str, options: Options) -> System:
    """Load a system by its name in `SYSTEMS`; InputError where there is none."""
    if name not in SYSTEMS:
        raise InputError(f"system {name} is unknown; choose from {', '.join(SYSTEMS)}.")
    return SYSTEMS[name](options)


# -- what the numbers are held against -----------------------------------------------------------------------


def identity(track: Track) -> np.ndarray:
    """The mixture itself."""
    return track.mixture()


def at_best_gain(separate: Separator, seconds: float, track: Track) -> np.ndarray:
    """A separator's output times the gain that gives the mono mean of each window of so many seconds its best
    SDR (sees the target)."""
    estimate, vocals = separate(track), track.vocals()
    size = round(seconds * track.rate)
    for start in range(0, track.frames, size):
        x, v = (wave[:, start : start + size].mean(axis=0) for wave in (estimate, vocals))
        estimate[:, start : start + size] *= np.vdot(x, v) / max(np.vdot(x, x), 1e-12)
    return estimate


def equalizer(songs) -> Separator:
    """A fixed filter: for each frequency the gain that fits the mono mean of the vocals of `songs` best."""
    cross, power = 0, 0
    for song in songs:
        x, v = (stft(wave.mean(axis=0, keepdims=True)) for wave in (song.mixture(), song.vocals()))
        cross = cross + (v * x.conj()).real.sum(dim=(0, 2), dtype=torch.float64)
        power = power + x.abs().square().sum(dim=(0, 2), dtype=torch.float64)
    gain = (cross / power.clamp(min=1e-12)).float()[:, None]
    return lambda track: istft(gain * stft(track.mixture()), track.frames)


REPEAT_SECONDS, REPEAT_WIDTH = 30.0, 2.0  # a window that is searched for repetitions; their least distance


def repetition(track: Track) -> np.ndarray:
    """What does not repeat: REPET-SIM (Rafii and Pardo 2012) as in librosa's gallery, in windows of 30 s.

    Each STFT frame is compared with its nearest neighbours; what rises above their median is the voice's.
    """
    mixture, size = track.mixture(), round(REPEAT_SECONDS * track.rate)
    parts = [mixture[:, start : start + size] for start in range(0, track.frames, size)]
    return np.concatenate([_not_repeated(part, track.rate) for part in parts], axis=1)


def _not_repeated(mixture, rate):
    spectrum = stft(mixture)
    magnitude = spectrum.abs().mean(dim=0).numpy()
    width = min(round(REPEAT_WIDTH * rate / 1024), (magnitude.shape[1] - 1) // 2 - 1)
    if width < 1:  # too short to repeat anything
        return mixture
    background = np.minimum(
        magnitude, librosa.decompose.nn_filter(magnitude, aggregate=np.median, metric="cosine", width=width)
    )
    mask = librosa.util.softmask(magnitude - background, 10 * background, power=2)
    return istft(spectrum * torch.from_numpy(mask), mixture.shape[1])


def stft(wave: np.ndarray) -> torch.Tensor:
    """(channels, frames) -> (channels, 2049, STFT frames), complex."""
    window, signal = torch.hann_window(4096), torch.from_numpy(wave)
    return torch.stft(signal, 4096, 1024, window=window, pad_mode="constant", return_complex=True)


def istft(spectrum: torch.Tensor, frames: int) -> np.ndarray:
    """The inverse of `stft`."""
    return torch.istft(spectrum, 4096, 1024, window=torch.hann_window(4096), length=frames).numpy()


# -- the model and its parts ---------------------------------------------------------------------------------


def latent_diffusion(options: Options, refine: str | None = None) -> System:
    """The pipeline, raw or refined."""
    pipeline, own_steps = load_pipeline(options), options.steps or STEPS

    def separate(track, steps=own_steps):
        generator = torch.Generator().manual_seed(options.seed)
        settings = dict(num_inference_steps=steps, generator=generator, refine=refine)
        return pipeline(track.mixture(), track.rate, **settings).vocals

    parameters = pipeline.unet.num_parameters() + pipeline.conditioner.num_parameters()
    return System(separate, parameters, own_steps, math.inf if refine else bandwidth(pipeline.codec))


def bandwidth(model) -> float:
    """Half the sampling rate of a codec or a baseline, in Hz."""
    return model.config.sampling_rate / 2


def load_pipeline(options: Options) -> VocalSeparationPipeline:
    """The model, quiet."""
    pipeline = VocalSeparationPipeline.from_pretrained(options.model or SHIPPED)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def codec_ceiling(options: Options) -> System:
    """The true vocals through the codec (sees the target): what is lost before anything is generated."""
    pipeline = load_pipeline(options)
    codec = pipeline.codec
    return System(partial(through_codec, pipeline), codec.num_parameters(), bandwidth=bandwidth(codec))


@torch.no_grad()
def through_codec(pipeline: VocalSeparationPipeline, track: Track) -> np.ndarray:
    """The true vocals coded chunk by chunk, their level by the pipeline's rule (sees the target)."""
    codec = pipeline.codec
    rate, channels = codec.config.sampling_rate, codec.channels

    def code(chunks):
        for chunk in chunks:
            vocals, mixture = torch.from_numpy(chunk).unflatten(0, (2, 1, channels))
            yield pipeline.decode(encode_pair(codec, vocals, mixture), mixture)[0].numpy()

    waves = (audio.to_model(wave, track.rate, rate, channels) for wave in (track.vocals(), track.mixture()))
    blocks = list(audio.in_chunks(code, [np.concatenate(list(waves))], pipeline.chunk_samples))
    return audio.from_model(np.concatenate(blocks, axis=1), rate, track.rate, track.frames)


def baseline(name: str, options: Options) -> System:
    """One of the paper's other systems, of the options' model or as it ships: dmxlib/pretrained/<name>-mini.

    Raises InputError where neither is there.
    """
    shipped = f"{name}-mini"
    folder = weights.find(options.model or shipped, "config.json") or options.model
    if not folder:
        raise InputError(
            f"{name} has no trained weights, {weights.FOLDER / shipped} is missing; train it (accelerate "
            f"launch dmxlib/train.py --config dmxlib/configs/mini_{name}.yaml) and copy its model there."
        )
    model = baselines.load(name).Model.from_pretrained(folder)
    own_steps = (options.steps or model.STEPS) if model.STEPS > 1 else None

    def separate(track, steps=own_steps):
        return model.separate(track.mixture(), track.rate, steps, options.seed, quiet=True)

    return System(separate, model.num_parameters(), own_steps, bandwidth(model))


def refined(name: str, options: Options) -> System:
    """Another system with LDM-dmx's refinement."""
    raw = make_system(name, options)

    def refine(track, vocals):
        return wiener(track.mixture(), vocals, track.rate, raw.bandwidth)

    def separate(track, **settings):
        return refine(track, raw.separate(track, **settings))

    return System(separate, raw.parameters, raw.steps, refines=name, refine=refine)


SHIPPED = "ldm-dmx-mini"
GAIN_SECONDS = 7.0  # one best gain each
EQUAL = "ldm-dmx-equal-mini"  # before its stage 3: trained for as long as the others

# In the tables' order: what the others are held against, two oracles, the paper's systems in its order.
SYSTEMS = {
    "mixture": lambda options: System(identity),
    "best-gain": lambda options: System(partial(at_best_gain, identity, GAIN_SECONDS)),
    "equalizer": lambda options: System(equalizer(options.training)),
    "repet": lambda options: System(partial(at_best_gain, repetition, GAIN_SECONDS)),
    "codec-ceiling": codec_ceiling,
    "irm": lambda options: System(baselines.load("irm").separate),
    "instglow": partial(baseline, "instglow"),
    "instglow-refined": partial(refined, "instglow"),
    "msdm": partial(baseline, "msdm"),
    "msdm-refined": partial(refined, "msdm"),
    "ldm-dmx-equal": lambda options: latent_diffusion(replace(options, model=EQUAL)),
    "ldm-dmx-equal-refined": lambda options: latent_diffusion(replace(options, model=EQUAL), "wiener"),
    "ldm-dmx": latent_diffusion,
    "ldm-dmx-refined": partial(latent_diffusion, refine="wiener"),
    "bsrnn": partial(baseline, "bsrnn"),
    "hdemucs": partial(baseline, "hdemucs"),
}
