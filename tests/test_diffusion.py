"""The schedule is the exact cosine: loss, closed form and diffusers' scheduler agree on it."""

import math
from types import SimpleNamespace

import pytest
import torch

from dmxlib.diffusion import NUM_TRAIN_TIMESTEPS, alpha_sigma, make_scheduler, v_loss
from dmxlib.pipeline import VocalSeparationPipeline

STEPS = [1, 2, 4, 10, 50, 1000]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def draw(*shape):
    return torch.randn(shape or (2, 5, 32))


def time_of(timestep):
    """t in [0, 1] of a scheduler's index."""
    return (torch.as_tensor(timestep, dtype=torch.float64) + 1) / NUM_TRAIN_TIMESTEPS


def closed_form(z, v, i, steps):
    """Step i of `steps` from t = 1 down, by the paper's formula."""
    (alpha, sigma), (alpha_next, sigma_next) = (alpha_sigma(torch.tensor(1 - k / steps)) for k in (i, i + 1))
    z0_hat, eps_hat = alpha * z - sigma * v, sigma * z + alpha * v
    return alpha_next * z0_hat + sigma_next * eps_hat


def test_variance_is_preserved():
    t = torch.linspace(0, 1, 101)
    alpha, sigma = alpha_sigma(t)
    assert torch.allclose(alpha**2 + sigma**2, torch.ones(101), atol=1e-6)
    assert torch.allclose(alpha[[0, 50, 100]], torch.tensor([1, 0.5**0.5, 0]), atol=1e-6)
    assert (alpha.diff() < 0).all() and (sigma.diff() > 0).all()


def test_scheduler_lies_on_the_schedule():
    scheduler = make_scheduler()
    alpha, sigma = alpha_sigma(time_of(torch.arange(NUM_TRAIN_TIMESTEPS)))
    assert torch.allclose(scheduler.alphas_cumprod.double().sqrt(), alpha, atol=1e-5)
    assert torch.allclose((1 - scheduler.alphas_cumprod.double()).sqrt(), sigma, atol=1e-4)
    assert scheduler.alphas_cumprod[-1] == 0 and scheduler.final_alpha_cumprod == 1


@pytest.mark.parametrize("steps", STEPS)
def test_timesteps_are_equally_spaced_and_end_in_pure_noise(steps):
    scheduler = make_scheduler()
    scheduler.set_timesteps(steps)
    expected = torch.linspace(1, 1 / steps, steps, dtype=torch.float64)
    assert torch.allclose(time_of(scheduler.timesteps), expected)


@pytest.mark.parametrize("steps", STEPS)
def test_perfect_v_returns_z0(steps):
    z0, noise = draw(), draw()
    scheduler = make_scheduler()
    scheduler.set_timesteps(steps)
    z = closed = noise
    tolerance = (
        1e-5 if steps < 1000 else 5e-5
    )  # diffusers' float32 steps add up; float64 alphas halve it at best
    for i, timestep in enumerate(scheduler.timesteps):
        alpha, sigma = alpha_sigma(torch.tensor(1 - i / steps))
        v = alpha * noise - sigma * z0
        z = scheduler.step(v, timestep, z).prev_sample
        closed = closed_form(closed, v, i, steps)
        assert (z - closed).abs().max() < tolerance
    assert (closed - z0).abs().max() < 1e-5
    assert (z - z0).abs().max() < tolerance


@pytest.mark.parametrize("steps", STEPS[:-1])
def test_scheduler_steps_are_the_closed_form_for_any_network(steps):
    scheduler = make_scheduler()
    scheduler.set_timesteps(steps)
    z = draw()
    for i, timestep in enumerate(scheduler.timesteps):
        v = torch.tanh(z.flip(-1)) + 0.5 * z.roll(1, -1)
        expected = closed_form(z, v, i, steps)
        z = scheduler.step(v, timestep, z).prev_sample
        assert (z - expected).abs().max() < 1e-5


