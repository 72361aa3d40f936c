"""The loss of stage 3: of the voice that a single step draws, decoded, as it is heard.

The v loss counts every latent alike and knows nothing of the wave it stands for; and where the mixture leaves
the voice open, least squares answer with less than any voice there could be. So the last stage goes through
the frozen decoder, and through the refinement, to what is measured in the end.
"""

import torch
from torch.nn import functional as F

from dmxlib import level
from dmxlib.diffusion import predict
from dmxlib.refine import EXPONENT, soft_mask

SIZES = (512, 1024, 2048)  # of the STFTs; the largest is the refinement's at 24 kHz
FLOOR = 1e-3  # of magnitudes in a logarithm or under a root, over the mixture's RMS


def draw(pipeline, condition: torch.Tensor, mixture: torch.Tensor, generator) -> torch.Tensor:
    """The vocals (batch, channels, T) that one step draws for a condition; gradients go through.

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
        drawn, true = (stft(wave, size) for wave in (estimate, vocals))
        distance = F.l1_loss(drawn.abs(), true.abs()) + log_distance(drawn.abs(), true.abs())
        loss = loss + distance / len(SIZES)
    whole = stft(mixture, size)
    refined = whole * soft_mask(whole.abs(), drawn.abs().clamp(min=FLOOR), EXPONENT)
    loss = loss + F.l1_loss(torch.view_as_real(refined), torch.view_as_real(true))
    return loss + log_distance(refined.abs(), true.abs())


def stft(wave: torch.Tensor, size: int) -> torch.Tensor:
    """(batch, channels, T) -> (batch * channels, bins, frames), complex, with the power of the wave."""
    window = torch.hann_window(size, device=wave.device)
    settings = {"window": window, "normalized": True, "return_complex": True}
    return torch.stft(wave.flatten(0, 1), size, size // 4, **settings)
