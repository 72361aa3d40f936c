"""The vocals' level, which EnCodec's group normalisation throws away: how loud a decoded chunk has to be.

The paper does not say where its system has the level from. Ours has a level channel beside the latents, which
the U-Net samples too. It gives the whole decoded chunk one gain, and shuts a gate where nobody sings: what a
frame's level misses by averages out over a chunk. Without it, a chunk gets the gain that projects it on
the mixture.
"""

import torch
from torch.nn import functional as F

from dmxlib.codec import Codec

FLOOR_DB = -60.0  # under the mixture's RMS: silence, and as quiet as a sampled level gets
CENTER_DB, SCALE_DB = -25.0, 20.0  # of the level channel, so that it has about the latents' spread; ours
WINDOW = 4  # latent frames a level is measured over: 53 ms at 75 frames/s, more than a period of any voice
GATE_DB, GATE_SLOPE = -30.0, 2.0  # under the first, each dB of level less shuts the gate by so many dB


def encode_pair(codec: Codec, vocals: torch.Tensor, mixture: torch.Tensor) -> torch.Tensor:
    """What the U-Net learns to sample: waves (batch, channels, T) -> (batch, dimension + 1, F), the vocals'
    latents and their level."""
    levels = frame_levels(vocals, rms(mixture), codec.hop_length)
    return torch.cat([codec.encode(vocals), to_channel(levels)], dim=1)


def decode_pair(codec: Codec, latents: torch.Tensor, mixture: torch.Tensor) -> torch.Tensor:
    """The inverse of `encode_pair`: latents (batch, dimension + 1, F) -> vocals (batch, channels, F * hop) at
    their level in the mixture (batch, channels, F * hop); gradients go through.

    Latents without the level channel, (batch, dimension, F), are decoded as well, and projected.
    """
    wave, channel = codec.decode(latents[:, : codec.dimension]), latents[:, codec.dimension :]
    if not channel.shape[1]:
        return project(wave, mixture)
    return apply_mean_level(wave, from_channel(channel), rms(mixture))


def rms(wave: torch.Tensor) -> torch.Tensor:
    """RMS over channels and time, (batch, channels, T) -> (batch, 1, 1)."""
    return wave.square().mean(dim=(1, 2), keepdim=True).sqrt()


def frame_levels(wave: torch.Tensor, reference: torch.Tensor, hop: int) -> torch.Tensor:
    """RMS of each latent frame in dB over `reference`, floored: (batch, channels, T) -> (batch, 1, T / hop).

    Args:
        reference: an RMS, (batch, 1, 1).
        hop: samples per latent frame.
    """
    power = wave.square().mean(dim=1, keepdim=True)
    power = F.avg_pool1d(F.pad(power, [(WINDOW - 1) * hop // 2] * 2), WINDOW * hop, hop)
    return (10 * torch.log10(power / reference.square().clamp(min=1e-12) + 1e-12)).clamp(min=FLOOR_DB)


def to_channel(levels: torch.Tensor) -> torch.Tensor:
    """Levels in dB -> the channel the U-Net samples."""
    return (levels - CENTER_DB) / SCALE_DB


def from_channel(channel: torch.Tensor) -> torch.Tensor:
    """The inverse of `to_channel`; nothing is louder than the mixture by more than 6 dB."""
    return (channel * SCALE_DB + CENTER_DB).clamp(FLOOR_DB, 6)


def project(wave: torch.Tensor, mixture: torch.Tensor) -> torch.Tensor:
    """Give a decoded wave the gain, one a chunk and not negative, that comes nearest to the mixture in the
    least squares' sense; both (batch, channels, T).

    It is the vocals' own level where the accompaniment has no part in common with the decoded wave.
    """
    power = wave.square().sum(dim=(1, 2), keepdim=True).clamp(min=1e-12)
    return wave * ((wave * mixture).sum(dim=(1, 2), keepdim=True) / power).clamp(min=0)


def gate(wave: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """Attenuate a decoded wave (batch, channels, T) where its levels (batch, 1, T / hop) in dB over the
    mixture's RMS lie under GATE_DB: a downward expander, gentle with what was sampled a little too low."""
    gain_db = GATE_SLOPE * (levels - GATE_DB).clamp(max=0)
    return wave * F.interpolate(10 ** (gain_db / 20), wave.shape[-1], mode="linear")


def apply_mean_level(wave: torch.Tensor, levels: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Give a decoded wave (batch, channels, T) the mean power of the levels (batch, 1, F) in dB over
    `reference`, and `gate` it by them."""
    power = (10 ** (levels / 10)).mean(dim=2, keepdim=True)
    return gate(wave * power.sqrt() * reference / rms(wave).clamp(min=1e-8), levels)
