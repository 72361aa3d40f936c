"""InstGlow: source-only separation with Glow priors (Zhu and others, "Music source separation with generative
flow", 2022).

A flow for each source learns its magnitude spectrograms from that source alone, and the mixture is separated
by gradient descent on the flows' latents. The paper and its published configuration fix: spectrograms of
22.05 kHz mono (window 1024, hop 256, linear magnitudes, uniform noise of a 16-bit step on the wave), the
decoder of Glow-TTS as the flow (two frames squeezed into one, twelve blocks of activation norm, invertible
mixing of groups of four channels and affine coupling by four gated convolutions of kernel 5), and the
separation: 150 steps of Adam at 0.01 from the flows' modes, on the generalised Kullback-Leibler divergence of
the mixture from the sum of the sources, with the mixture's phase. Ours: the latents' negative log-likelihood
beside it, with the weight of 0.001 that they give it where they optimise spectrograms; 512 of the 513 bins
(channels pair up, nothing lies at 11 kHz); no dropout; and 100 hidden channels for the 15 M that the LDM-dmx
paper gives: the published configuration's 128 make 24 M of the two flows.

Flow libraries looked at: `zuko` 1.6 (2026) is kept, but models vectors, with no convolution; `normflows` 1.7
(2023) has Glow, but of images: two-dimensional networks and one mixing matrix over all channels, here 1024 x
1024, inverted in each step; `FrEIA` 0.2 (2022) and `nflows` 0.14 (2020) have had no release since. None has
the gated 1-D coupling, which is most of the code below; so it is written here, with no further package.
"""

from dataclasses import dataclass
from functools import partial

import torch
from diffusers.configuration_utils import register_to_config
from torch import nn
from torch.nn import functional as F

from dmxlib.baselines import base
from dmxlib.baselines.base import Baseline, BaselineConfig
from dmxlib.config import setting

GROUP = 4  # channels that a mixing matrix mixes
LAYERS, KERNEL = 4, 5  # of the coupling network
LEARNING_RATE = 0.01  # of the separation
PRIOR_WEIGHT = 0.001


