"""`VocalSeparationPipeline`: mixture in, vocals out; audio of any length, in chunks of one fixed length."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, DiffusionPipeline
from diffusers.models.modeling_utils import ModelMixin  # noqa: F401  the loader of custom components looks for it
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor

from dmxlib import audio, level
from dmxlib.codec import Codec, Conditioner
from dmxlib.errors import InputError
from dmxlib.refine import wiener
from dmxlib.unet import VocalUNet1D
from dmxlib.weights import find, places, shipped

STEPS = 1  # of sampling; results/sampling has the scores of more


@dataclass
class SeparationOutput(BaseOutput):
    """`vocals`: float32 (2, frames) at the input's rate."""

    vocals: np.ndarray


class VocalSeparationPipeline(DiffusionPipeline):
    """Draws the vocal's latent given the mixture's, decodes it, and restores its level.

    Args:
        codec, conditioner, unet, scheduler: the four trained parts.
        chunk_frames: latent frames of a chunk. Group normalisation ties the model to the length it was
            trained with, so that every chunk has exactly this one and the last is padded.
        level_rule: "drawn" or "averaged", see `dmxlib.level`.
    """

    def __init__(
        self,
        codec: Codec,
        conditioner: Conditioner,
        unet: VocalUNet1D,
        scheduler: DDIMScheduler,
        chunk_frames: int = 512,
        level_rule: str = "drawn",
    ):
        super().__init__()
        self.register_modules(codec=codec, conditioner=conditioner, unet=unet, scheduler=scheduler)
        self.register_to_config(chunk_frames=chunk_frames, level_rule=level_rule)
        for module in (codec, conditioner, unet):
            module.eval()

    @classmethod
    def from_pretrained(cls, name, **kwargs):
        """Load a system that ships ("ldm-dmx-mini"), a local folder, or a repository of the Hugging Face hub.

        Raises InputError where it is none of these, a file of it is missing, or its weights are pickled.
        """
        folder = find(name, "model_index.json")
        if not folder and Path(name).is_file():
            raise InputError(
                f"{name} is a file; give a folder with model_index.json, pickles are not opened."
            )
        if not folder and any(place.is_dir() for place in places(name)):
            raise InputError(f"{name} holds no model_index.json; give the folder that save_pretrained wrote.")
        kwargs = {"use_safetensors": True, "low_cpu_mem_usage": False} | kwargs
        try:
            return super().from_pretrained(str(folder or name), **kwargs)
        except (OSError, ValueError, RuntimeError) as error:  # the last for tensors of other shapes
            raise InputError(
                f"model {name} cannot be loaded: it does not ship ({', '.join(shipped())}), is no "
                f"complete folder of safetensors, and cannot be had from the hub ({_first_sentence(error)})."
            ) from error

    @property
    def chunk_samples(self) -> int:
        """Length of a chunk at the codec's rate."""
        return self.config.chunk_frames * self.codec.hop_length

    @property
    def chunk_seconds(self) -> float:
        """Length of a chunk in seconds."""
        return self.chunk_samples / self.codec.config.sampling_rate

    def __call__(
        self, audio, sampling_rate: int, callback: Callable | None = None, **settings
    ) -> SeparationOutput:
        """Separate an array (frames,) or (channels, frames) at `sampling_rate` Hz.

        Args:
            callback: called as `callback(step, timestep, latents)` after each sampling step.
            settings: as in `stream`.

        Raises InputError for an array that is empty or not finite.
        """
        mixture = np.atleast_2d(np.asarray(audio, dtype=np.float32))
        if mixture.ndim > 2 or mixture.size == 0 or not np.isfinite(mixture).all():
            raise InputError("the audio is empty, no (channels, frames), or holds NaN or infinite samples.")
        parts = list(self.stream([mixture], sampling_rate, callback=callback, **settings))
        return SeparationOutput(vocals=np.concatenate(parts, axis=1)[:, : mixture.shape[1]])

    def stream(
        self,
        blocks: Iterable[np.ndarray],
        sampling_rate: int,
        num_inference_steps: int = STEPS,
        eta: float = 0.0,
        generator: torch.Generator | None = None,
        overlap: float = audio.OVERLAP,
        batch_size: int = 4,
        refine: str | None = None,
        callback: Callable | None = None,
    ) -> Iterator[np.ndarray]:
        """Separate a stream of (channels, any) blocks in flat memory; the vocals' blocks (2, any) add up to a
        little more than the input's length, which the caller cuts.

        Args:
            num_inference_steps: sampling steps; must divide the scheduler's 1000.
            eta: 0 samples deterministically from the first noise, 1 adds DDPM's in every step.
            generator: a CPU generator of all noise; None takes torch's global one.
            overlap: share of a chunk that it is cross-faded over with the next, 0 to 0.5.
            batch_size: chunks computed at once; it does not change the result.
            refine: None gives the generated vocals, "wiener" the mixture's STFT under their soft mask.

        Raises InputError, at once, for a setting that is not one of these.
        """
        if not 0 <= overlap <= 0.5:
            raise InputError(f"overlap is {overlap}; choose a share from 0 to 0.5.")
        if num_inference_steps < 1 or self.scheduler.config.num_train_timesteps % num_inference_steps:
            raise InputError(
                f"the number of steps is {num_inference_steps}; choose 1, 2, 4, 5, 8, 10, 20 ..."
            )
        if not 0 <= eta <= 1 or batch_size < 1:
            raise InputError(f"eta is {eta} and batch_size {batch_size}; choose 0 to 1, and 1 or more.")
        if refine not in (None, "wiener"):
            raise InputError(f"refinement '{refine}' is unknown; choose 'wiener' or none.")
        length = math.ceil(self.chunk_samples * sampling_rate / self.codec.config.sampling_rate)
        separate = partial(
            self._separate_chunks,
            rate=sampling_rate,
            batch_size=batch_size,
            refine=refine,
            sampling=(num_inference_steps, eta, generator, callback),
        )
        return audio.in_chunks(separate, map(audio.stereo, blocks), length, overlap)

    def _separate_chunks(self, mixtures, rate, batch_size, refine, sampling):
        """Stream of mixture chunks (2, length) -> stream of vocal chunks (2, length)."""
        codec_rate, channels = self.codec.config.sampling_rate, self.codec.channels
        while batch := list(islice(mixtures, batch_size)):
            waves = [audio.to_model(chunk, rate, codec_rate, channels) for chunk in batch]
            waves = torch.from_numpy(np.stack([audio.fit(wave, self.chunk_samples) for wave in waves])).to(
                self.device
            )
            for mixture, vocals in zip(batch, self.generate(waves, *sampling).cpu().numpy(), strict=True):
                vocals = audio.from_model(vocals, codec_rate, rate, mixture.shape[1])
                yield wiener(mixture, vocals, rate, codec_rate / 2) if refine else vocals

    @torch.no_grad()
    def generate(
        self, mixture, num_inference_steps=STEPS, eta=0.0, generator=None, callback=None
    ) -> torch.Tensor:
        """Draw the vocals of mixture chunks (batch, channels, chunk_frames * hop) at the codec's rate."""
        latents = self.sample(self.conditioner(mixture), num_inference_steps, eta, generator, callback)
        return self.decode(latents, mixture)

    @torch.no_grad()
    def sample(
        self, condition, num_inference_steps=STEPS, eta=0.0, generator=None, callback=None
    ) -> torch.Tensor:
        """Draw vocal latents and their level channel: (batch, dimension, F) -> (batch, dimension + 1, F)."""
        # One generator a chunk, so that a chunk's noise does not depend on the batch it is in.
        seeds = torch.randint(2**62, (len(condition),), generator=generator).tolist()
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        shape = (len(condition), self.unet.config.latent_channels, condition.shape[-1])
        latents = randn_tensor(shape, generators, condition.device, condition.dtype)
        eta = min(eta, 1 - 1e-6)  # at 1 the first step takes the root of a rounding error below zero
        self.scheduler.set_timesteps(num_inference_steps, device=condition.device)
        mixture_halves = self.unet.mixture_halves(condition, shape[-1])
        for step, timestep in enumerate(self.scheduler.timesteps):
            v = self.unet(latents, timestep, mixture_halves).sample
            latents = self.scheduler.step(v, timestep, latents, eta=eta, generator=generators).prev_sample
            if callback:
                callback(step, timestep, latents)
        return latents

    def decode(self, latents, mixture) -> torch.Tensor:
        """Latents (batch, dimension + 1, F) -> vocals (batch, channels, F * hop) at their level; gradients go
        through."""
        wave = self.codec.decode(latents[:, :-1])
        levels, reference = level.from_channel(latents[:, -1:]), level.rms(mixture)
        if self.config.level_rule == "averaged":
            return level.apply_mean_level(wave, levels, reference)
        return level.apply_levels(wave, levels, reference, self.codec.hop_length)


def encode_pair(codec: Codec, vocals: torch.Tensor, mixture: torch.Tensor) -> torch.Tensor:
    """What the U-Net learns to draw: waves (batch, channels, T) -> (batch, dimension + 1, F)."""
    levels = level.frame_levels(vocals, level.rms(mixture), codec.hop_length)
    return torch.cat([codec.encode(vocals), level.to_channel(levels)], dim=1)


def _first_sentence(error):
    return str(error).split("\n")[0].split(". ")[0].rstrip(".")[:200]