def test_scheduler_survives_saving(tmp_path):
    scheduler = make_scheduler()
    scheduler.save_pretrained(tmp_path)
    loaded = type(scheduler).from_pretrained(tmp_path)
    assert torch.equal(loaded.alphas_cumprod, scheduler.alphas_cumprod)
    assert vars(loaded).keys() == vars(scheduler).keys()
    for name, value in scheduler.config.items():
        assert name.startswith("_") or loaded.config[name] == value


def test_what_ships_has_this_scheduler():
    shipped, ours = VocalSeparationPipeline.from_pretrained("ldm-dmx-mini").scheduler, make_scheduler()
    assert type(shipped) is type(ours) and torch.equal(shipped.alphas_cumprod, ours.alphas_cumprod)
    assert all(shipped.config[key] == ours.config[key] for key in ("prediction_type", "timestep_spacing"))


# -- a latent that is normal: the ideal v is linear, and what is sampled is known ---------------------------

MEAN, STD = 0.7, 0.3


def ideal_v(z, t):
    """alpha E[eps | z] - sigma E[z_0 | z] of z_0 ~ N(MEAN, STD^2)."""
    alpha, sigma = alpha_sigma(torch.as_tensor(t, dtype=torch.float64))
    share = (z - alpha * MEAN) / (alpha**2 * STD**2 + sigma**2)
    return (alpha * sigma * share - sigma * (MEAN + alpha * STD**2 * share)).float()


def deviation(steps):
    """Of what DDIM makes of noise in so many steps, each of which is linear."""
    factor = 1.0
    for i in range(steps):
        phi, following = (math.pi / 2 * (1 - k / steps) for k in (i, i + 1))
        signal, noise = (f(following) * f(phi) for f in (math.cos, math.sin))
        factor *= (signal * STD**2 + noise) / (math.cos(phi) ** 2 * STD**2 + math.sin(phi) ** 2)
    return factor


@pytest.mark.parametrize("steps", [1, 2, 10, 50])
def test_the_pipeline_samples_the_known_distribution(steps):
    def unet(z, timestep, halves):
        return SimpleNamespace(sample=ideal_v(z, time_of(timestep)))

    unet.config, unet.mixture_halves = SimpleNamespace(latent_channels=5), lambda condition, frames: None
    config = SimpleNamespace(temperature=1.0)
    system = SimpleNamespace(unet=unet, scheduler=make_scheduler(), num_inference_steps=1, config=config)
    sample = VocalSeparationPipeline.sample(system, torch.zeros(1, 3, 4000), steps, generator(0))
    assert sample.shape == (1, 5, 4000)
    assert sample.mean().item() == pytest.approx(MEAN, abs=0.02)
    assert sample.std().item() == pytest.approx(deviation(steps), rel=0.02, abs=1e-5)


def test_one_step_is_the_mean_and_many_are_the_distribution():
    assert deviation(1) == pytest.approx(0, abs=1e-9)
    assert deviation(200) == pytest.approx(STD, rel=0.02)


@pytest.mark.parametrize("steps", [steps for steps in range(1, 1001) if 1000 % steps == 0])
def test_eta_of_one_gives_numbers(steps):
    """From pure noise, too, where diffusers' own step is NaN for eleven of these sixteen."""
    scheduler, z = make_scheduler(), draw(1, 1, 100)
    scheduler.set_timesteps(steps)
    for timestep in scheduler.timesteps[:2]:
        z = scheduler.step(draw(1, 1, 100), timestep, z, eta=1).prev_sample
        assert z.isfinite().all()