class Coupling(nn.Module):
    """Scale and shift of one half of the channels, from the other half by gated convolutions."""

    def __init__(self, half, hidden):
        super().__init__()
        self.start = nn.Conv1d(half, hidden, 1)
        self.gates = nn.ModuleList(
            nn.Conv1d(hidden, 2 * hidden, KERNEL, padding=KERNEL // 2) for _ in range(LAYERS)
        )
        self.outputs = nn.ModuleList(nn.Conv1d(hidden, 2 * hidden, 1) for _ in range(LAYERS))
        self.end = nn.Conv1d(hidden, 2 * half, 1)
        nn.init.zeros_(self.end.weight)  # a new flow begins as the identity
        nn.init.zeros_(self.end.bias)

    def forward(self, x):
        """(batch, half, frames) -> log scale and shift, each the same shape."""
        x, total = self.start(x), 0
        for gate, output in zip(self.gates, self.outputs, strict=True):
            signal, weight = gate(x).chunk(2, dim=1)
            residual, skip = output(signal.tanh() * weight.sigmoid()).chunk(2, dim=1)
            x, total = x + residual, total + skip
        return self.end(total).chunk(2, dim=1)


class Block(nn.Module):
    """Activation norm, mixing of channels, affine coupling; invertible."""

    def __init__(self, channels, hidden):
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(channels, 1))
        self.shift = nn.Parameter(torch.zeros(channels, 1))
        self.mixing = nn.Parameter(nn.init.orthogonal_(torch.empty(GROUP, GROUP)))
        self.coupling = Coupling(channels // 2, hidden)

    def forward(self, x):
        """(batch, channels, frames) -> the same, and the log-determinant of one example."""
        x = (x + self.shift) * self.log_scale.exp()
        x = mix(x, self.mixing)
        kept, changed = x.chunk(2, dim=1)
        log_scale, shift = self.coupling(kept)
        x = torch.cat([kept, changed * log_scale.exp() + shift], dim=1)
        groups = x.shape[1] // GROUP
        fixed = self.log_scale.sum() + groups * torch.linalg.slogdet(self.mixing).logabsdet
        return x, fixed * x.shape[2] + log_scale.sum(dim=(1, 2))

    def inverse(self, x):
        """The x that `forward` takes to this one."""
        kept, changed = x.chunk(2, dim=1)
        log_scale, shift = self.coupling(kept)
        x = torch.cat([kept, (changed - shift) * (-log_scale).exp()], dim=1)
        return mix(x, torch.linalg.inv(self.mixing)) * (-self.log_scale).exp() - self.shift

    @torch.no_grad()
    def initialize(self, x):
        """Set the activation norm so that its output of x has mean 0 and deviation 1 in each channel."""
        std, mean = torch.std_mean(x, dim=(0, 2))
        self.shift.copy_(-mean[:, None])
        self.log_scale.copy_(-std.clamp(min=1e-4).log()[:, None])


def mix(x, matrix):
    """Multiply groups of channels, taken a quarter of all apart so that both halves meet, by a matrix."""
    return torch.einsum("ij,bjct->bict", matrix, x.unflatten(1, (GROUP, -1))).flatten(1, 2)


class Glow(nn.Module):
    """The prior of one source's magnitude spectrogram, (batch, bins, frames), the frames even in number."""

    def __init__(self, bins, blocks, hidden):
        super().__init__()
        self.blocks = nn.ModuleList(Block(2 * bins, hidden) for _ in range(blocks))

    def forward(self, x):
        """Negative log-likelihood in nats for each bin and frame."""
        count = x[0].numel()
        x, log_determinant = squeeze(x), 0
        for block in self.blocks:
            x, more = block(x)
            log_determinant = log_determinant + more
        return (gaussian(x) - log_determinant / count).mean()

    def inverse(self, z):
        """Latents (batch, 2 bins, frames / 2) -> spectrogram (batch, bins, frames)."""
        for block in reversed(self.blocks):
            z = block.inverse(z)
        return unsqueeze(z)

    @torch.no_grad()
    def initialize(self, x):
        """Set the activation norms, block by block, from a batch of spectrograms."""
        x = squeeze(x)
        for block in self.blocks:
            block.initialize(x)
            x, _ = block(x)


def squeeze(x):
    """(batch, bins, frames) -> (batch, 2 bins, frames / 2)."""
    return x.unflatten(2, (-1, 2)).transpose(2, 3).flatten(1, 2)


def unsqueeze(x):
    """The inverse of `squeeze`."""
    return x.unflatten(1, (-1, 2)).transpose(2, 3).flatten(2)


def gaussian(z):
    """Negative log-likelihood of each example under the normal prior, in nats for each dimension."""
    return (z.square().mean(dim=(1, 2)) + torch.tensor(2 * torch.pi).log()) / 2


@dataclass
class TrainConfig(BaselineConfig):
    """Settings of a training run."""

    system: str = setting("instglow", "what is trained")
    blocks: int = setting(12, "of each flow")
    hidden: int = setting(100, "channels of the couplings")
    chunk_samples: int = setting(65_536, "samples of an excerpt")
    sampling_rate: int = setting(22_050, "in Hz")


class InstGlow(Baseline):
    """A flow for the vocals and one for the accompaniment.

    Args:
        blocks, hidden: of each flow, and channels in its couplings.
    """

    num_inference_steps = 150
    refinement = "wiener"
    batch_size = 4  # a small network: a fifth less time than one after the other

    @register_to_config
    def __init__(
        self,
        blocks: int,
        hidden: int,
        chunk_samples: int,
        window: int = 1024,
        hop: int = 256,
        sampling_rate: int = 22_050,
        channels: int = 1,
        target: str = "vocals",
    ):
        super().__init__()
        self.flows = nn.ModuleList(Glow(window // 2, blocks, hidden) for _ in range(2))

    def loss(self, vocals, accompaniment, generator):
        """Negative log-likelihood of the two sources, the mean of their flows'."""
        spectra = [self.magnitude(wave, generator) for wave in (vocals, accompaniment)]
        return sum(flow(x) for flow, x in zip(self.flows, spectra, strict=True)) / 2

    def initialize(self, vocals, accompaniment):
        """Set the flows' activation norms from the first batch."""
        generator = torch.Generator().manual_seed(0)
        for flow, wave in zip(self.flows, (vocals, accompaniment), strict=True):
            flow.initialize(self.magnitude(wave, generator))

    def extract(self, mixture, steps, generator):
        """Descend from the flows' modes, which is without chance."""
        spectrum = self.stft(mixture)
        target = even(spectrum.abs()[:, :-1])
        batch, bins, frames = target.shape
        z = torch.zeros(2, batch, 2 * bins, frames // 2, device=target.device, requires_grad=True)
        optimizer = torch.optim.Adam([z], LEARNING_RATE)
        for _ in range(steps):
            with torch.enable_grad():
                estimates = [flow.inverse(x).abs() for flow, x in zip(self.flows, z, strict=True)]
                prior = gaussian(z.flatten(0, 1)).view(2, batch).mean(dim=0)
                loss = divergence(target, sum(estimates)) + PRIOR_WEIGHT * prior
                (z.grad,) = torch.autograd.grad(loss.sum(), z)
            optimizer.step()
        magnitude = self.flows[0].inverse(z[0]).abs()[..., : spectrum.shape[2]]
        estimate = torch.polar(F.pad(magnitude, (0, 0, 0, 1)), spectrum.angle())
        return torch.istft(estimate, **self.settings, length=mixture.shape[2])[:, None].detach()

    def stft(self, wave):
        """(batch, 1, T) -> (batch, bins + 1, frames), complex."""
        return torch.stft(wave[:, 0], **self.settings, return_complex=True)

    def magnitude(self, wave, generator):
        """(batch, 1, T) -> what a flow learns, (batch, bins, even frames): no silence, no highest bin."""
        noise = torch.rand(wave.shape, generator=generator, device=wave.device) / 2**15
        return even(self.stft(wave + noise).abs()[:, :-1])

    @property
    def settings(self):
        """Of both transforms."""
        window = torch.hann_window(self.config.window, device=self.device)
        return {"n_fft": self.config.window, "hop_length": self.config.hop, "window": window}


def even(x):
    """Repeat the last frame where their number is odd."""
    return F.pad(x, (0, x.shape[2] % 2), mode="replicate")


def divergence(target, estimate):
    """Generalised Kullback-Leibler divergence of each example's magnitudes, the mean over bins and frames."""
    target, estimate = target + 1e-8, estimate + 1e-8
    return (target * (target / estimate).log() - target + estimate).mean(dim=(1, 2))


make_training = partial(base.make_training, InstGlow)
