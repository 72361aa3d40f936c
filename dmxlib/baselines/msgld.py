"""MSG-LD: multi-track latent diffusion that separates and generates (Karchkhadze and others, ICASSP 2025,
arXiv 2409.12346), on a codec that knows voices.

One U-Net samples the latents of both sources jointly, given the mixture's. The paper and its published
configuration fix: weights that the sources share, with convolutions over their axis, the third dimension; the
mixture's latent, averaged to each level's length, at every level; a mixture of zeros in a tenth of the
training, for classifier-free guidance, whose weight goes from separation (1 or 2) to generation (0); given
sources noised along with the others, for partial generation; AdamW at 3e-5, and 200 steps of DDIM. Ours: the
codec, this project's instead of a VAE of instruments' Mel-spectrograms with its vocoder; two sources, with
their levels; v on the cosine schedule, as LDM-dmx has it; and the U-Net, LDM-dmx's own, in which the sources
exchange once a level and side, and the mixture is merged in on the way down. A single network then tells
the two latent diffusion systems apart: whether the accompaniment is sampled as well.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from diffusers.configuration_utils import register_to_config

from dmxlib.baselines import base
from dmxlib.baselines.base import Baseline, BaselineConfig
from dmxlib.codec import Codec
from dmxlib.codec.load import load_codec
from dmxlib.config import setting, take
from dmxlib.diffusion import check_steps, make_scheduler, v_loss
from dmxlib.errors import InputError
from dmxlib.latents import CachedPairs, checksum
from dmxlib.level import apply_mean_level, decode_pair, encode_pair, from_channel, rms
from dmxlib.unet import VocalUNet1D

SOURCES = ("vocals", "accompaniment")
DROPPED = 0.1  # share of the training without a condition
LOUDNESS = 0.1  # RMS of a mixture that nobody gave


@dataclass
class TrainConfig(BaselineConfig):
    """Settings of a training run."""

    system: str = setting("msgld", "what is trained")
    codec: str = setting("data/runs/encodec_48khz/model", "name or folder of the codec")
    latent_cache: str | None = setting(
        None, "folder that dmxlib.latents wrote with accompaniment: true; none: encode pairs as they come"
    )
    level_channels: list = setting([256, 256, 512, 512, 1024, 1024], "U-Net channels of each level")
    blocks_per_level: int | list = setting(2, "residual blocks of each level, one number or a list")
    attention_from: int = setting(3, "first level, from 0, with self-attention", least=0)
    mask_channels: int = setting(0, "hidden channels of the mask branch; 0: none", least=0)
    fourier_channels: int = setting(256, "Fourier features of t")
    time_channels: int = setting(1024, "channels of the embedding of t")
    latent_channels: int = setting(128, "of the codec")
    chunk_samples: int = setting(491_520, "samples of an excerpt")
    sampling_rate: int = setting(48_000, "in Hz, the codec's")
    channels: int = setting(2, "audio channels, the codec's", most=2)
    guidance_scale: float = setting(1.0, "of separation, saved with the system; 1: no guidance")


class MSGLD(Baseline):
    """Samples [vocals, accompaniment] in the latents of a codec, which stays where it is.

    Args:
        codec: its name or folder; `latent_channels`, `sampling_rate` and `channels` are its own.
        level_channels, blocks_per_level, attention_from, mask_channels, fourier_channels, time_channels: of
            `VocalUNet1D`.
        guidance_scale: of separation, where the caller names none.
    """

    num_inference_steps = 200
    refinement = "wiener"
    batch_size = 4  # whose noise is sampled together, so another number gives other vocals

    @register_to_config
    def __init__(
        self,
        codec: str,
        level_channels: list,
        blocks_per_level: int | list,
        attention_from: int,
        fourier_channels: int,
        time_channels: int,
        chunk_samples: int,
        mask_channels: int = 0,
        latent_channels: int = 128,
        sampling_rate: int = 24_000,
        channels: int = 1,
        guidance_scale: float = 1.0,
        target: str = "vocals",
    ):
        super().__init__()
        self.network = VocalUNet1D(
            latent_channels=latent_channels + 1,
            condition_channels=latent_channels,
            level_channels=level_channels,
            blocks_per_level=blocks_per_level,
            first_injection=0,
            attention_from=attention_from,
            mask_channels=mask_channels,
            fourier_channels=fourier_channels,
            time_channels=time_channels,
            sources=len(SOURCES),
        )

    @cached_property  # hidden from torch.nn.Module: frozen, and in no checkpoint
    def _codec(self) -> Codec:
        codec, config = load_codec(self.config.codec), self.config
        ours = (config.sampling_rate, config.channels, config.latent_channels)
        if (codec.config.sampling_rate, codec.channels, codec.dimension) != ours:
            raise InputError(f"codec {config.codec} has another rate, channels or latents than the model.")
        multiple = codec.hop_length * self.network.frame_multiple
        if config.chunk_samples % multiple:
            raise InputError(f"chunk_samples is {config.chunk_samples}; choose a multiple of {multiple}.")
        return codec.requires_grad_(False)

    @property
    def codec(self) -> Codec:
        """The codec, on the model's device."""
        return self._codec if self._codec.device == self.device else self._codec.to(self.device)

    def check_steps(self, num_inference_steps: int) -> None:
        """Raise InputError for a number of steps that does not divide the scheduler's 1000."""
        check_steps(num_inference_steps)

    # -- training --------------------------------------------------------------------------------------------

    def loss(self, vocals, accompaniment, generator):
        """The v loss of both sources, given their mixture."""
        with torch.no_grad():
            mixture = vocals + accompaniment
            latents = [encode_pair(self.codec, wave, mixture) for wave in (vocals, accompaniment)]
            condition = self.codec.encode(mixture)
        return self.latent_loss(torch.cat(latents, dim=1), condition, generator)

    def latent_loss(self, latents, condition, generator):
        """The same of latents (batch, 2 * (dimension + 1), F), given (batch, dimension, F)."""
        chance = torch.rand(len(condition), 1, 1, generator=generator, device=condition.device)
        return v_loss(self.network, latents, condition * (chance >= DROPPED), generator)

    # -- sampling --------------------------------------------------------------------------------------------

    def extract(self, mixture, steps, generator):
        """The vocals that are sampled for the mixture."""
        latents = self.sample(self.codec.encode(mixture), steps, generator, self.config.guidance_scale)
        return decode_pair(self.codec, latents[:, 0], mixture)

    @torch.no_grad()
    def arrange(self, known: dict, steps: int, generator: torch.Generator) -> torch.Tensor:
        """Generate without a mixture: vocals to a given accompaniment, an accompaniment to given vocals, or
        both; the result is (batch, 2, channels, chunk_samples), what is given in it as it is.

        Args:
            known: {"vocals" or "accompaniment": waves (batch, channels, chunk_samples)}, one or none of them.
            generator: on the model's device.
        """
        self.check_steps(steps)
        batch = max(map(len, known.values()), default=1)
        frames, size = self.config.chunk_samples // self.codec.hop_length, self.config.latent_channels
        given = torch.full((batch, len(SOURCES), size + 1, frames), torch.nan, device=self.device)
        for name, wave in known.items():
            # without its level, which is over a mixture's
            given[:, SOURCES.index(name), :size] = self.codec.encode(wave)
        condition = torch.zeros(batch, size, frames, device=self.device)
        latents = self.sample(condition, steps, generator, 0.0, given)
        levels = from_channel(latents[:, :, size:])
        loudness = torch.full((batch, 1, 1), LOUDNESS, device=self.device)
        for name, wave in known.items():
            power = (10 ** (levels[:, SOURCES.index(name)] / 10)).mean(dim=2, keepdim=True)
            loudness = rms(wave) / power.sqrt()
        waves = [
            known[name]
            if name in known
            else apply_mean_level(self.codec.decode(latents[:, index, :size]), levels[:, index], loudness)
            for index, name in enumerate(SOURCES)
        ]
        return torch.stack(waves, dim=1)

    def sample(self, condition, steps, generator, scale, given=None):
        """Sample both sources' latents, (batch, 2, dimension + 1, F), by DDIM.

        Args:
            condition: the mixture's latents (batch, dimension, F).
            scale: of the guidance; 0 leaves the condition out, 1 takes it as it is, more exaggerates it.
            given: latents of the result's shape, NaN where they are to be sampled.
        """
        batch, size, frames = condition.shape
        shape = (batch, len(SOURCES) * (size + 1), frames)
        noise = latents = torch.randn(shape, generator=generator, device=condition.device)
        given = torch.full_like(noise, torch.nan) if given is None else given.flatten(1, 2)
        guidance = [(scale, condition), (1 - scale, torch.zeros_like(condition))]
        halves = [(weight, self.network.mixture_halves(c, frames)) for weight, c in guidance if weight]
        scheduler = make_scheduler()
        scheduler.set_timesteps(steps, device=condition.device)
        for timestep in scheduler.timesteps:
            known = scheduler.add_noise(given, noise, timestep[None])
            latents = torch.where(given.isnan(), latents, known)
            v = sum(weight * self.network(latents, timestep, half).sample for weight, half in halves)
            latents = scheduler.step(v, timestep, latents).prev_sample
        return torch.where(given.isnan(), latents, given).unflatten(1, (len(SOURCES), -1))


