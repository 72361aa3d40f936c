"""Stage 3, ours: the loss of the voice that a single step samples, decoded, as it is heard.

The v loss counts every latent alike and knows nothing of the wave it stands for; and where the mixture leaves
the voice open, least squares answer with less than any voice there could be. So the last stage goes through
the frozen decoder, and through the refinement, to what is measured in the end.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from dmxlib import level
from dmxlib.config import setting
from dmxlib.diffusion import predict
from dmxlib.errors import InputError
from dmxlib.pipeline import VocalSeparationPipeline
from dmxlib.refine import EXPONENT, soft_mask
from dmxlib.training import separator

SIZES = (512, 1024, 2048)  # of the STFTs; the largest is the refinement's at 24 kHz
FLOOR = 1e-3  # of magnitudes in a logarithm or under a root, over the mixture's RMS


@dataclass
class TrainConfig(separator.TrainConfig):
    """Settings of a training run: the separator's, and the loss's."""

    system: str = setting("ldm-dmx-stage3", "what is trained")
    log_weight: float = setting(0.5, "of the logarithms' distances in the loss, beside the magnitudes'")


class DecodedStep(separator.TrainStep):
    """The separator with the loss of what is heard.

    Args:
        validation: a dataset of fixed pairs of waves.
        log_weight: see `decoded_loss`.
    """

    def __init__(
        self, pipeline: VocalSeparationPipeline, train_conditioner: bool, validation, log_weight: float
    ):
        super().__init__(pipeline, train_conditioner, validation)
        self.log_weight = log_weight

    def forward(self, batch, generator):
        """The decoded loss of a batch of waves {"vocals", "mixture"} (batch, channels, F * hop), a scalar."""
        condition = self.pipeline.conditioner(batch["mixture"])
        estimate = sample_once(self.pipeline, condition, batch["mixture"], generator)
        return decoded_loss(estimate, batch["vocals"], batch["mixture"], self.log_weight)

    def validation_loss(self, batch, encoded, generator):
        """The loss of one pair."""
        return self(batch, generator)


def sample_once(pipeline, condition: torch.Tensor, mixture: torch.Tensor, generator) -> torch.Tensor:
    """The vocals (batch, channels, F * hop) that one step samples, given the condition (batch, dimension, F)
    of a mixture of the vocals' shape; gradients go through.

    At t = 1 all is noise and v is -z_0.
    """
    batch, _, frames = condition.shape
    shape = (batch, pipeline.unet.config.latent_channels, frames)
    noise = torch.randn(shape, generator=generator, device=condition.device)
    latents = -predict(pipeline.unet, noise, torch.ones(batch, device=condition.device), condition)
    return pipeline.decode(latents, mixture)


def decoded_loss(
    estimate: torch.Tensor, vocals: torch.Tensor, mixture: torch.Tensor, log_weight: float
) -> torch.Tensor:
    """How far an estimate is from the vocals, all (batch, channels, T), over the mixture's RMS.

    L1 of the waves; of STFT magnitudes, the mean over SIZES; of the refined estimate's STFT; and, times
    `log_weight`, of the logarithms of both kinds of magnitudes.
    """
    reference = level.rms(mixture).clamp(min=1e-4)
    estimate, vocals, mixture = (wave.float() / reference for wave in (estimate, vocals, mixture))

    def log_distance(x, y):
        return log_weight * F.l1_loss((FLOOR + x).log10(), (FLOOR + y).log10())

    loss = F.l1_loss(estimate, vocals)
    for size in SIZES:
        sampled, true = (stft(wave, size) for wave in (estimate, vocals))
        distance = F.l1_loss(sampled.abs(), true.abs()) + log_distance(sampled.abs(), true.abs())
        loss = loss + distance / len(SIZES)
    whole = stft(mixture, size)
    refined = whole * soft_mask(whole.abs(), sampled.abs().clamp(min=FLOOR), EXPONENT)
    loss = loss + F.l1_loss(torch.view_as_real(refined), torch.view_as_real(true))
    return loss + log_distance(refined.abs(), true.abs())


def stft(wave: torch.Tensor, size: int) -> torch.Tensor:
    """(batch, channels, T) -> (batch * channels, bins, frames), complex, with the power of the wave."""
    window = torch.hann_window(size, device=wave.device)
    settings = {"window": window, "normalized": True, "return_complex": True}
    return torch.stft(wave.flatten(0, 1), size, size // 4, **settings)


def make_training(config: TrainConfig, device) -> tuple[DecodedStep, torch.utils.data.Dataset]:
    """What `dmxlib.training.loop.train` takes: the step, and its training pairs.

    Raises InputError for a latent cache.
    """
    if config.latent_cache:
        raise InputError("log_weight asks for waves, which a latent cache lacks; leave latent_cache out.")
    pipeline, training, validation = separator.make_parts(config, device)
    return DecodedStep(pipeline, config.train_conditioner, validation, config.log_weight), training
