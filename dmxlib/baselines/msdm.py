"""MSDM: multi-source diffusion (Mariani and others, ICLR 2024), on [vocals, accompaniment].

One score model of the sources' joint density learns from sources alone; the mixture enters when it samples.
The paper and its published configurations fix: mono waves at 22.05 kHz in excerpts of 262144 samples, patches
of 16 samples, a 1-D U-Net of 256 to 1024 channels with self-attention in its deep levels, the preconditioning
of EDM (Karras and others 2022) with log-normal noise (mean -3, deviation 1) and sigma_data 0.2, and the
sampler: the Dirac likelihood, Euler steps on Karras' schedule from 1 to 1e-4 with rho 7, s_churn 20, and two
passes for each of 150 steps. Ours: the two sources, and the U-Net, which is LDM-dmx's own on diffusers'
`UNet1DModel`, without a mixture to inject: the same kind of blocks, with factors of 2 where theirs has 4, and
widths chosen for its 405 M parameters. Both diffusion systems then differ in what they diffuse alone.
"""

from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise

import torch
from diffusers import EDMEulerScheduler
from diffusers.configuration_utils import register_to_config

from dmxlib.baselines import base
from dmxlib.baselines.base import Baseline, BaselineConfig
from dmxlib.config import setting
from dmxlib.diffusion import NUM_TRAIN_TIMESTEPS
from dmxlib.errors import InputError
from dmxlib.unet import VocalUNet1D

NOISE_MEAN, NOISE_STD = -3.0, 1.0  # of ln sigma in training
SIGMA_DATA = 0.2
S_CHURN = 20.0  # fresh noise, spread over the steps
PASSES = 2  # through each step: one correction


@dataclass
class TrainConfig(BaselineConfig):
    """Settings of a training run."""

    system: str = setting("msdm", "what is trained")
    patch: int = setting(16, "samples that are folded into channels before the U-Net")
    level_channels: list = setting([*3 * [256], *2 * [512], *6 * [1024]], "U-Net channels of each level")
    blocks_per_level: int = setting(2, "residual blocks of each level")
    attention_from: int = setting(8, "first level, from 0, with self-attention", least=0)
    fourier_channels: int = setting(256, "Fourier features of the noise level")
    time_channels: int = setting(1536, "channels of the embedding of the noise level")
    chunk_samples: int = setting(262_144, "samples of an excerpt")
    sampling_rate: int = setting(22_050, "in Hz")


class MSDM(Baseline):
    """Denoises the pair of sources.

    Args:
        patch: samples that are folded into channels before the U-Net.
        level_channels, blocks_per_level, attention_from, fourier_channels, time_channels: of `VocalUNet1D`.
            A first level of fewer than 2 * patch channels cannot carry all of the noise: what it leaves out
            stays in the sources at every noise level, however long it is trained.
    """

    num_inference_steps = 150
    refinement = "wiener"
    batch_size = 4  # whose noise is sampled together, so another number gives other vocals

    @register_to_config
    def __init__(
        self,
        patch: int,
        level_channels: list,
        blocks_per_level: int,
        attention_from: int,
        fourier_channels: int,
        time_channels: int,
        chunk_samples: int,
        sampling_rate: int = 22_050,
        channels: int = 1,
        target: str = "vocals",
    ):
        super().__init__()
        self.network = VocalUNet1D(
            latent_channels=2 * patch,
            condition_channels=0,
            level_channels=level_channels,
            blocks_per_level=blocks_per_level,
            first_injection=len(level_channels),  # none
            attention_from=attention_from,
            fourier_channels=fourier_channels,
            time_channels=time_channels,
        )
        multiple = patch * self.network.frame_multiple
        if chunk_samples % multiple:
            raise InputError(f"chunk_samples is {chunk_samples}; choose a multiple of {multiple}.")

    @cached_property  # not in __init__: it refuses the meta device, on which parameters are counted
    def scheduler(self) -> EDMEulerScheduler:
        """EDM's preconditioning and the noise levels of the sampler."""
        return EDMEulerScheduler(sigma_min=1e-4, sigma_max=1.0, sigma_data=SIGMA_DATA, rho=7.0)

    def denoise(self, sources, sigma):
        """The sources' posterior mean D(x; sigma) for noisy ones (batch, 2, T); sigma is (batch,)."""
        scale = sigma[:, None, None]
        x = self.scheduler.precondition_inputs(sources, scale)
        # (batch, 2, T) -> (batch, 2 patch, T / patch)
        x = x.unflatten(2, (-1, self.config.patch)).transpose(2, 3).flatten(1, 2)
        # The U-Net divides an index by the number of timesteps; EDM's noise value is to reach it as it is.
        timestep = self.scheduler.precondition_noise(sigma) * NUM_TRAIN_TIMESTEPS - 1
        x = self.network(x, timestep, None).sample
        x = x.unflatten(1, (2, -1)).transpose(2, 3).flatten(2)
        return self.scheduler.precondition_outputs(sources, x, scale)

    def loss(self, vocals, accompaniment, generator):
        """EDM's: the squared error of D, weighted to be equal at each noise level at first."""
        sources = torch.cat([vocals, accompaniment], dim=1)
        normal = torch.randn(len(sources), generator=generator, device=sources.device)
        sigma = (NOISE_MEAN + NOISE_STD * normal).exp()
        scale = sigma[:, None, None]
        noise = torch.randn(sources.shape, generator=generator, device=sources.device)
        error = self.denoise(sources + scale * noise, sigma) - sources
        return ((scale**2 + SIGMA_DATA**2) / (scale * SIGMA_DATA) ** 2 * error**2).mean()

    def extract(self, mixture, steps, generator):
        """The posterior under p(mixture | sources) = Dirac(mixture - sum of the sources).

        The accompaniment is mixture - vocals at every noise level, so the vocals alone are sampled, with
        their score less the accompaniment's. (To sample the accompaniment instead is the same process.)
        """

        def noise(scale):
            return scale * torch.randn(mixture.shape, generator=generator, device=mixture.device)

        self.scheduler.set_timesteps(steps)
        churn = 1 + min(S_CHURN / steps, 2**0.5 - 1)
        vocals = noise(self.scheduler.sigmas[0])
        for sigma, following in pairwise(self.scheduler.sigmas):
            for correction in reversed(range(PASSES)):
                raised = churn * sigma
                vocals = vocals + noise((raised**2 - sigma**2).sqrt())
                sources = torch.cat([vocals, mixture - vocals], dim=1)
                clean = self.denoise(sources, raised.expand(len(sources)).to(mixture.device))
                slopes = (sources - clean) / raised
                vocals = vocals + (slopes[:, :1] - slopes[:, 1:]) * (following - raised)
                if correction:
                    vocals = vocals + noise((sigma**2 - following**2).sqrt())
        return vocals


make_training = partial(base.make_training, MSDM)