@pytest.mark.parametrize("steps", [2, 10, 50])
def test_eta_of_one_has_the_variance_of_ddpm(steps):
    """Its noise is that of the posterior q(z_s | z_t, z_0), and so the samples' variance is known as well."""
    scheduler, noise = make_scheduler(), draw(1, 1, 20_000)
    scheduler.set_timesteps(steps)
    z, variance = draw(1, 1, 20_000), 1.0
    for i, timestep in enumerate(scheduler.timesteps):
        (alpha, sigma), (following, rest) = (
            [amplitude.item() for amplitude in alpha_sigma(torch.tensor(1 - k / steps).double())]
            for k in (i, i + 1)
        )
        posterior = rest**2 / sigma**2 * (1 - alpha**2 / following**2)
        v = ideal_v(z, 1 - i / steps)
        quiet, loud = (
            scheduler.step(v, timestep, z, eta=1, variance_noise=x).prev_sample for x in (0 * noise, noise)
        )
        assert torch.allclose(loud - quiet, posterior**0.5 * noise, atol=1e-4)
        # the mean is linear in z: z_0's part, and what is left of the noise
        total = alpha**2 * STD**2 + sigma**2
        slope = following * alpha * STD**2 / total + max(0, rest**2 - posterior) ** 0.5 * sigma / total
        variance = slope**2 * variance + posterior
        z = scheduler.step(v, timestep, z, eta=1, generator=generator(i)).prev_sample
    assert z.mean().item() == pytest.approx(MEAN, abs=0.02)
    assert z.std().item() == pytest.approx(variance**0.5, rel=0.03)


# -- the loss ------------------------------------------------------------------------------------------------


class Network:
    """A stand-in for the U-Net that knows z_0; keeps what it was given."""

    def __init__(self, answer=None, latents=None):
        self.answer, self.latents = answer, latents

    def __call__(self, sample, timestep, condition):
        self.sample, self.t, self.condition = sample, (timestep + 1) / NUM_TRAIN_TIMESTEPS, condition
        if self.answer is not None:
            return SimpleNamespace(sample=self.answer(sample))
        alpha, sigma = (amplitude[:, None, None] for amplitude in alpha_sigma(self.t.double()))
        return SimpleNamespace(sample=(alpha * sample - self.latents) / sigma)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def test_loss_of_an_oracle_is_zero():
    latents = draw(16, 5, 32)
    assert v_loss(Network(latents=latents), latents, draw(), generator(0)) < 1e-6


def test_loss_of_a_network_that_answers_zero_is_the_power_of_v():
    latents = draw(64, 8, 64)
    loss = v_loss(Network(torch.zeros_like), latents, draw(), generator(0))
    assert loss.item() == pytest.approx(1, abs=0.03)  # alpha^2 + sigma^2
    doubled = v_loss(Network(torch.zeros_like), 2 * latents, draw(), generator(0))
    assert doubled.item() == pytest.approx(2.5, abs=0.1)  # 4 times the half of it that is sigma^2 z_0^2


def test_loss_follows_from_the_generator():
    latents, condition = draw(4, 5, 32), draw(4, 3, 32)
    network, state = Network(torch.tanh), torch.get_rng_state()
    losses = [v_loss(network, latents, condition, generator(seed)).item() for seed in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]
    assert torch.equal(torch.get_rng_state(), state) and network.condition is condition


def test_t_is_stratified_over_the_batch():
    network = Network(torch.tanh)
    times = []
    for seed in range(50):
        v_loss(network, draw(8, 2, 4), draw(), generator(seed))
        assert torch.equal((8 * network.t).floor(), torch.arange(8.0))
        times.append(network.t)
    times = torch.stack(times)
    assert abs(times.mean() - 0.5) < 0.01 and 0 <= times.min() < 0.02 and 0.98 < times.max() < 1
    assert (8 * times).frac().std() == pytest.approx(1 / math.sqrt(12), abs=0.03)  # uniform in its part


def test_power_moves_t_towards_noise():
    network = Network(torch.tanh)
    v_loss(network, draw(8, 2, 4), draw(), generator(0), t_power=4.0)
    edges = 1 - (1 - torch.arange(9.0) / 8) ** 4
    assert (edges[:-1] <= network.t).all() and (network.t <= edges[1:]).all()


def test_sample_has_the_amplitudes_of_its_t():
    network, latents = Network(torch.tanh), torch.ones(8, 16, 256)
    v_loss(network, latents, draw(), generator(0))
    alpha, sigma = alpha_sigma(network.t)
    assert torch.allclose(network.sample.mean(dim=(1, 2)), alpha, atol=0.05)
    assert torch.allclose(network.sample.std(dim=(1, 2)), sigma, atol=0.05)
