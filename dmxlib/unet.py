"""The paper's 1-D U-Net on diffusers' `UNet1DModel`: FiLM blocks, the mixture's latent merged in."""

import inspect
import math

import torch
from diffusers import UNet1DModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.attention_processor import Attention
from diffusers.models.modeling_utils import ModelMixin  # noqa: F401  the pipeline loader looks for it here
from diffusers.models.unets.unet_1d import UNet1DOutput
from torch import nn
from torch.nn import functional as F

from dmxlib.diffusion import NUM_TRAIN_TIMESTEPS
from dmxlib.errors import InputError
from dmxlib.weights import Saved

GROUPS = 8  # of every GroupNorm; ours


class ResidualBlock(nn.Module):
    """Twice GroupNorm, SiLU, Conv1d; the residual sum; then FiLM by the time embedding.

    The gain is bounded to 0..2, ours: gains multiply from block to block, the last norm hides their product
    from the loss, and where t is seldom chosen it grew until it overflowed.
    """

    def __init__(self, in_channels, out_channels, kernel_size, time_channels):
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.GroupNorm(GROUPS, in_channels),
            nn.SiLU(),
            nn.Conv1d(in_channels, out_channels, kernel_size, padding=kernel_size // 2),
            nn.GroupNorm(GROUPS, out_channels),
            nn.SiLU(),
            nn.Conv1d(out_channels, out_channels, kernel_size, padding=kernel_size // 2),
        )
        self.shortcut = (
            nn.Identity() if in_channels == out_channels else nn.Conv1d(in_channels, out_channels, 1)
        )
        self.film = nn.Linear(time_channels, 2 * out_channels)

    def forward(self, x, time):
        """(batch, in_channels, F), (batch, time_channels) -> (batch, out_channels, F)."""
        scale, shift = self.film(time)[:, :, None].chunk(2, dim=1)
        return (self.convolutions(x) + self.shortcut(x)) * (1 + scale.tanh()) + shift


class Exchange(nn.Module):
    """What the sources of one mixture tell each other: a residual convolution over their axis, the third
    beside channels and time. All other weights are shared; its zero padding tells one from the other.
    """

    def __init__(self, channels, sources):
        super().__init__()
        self.sources = sources
        self.convolution = nn.Conv2d(channels, channels, (3, 1), padding=(1, 0))

    def forward(self, x):
        """(batch * sources, channels, F) -> the same shape."""
        together = x.unflatten(0, (-1, self.sources)).transpose(1, 2)  # (batch, channels, sources, F)
        return x + self.convolution(together).transpose(1, 2).flatten(0, 1)


class Blocks(nn.Module):
    """The residual blocks of one level on one side, then self-attention over time where asked for, then the
    exchange of several sources."""

    def __init__(self, in_channels, out_channels, count, kernel_size, time_channels, sources, attention):
        super().__init__()
        self.residual = nn.ModuleList(
            ResidualBlock(in_channels if i == 0 else out_channels, out_channels, kernel_size, time_channels)
            for i in range(count)
        )
        self.attention = self_attention(out_channels) if attention else None
        self.exchange = Exchange(out_channels, sources) if sources > 1 else None

    def forward(self, x, time):
        """(batch, in_channels, F) -> (batch, out_channels, F)."""
        for block in self.residual:
            x = block(x, time)
        if self.attention:
            x = self.attention(x.transpose(1, 2)).transpose(1, 2)  # (batch, F, channels) inside
        return self.exchange(x) if self.exchange else x


def self_attention(channels):
    """Residual multi-head attention with heads of at most 64 channels."""
    heads = max(1, channels // 64)
    return Attention(
        channels,
        heads=heads,
        dim_head=channels // heads,
        norm_num_groups=GROUPS,
        bias=True,
        residual_connection=True,
    )


def fit(condition, frames, interpolation):
    """A condition (batch, channels, any length) at `frames` latent frames; "linear" is the paper's, "area",
    the mean of what a frame covers, is ours."""
    return F.interpolate(condition, frames, mode=interpolation)


class Injection(nn.Module):
    """Merge the mixture's latent: interpolate it to the level's length, concatenate, convolve.

    Nothing stands between concatenation and convolution, which makes it a sum: the mixture half
    is the same in every step.
    """

    def __init__(self, channels, condition_channels, interpolation):
        super().__init__()
        self.interpolation = interpolation
        self.convolution = nn.Conv1d(channels + condition_channels, channels, 1)

    def mixture_half(self, condition, frames):
        """(batch, condition_channels, any length) -> (batch, channels, frames)."""
        condition = fit(condition, frames, self.interpolation)
        return F.conv1d(condition, self.convolution.weight[:, -condition.shape[1] :], self.convolution.bias)

    def forward(self, x, mixture_half):
        """(batch, channels, F), twice -> (batch, channels, F)."""
        return F.conv1d(x, self.convolution.weight[:, : x.shape[1]]) + mixture_half


class Mask(nn.Module):
    """Passes on, in a learned basis, what a mask made of the features leaves of the mixture's latent.

    Ours. Without this path a small U-Net is slow to pass on what the mixture's latent holds: after 128
    steps it samples voices of -0.7 dB SI-SDR, with it 0.4 dB (results/ablations/separator.csv).
    """

    def __init__(
        self, channels, condition_channels, mask_channels, latent_channels, kernel_size, interpolation
    ):
        super().__init__()
        self.interpolation = interpolation
        padding = kernel_size // 2
        self.basis = nn.Conv1d(condition_channels, mask_channels, kernel_size, padding=padding)
        self.mask = nn.Conv1d(channels, mask_channels, 1)
        self.out = nn.Conv1d(mask_channels, latent_channels, kernel_size, padding=padding)

    def mixture_half(self, condition, frames):
        """(batch, condition_channels, any length) -> (batch, mask_channels, frames)."""
        return self.basis(fit(condition, frames, self.interpolation))

    def forward(self, x, mixture_half):
        """(batch, channels, F), (batch, mask_channels, F) -> (batch, latent_channels, F)."""
        return self.out(self.mask(x) * mixture_half)


class VocalUNet1D(Saved, UNet1DModel):
    """Predicts v for a noisy vocal latent, given the mixture's latent.

    The mixture is merged in on the way down, and reaches the way up by the skip connections: our reading of
    the paper's text, which leaves open whether the way up has injections of its own.

    Args:
        latent_channels: of a source; the paper's 128, ours 129 with the level channel (`dmxlib.level`).
        condition_channels: of the mixture's latent.
        level_channels: width of each level. The first two keep the time resolution, each later one halves it.
        blocks_per_level: residual blocks on each side of a level; a list gives each level its own number.
        kernel_size: of the residual blocks' convolutions, odd.
        first_injection: index of the first level that the mixture's latent is merged into; the paper's is 3.
        attention_from: index of the first level with self-attention.
        mask_channels: of the `Mask` whose output is added to the U-Net's; 0, the paper's, is none.
        interpolation: of the mixture's latent to a level's length, "linear" (the paper's) or "area" (ours).
        fourier_channels, time_channels: of the random Fourier features of t, and of the MLP behind them.
        sources: that a sample holds, one after the other on its channels; the paper's is the voice alone.
    """

    # UNet1DModel's own settings describe modules that are replaced here.
    ignore_for_config = list(inspect.signature(UNet1DModel.__init__).parameters)

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 129,
        condition_channels: int = 128,
        level_channels: tuple[int, ...] = (256, 256, 512, 512, 1024, 1024),
        blocks_per_level: int | tuple[int, ...] = 2,
        kernel_size: int = 3,
        first_injection: int = 3,
        attention_from: int = 4,
        mask_channels: int = 0,
        interpolation: str = "area",
        fourier_channels: int = 1024,
        time_channels: int = 1024,
        sources: int = 1,
    ):
        if interpolation not in ("linear", "area"):
            raise InputError(f"interpolation '{interpolation}' is unknown; choose linear or area.")
        if any(width % GROUPS for width in level_channels) or fourier_channels % 2:
            raise InputError(
                f"level_channels are {', '.join(map(str, level_channels))} and fourier_channels "
                f"{fourier_channels}; choose multiples of {GROUPS} and of 2."
            )
        super().__init__(
            time_embedding_dim=fourier_channels,
            down_block_types=(),
            up_block_types=(),
            block_out_channels=(GROUPS,),
            in_channels=latent_channels,
            out_channels=latent_channels,
        )
        self.time_mlp = nn.Sequential(
            nn.Linear(fourier_channels, time_channels),
            nn.GELU(),
            nn.Linear(time_channels, time_channels),
            nn.GELU(),
            nn.Linear(time_channels, time_channels),
            nn.GELU(),
        )
        widths = list(level_channels)
        levels = range(len(widths))
        counts = (
            blocks_per_level
            if isinstance(blocks_per_level, list | tuple)
            else [blocks_per_level] * len(widths)
        )
        if len(counts) != len(widths) or kernel_size % 2 == 0:
            raise InputError(
                f"blocks_per_level are {len(counts)} numbers for {len(widths)} levels, and kernel_size is "
                f"{kernel_size}; choose one for each, and an odd size."
            )
        if condition_channels and not 0 <= first_injection < len(widths):  # else it never hears the mixture
            raise InputError(f"first_injection is {first_injection}; choose 0 to {len(widths) - 1}, a level.")
        shared = (kernel_size, time_channels, sources)
        self.in_block = nn.Conv1d(latent_channels, widths[0], kernel_size, padding=kernel_size // 2)
        self.resamplers_down = nn.ModuleList(
            _down(widths[max(0, i - 1)], widths[i], stride=_stride(i)) for i in levels
        )
        self.injections = nn.ModuleList(
            Injection(widths[i], condition_channels, interpolation) if i >= first_injection else None
            for i in levels
        )
        self.down_blocks = nn.ModuleList(
            Blocks(widths[i], widths[i], counts[i], *shared, i >= attention_from) for i in levels
        )
        self.mid_block = Blocks(widths[-1], widths[-1], counts[-1], *shared, True)
        self.up_blocks = nn.ModuleList(
            Blocks(2 * widths[i], widths[i], counts[i], *shared, i >= attention_from) for i in levels
        )
        self.resamplers_up = nn.ModuleList(
            _up(widths[i], widths[max(0, i - 1)], stride=_stride(i)) for i in levels
        )
        self.out_block = nn.Sequential(
            nn.GroupNorm(GROUPS, widths[0]),
            nn.SiLU(),
            nn.Conv1d(widths[0], latent_channels, kernel_size, padding=kernel_size // 2),
        )
        mask_sizes = (widths[0], condition_channels, mask_channels, latent_channels, kernel_size)
        self.mask = Mask(*mask_sizes, interpolation) if mask_channels else None

    @property
    def frame_multiple(self) -> int:
        """The number of latent frames must be a multiple of this."""
        return 2 ** max(0, len(self.config.level_channels) - 2)

    def mixture_halves(self, condition: torch.Tensor, frames: int) -> list[torch.Tensor | None]:
        """What the mixture's latent (batch, condition_channels, any length) adds at each level and the mask.

        It is the same in every sampling step: compute it once and give it to `forward` in the latent's place.
        """
        if condition is not None:  # a prior has none
            condition = condition.repeat_interleave(self.config.sources, dim=0)
        lengths = [frames // math.prod(map(_stride, range(i + 1))) for i in range(len(self.injections))]
        return [
            None if part is None else part.mixture_half(condition, length)
            for part, length in zip([*self.injections, self.mask], [*lengths, frames], strict=True)
        ]

    def forward(self, sample: torch.Tensor, timestep, condition, return_dict: bool = True):
        """v_hat for a noisy latent.

        Args:
            sample: (batch, sources * latent_channels, F), F a multiple of `frame_multiple`.
            timestep: a number, or (batch,), integer or not; the scheduler's index i is t = (i + 1) / N.
            condition: the mixture's latent, (batch, condition_channels, any length), or its `mixture_halves`.
        """
        if not isinstance(condition, list):
            condition = self.mixture_halves(condition, sample.shape[-1])
        timestep = torch.as_tensor(timestep, device=sample.device).expand(len(sample))
        time = self.time_mlp(self.time_proj((timestep + 1) / NUM_TRAIN_TIMESTEPS).to(sample.dtype))
        time = time.repeat_interleave(self.config.sources, dim=0)
        *halves, masked_half = condition
        # (batch, sources * latent_channels, F) -> (batch * sources, latent_channels, F)
        x = self.in_block(sample.unflatten(1, (self.config.sources, -1)).flatten(0, 1))
        skips = []
        levels = zip(self.resamplers_down, self.injections, halves, self.down_blocks, strict=True)
        for down, injection, mixture_half, blocks in levels:
            x = down(x)
            if injection is not None:
                x = injection(x, mixture_half)
            x = blocks(x, time)
            skips.append(x)
        x = self.mid_block(x, time)
        for up, blocks in zip(reversed(self.resamplers_up), reversed(self.up_blocks), strict=True):
            x = up(blocks(torch.cat([x, skips.pop()], dim=1), time))
        x = self.out_block[:2](x)
        v_hat = self.out_block[2](x)
        if self.mask:
            v_hat = v_hat + self.mask(x, masked_half)
        v_hat = v_hat.unflatten(0, (-1, self.config.sources)).flatten(1, 2)
        return UNet1DOutput(sample=v_hat) if return_dict else (v_hat,)


def _stride(level):
    return 1 if level < 2 else 2


def _down(in_channels, out_channels, stride):
    kernel_size, padding = (4, 1) if stride == 2 else (1, 0)
    return nn.Conv1d(in_channels, out_channels, kernel_size, stride, padding)


def _up(in_channels, out_channels, stride):
    kernel_size, padding = (4, 1) if stride == 2 else (1, 0)
    return nn.ConvTranspose1d(in_channels, out_channels, kernel_size, stride, padding)
