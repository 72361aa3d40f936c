"""The variance-preserving cosine process, as a continuous loss and as diffusers' scheduler."""

import math

import torch
from diffusers import DDIMScheduler
from diffusers.schedulers.scheduling_utils import SchedulerMixin  # noqa: F401  the pipeline loader looks for it here

from dmxlib.errors import InputError

NUM_TRAIN_TIMESTEPS = 1000  # of the scheduler's grid; the number of sampling steps must divide it


def alpha_sigma(t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Signal and noise amplitudes (cos, sin) of phi = t * pi / 2 at t in [0, 1]; written here only."""
    return torch.cos(t * math.pi / 2), torch.sin(t * math.pi / 2)


def amplitudes(t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`alpha_sigma` of t (batch,), to multiply latents (batch, channels, F) with."""
    return alpha_sigma(t[:, None, None])


def predict(unet, z: torch.Tensor, t: torch.Tensor, condition) -> torch.Tensor:
    """The U-Net's v for z (batch, channels, F) at t (batch,), in float32."""
    return unet(z, t * NUM_TRAIN_TIMESTEPS - 1, condition).sample.float()


class DDIM(DDIMScheduler):
    """diffusers', whose step from pure noise may be NaN at eta = 1: all noise is fresh there, and what is
    left of the old is the root of a difference that rounding may make negative."""

    def _get_variance(self, timestep, prev_timestep):
        return (1 - 1e-6) * super()._get_variance(timestep, prev_timestep)


def make_scheduler() -> DDIM:
    """DDIM on the exact schedule: index i stands for t = (i + 1) / N, so that the last is pure noise.

    With a perfect v it returns z_0 to 1e-5 (in 1000 steps to 3e-5, by float32's rounding), which diffusers'
    default settings miss by 2.
    """
    t = torch.arange(NUM_TRAIN_TIMESTEPS + 1, dtype=torch.float64) / NUM_TRAIN_TIMESTEPS
    alpha_bar = alpha_sigma(t)[0].square()
    alpha_bar[-1] = 0  # cos^2(pi / 2) is 4e-33
    return DDIM(
        num_train_timesteps=NUM_TRAIN_TIMESTEPS,
        trained_betas=(1 - alpha_bar[1:] / alpha_bar[:-1]).tolist(),
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )


def check_steps(steps: int) -> None:
    """Raise InputError for a number of sampling steps that does not divide the scheduler's 1000."""
    if steps < 1 or NUM_TRAIN_TIMESTEPS % steps:
        raise InputError(f"the number of steps is {steps}; choose 1, 2, 4, 5, 8, 10, 20 ...")


def v_loss(
    unet,
    latents: torch.Tensor,
    condition: torch.Tensor,
    generator: torch.Generator,
    t_power: float = 1.0,
) -> torch.Tensor:
    """E || v_hat(z_t, t, c) - v_t ||^2 with v_t = alpha_t eps - sigma_t z_0, latents (batch, channels, F).

    t is 1 - u^t_power with u uniform, stratified over the batch: the loss varies more with t than with
    anything else. The paper's is 1; more chooses t nearer to pure noise, all that a single step sees.
    """
    batch = len(latents)
    offsets = torch.rand(batch, generator=generator, device=latents.device)
    t = 1 - (1 - (torch.arange(batch, device=latents.device) + offsets) / batch) ** t_power
    noise = torch.randn(latents.shape, generator=generator, device=latents.device)
    alpha, sigma = amplitudes(t)
    v = alpha * noise - sigma * latents
    v_hat = predict(unet, alpha * latents + sigma * noise, t, condition)
    return torch.nn.functional.mse_loss(v_hat, v)