class TrainStep(base.TrainStep):
    """The system with its loss on the latents of a cache."""

    def forward(self, batch, generator):
        """The v loss of {"latents", "accompaniment", "condition"}, as `CachedPairs` gives them."""
        latents = torch.cat([batch["latents"], batch["accompaniment"]], dim=1)
        return self.model.latent_loss(latents, batch["condition"], generator)

    def preview(self, pair, steps, generator):
        """The true and the sampled latents of the vocals, decoded; their loudness is left out."""
        sampled = self.model.sample(pair["condition"], steps, generator, self.model.config.guidance_scale)
        return [self.model.codec.decode(latents[:, :-1]) for latents in (pair["latents"], sampled[:, 0])]


def make_training(config: TrainConfig, device):
    """What `dmxlib.training.loop.train` takes: the step, and its training pairs."""
    if config.latent_cache is None:
        return base.make_training(MSGLD, config, device)
    model = base.make_model(MSGLD, config)
    training, validation = (
        CachedPairs(config.latent_cache, "condition", held, accompaniment=True) for held in (False, True)
    )
    frames = model.config.chunk_samples // model.codec.hop_length
    training.check(chunk_frames=frames, codec_checksum=checksum(model.codec), target=config.target)
    take(config, training.pairs_settings)
    return TrainStep(model.to(device), validation), training
