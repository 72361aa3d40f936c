"""MSG-LD: the sources are drawn jointly, with or without a mixture, on a codec that stays where it is."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import reset_accelerate, separate

from dmxlib import baselines, train
from dmxlib.baselines import base, msgld
from dmxlib.config import read_yaml
from dmxlib.diffusion import alpha_sigma
from dmxlib.ensemble import load_separator
from dmxlib.errors import InputError
from dmxlib.latents import CachedPairs, LatentConfig, build_cache
from dmxlib.level import rms
from dmxlib.reproduce import seeded_generator
from dmxlib.training import separator

FRAMES, RATE = 32, 24_000
SIZES = {
    "level_channels": [16, 16, 16],
    "blocks_per_level": 1,
    "attention_from": 2,
    "fourier_channels": 16,
    "time_channels": 16,
    "chunk_samples": FRAMES * 320,
    "latent_channels": 16,
    "sampling_rate": RATE,
    "channels": 1,
}


@pytest.fixture
def model(codec_folder):
    torch.manual_seed(0)
    return msgld.MSGLD(codec=str(codec_folder), **SIZES).eval()


@pytest.fixture
def waves():
    """(vocals, accompaniment), each (2, 1, chunk_samples)."""
    generator = seeded_generator(0)
    vocals, accompaniment = torch.randn(2, 2, 1, FRAMES * 320, generator=generator)
    return 0.1 * vocals, 0.3 * accompaniment


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=seeded_generator(seed))


# -- the network ---------------------------------------------------------------------------------------------


@torch.no_grad()
def test_sources_share_weights_and_see_each_other(model):
    z, condition = draw(1, 34, FRAMES), draw(1, 16, FRAMES)
    v = model.network(z, 500, condition).sample
    assert v.shape == z.shape
    other = z.clone()
    other[:, 17:] += 1  # the accompaniment's half
    assert not torch.allclose(model.network(other, 500, condition).sample[:, :17], v[:, :17], atol=1e-3)
    for module in model.network.modules():
        if hasattr(module, "convolution") and isinstance(module.convolution, torch.nn.Conv2d):
            module.convolution.weight.zero_()
            module.convolution.bias.zero_()
    v = model.network(z, 500, condition).sample  # apart, one network of both
    assert torch.allclose(model.network(other, 500, condition).sample[:, :17], v[:, :17])
    swapped = model.network(z.roll(17, dims=1), 500, condition).sample
    assert torch.allclose(swapped.roll(17, dims=1), v, atol=1e-5)


# -- training ------------------------------------------------------------------------------------------------


def test_loss_falls_and_every_parameter_learns(model, waves):
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    losses = []
    for _ in range(4):
        loss = model.loss(*waves, seeded_generator(0))
        loss.backward()
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert not any("codec" in name for name in model.state_dict())
    assert not any(p.requires_grad for p in model.codec.parameters())


def test_loss_of_a_network_that_knows_both_sources_is_zero(model, waves):
    mixture = sum(waves)
    with torch.no_grad():
        latents = torch.cat([msgld.encode_pair(model.codec, wave, mixture) for wave in waves], dim=1)

    def oracle(network, inputs, output):
        z, timestep, _ = inputs
        alpha, sigma = (amplitude[:, None, None] for amplitude in alpha_sigma((timestep.double() + 1) / 1000))
        return SimpleNamespace(sample=(alpha * z - latents) / sigma)

    model.network.register_forward_hook(oracle)
    assert model.loss(*waves, seeded_generator(0)).item() < 1e-6
    assert model.loss(*reversed(waves), seeded_generator(0)).item() > 0.1


def test_the_condition_is_left_out_in_a_tenth(model):
    conditions = []
    model.network.register_forward_pre_hook(lambda _, inputs: conditions.append(inputs[2]))
    model.latent_loss(draw(2000, 34, 4), torch.ones(2000, 16, 4), seeded_generator(0))
    (condition,) = conditions
    assert set(condition.unique().tolist()) == {0, 1} and torch.equal(condition.amin(1), condition.amax(1))
    assert condition.mean().item() == pytest.approx(0.9, abs=0.02)


# -- sampling ------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_guidance(model):
    condition = draw(1, 16, FRAMES)
    calls = []
    model.network.register_forward_pre_hook(lambda *_: calls.append(1))

    def sample(scale, condition=condition):
        return model.sample(condition, 1, seeded_generator(0), scale).flatten(1, 2)

    given, free = sample(1.0), sample(0.0)
    assert len(calls) == 2, "neither is computed twice"
    noise = draw(1, 34, FRAMES)
    assert torch.allclose(given, -model.network(noise, 999, condition).sample, atol=1e-5)  # one step: -v
    assert torch.allclose(free, sample(1.0, 0 * condition), atol=1e-5)
    assert torch.allclose(sample(2.0), 2 * given - free, atol=1e-4)


@torch.no_grad()
def test_a_perfect_network_separates(model, waves):
    """Its v leads to the latents of both sources; the vocals' are decoded at their level."""
    mixture = sum(waves)
    latents = [msgld.encode_pair(model.codec, wave, mixture) for wave in waves]
    z0 = torch.cat(latents, dim=1)

    def oracle(z, timestep, half):
        alpha, sigma = alpha_sigma((timestep.double() + 1) / 1000)
        return SimpleNamespace(sample=((alpha * z - z0) / sigma).float())

    model.network.forward, model.network.mixture_halves = oracle, lambda condition, frames: None
    vocals = model.extract(mixture, 4, seeded_generator(0))
    assert torch.allclose(vocals, msgld.decode_pair(model.codec, latents[0], mixture), atol=1e-3)


@pytest.mark.parametrize("name", ["vocals", "accompaniment", None])
def test_generates_what_is_not_given(model, waves, name):
    known = {name: waves[msgld.SOURCES.index(name)]} if name else {}
    drawn, again, other = (model.arrange(known, 4, seeded_generator(seed)) for seed in (0, 0, 1))
    assert drawn.shape == (2 if name else 1, 2, 1, FRAMES * 320) and drawn.isfinite().all()
    assert torch.equal(drawn, again)
    for index, source in enumerate(msgld.SOURCES):
        if source == name:
            assert torch.equal(drawn[:, index], known[name])
        else:
            assert drawn[:, index].std() > 0 and not torch.allclose(drawn[:, index], other[:, index])
    if name:  # and it is drawn to what is given
        changed = model.arrange({name: known[name].flip(-1)}, 4, seeded_generator(0))
        assert not torch.allclose(changed, drawn)
        louder = model.arrange({name: 2 * known[name]}, 4, seeded_generator(0))
        assert torch.allclose(louder, 2 * drawn, rtol=1e-2, atol=1e-3)


@torch.no_grad()
def test_given_latents_are_kept_at_every_step(model):
    given = torch.full((1, 2, 17, FRAMES), torch.nan)
    given[:, 1] = draw(1, 17, FRAMES, seed=1)
    seen = []
    model.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][:, 17:]))
    drawn = model.sample(torch.zeros(1, 16, FRAMES), 4, seeded_generator(0), 0.0, given)
    assert torch.equal(drawn[:, 1], given[:, 1]) and drawn.isfinite().all()
    noise = draw(1, 34, FRAMES)[:, 17:]
    for z, t in zip(seen, (1.0, 0.75, 0.5, 0.25), strict=True):
        alpha, sigma = alpha_sigma(torch.tensor(t))
        assert torch.allclose(z, alpha * given[:, 1] + sigma * noise, atol=1e-4)


def test_loudness_of_what_nobody_gave(codec_folder):
    levels = torch.tensor([-10.0, -1.0])  # of the two sources in dB
    channel = ((levels - -25) / 20)[None, :, None, None].expand(1, 2, 1, FRAMES)
    latents = torch.cat([draw(1, 2, 16, FRAMES), channel], dim=2)

    class Drawn(msgld.MSGLD):
        def sample(self, *_):
            return latents

    model = Drawn(codec=str(codec_folder), **SIZES)
    drawn = model.arrange({}, 4, seeded_generator(0))
    for index in range(2):
        expected = msgld.LOUDNESS * 10 ** (levels[index].item() / 20)
        assert rms(drawn[:, index]).item() == pytest.approx(expected, rel=1e-3)
    vocals = 0.05 * draw(1, 1, FRAMES * 320)
    band = model.arrange({"vocals": vocals}, 4, seeded_generator(0))[:, 1]
    assert rms(band).item() == pytest.approx(rms(vocals).item() * 10 ** (9 / 20), rel=1e-3)


# -- songs and folders ---------------------------------------------------------------------------------------


def test_separates_a_song_and_is_saved_and_loaded(model, tmp_path, rng):
    mixture = 0.1 * rng.standard_normal((2, 30_000)).astype(np.float32)
    model.save_pretrained(tmp_path / "model")
    loaded = load_separator(str(tmp_path / "model"))
    assert isinstance(loaded, msgld.MSGLD) and baselines.load("msgld") is msgld.MSGLD
    vocals = [separate(system, mixture, 44_100, steps=2) for system in (model, loaded)]
    assert np.array_equal(*vocals) and vocals[0].shape == mixture.shape and vocals[0].std() > 0
    assert not np.array_equal(vocals[0], separate(model, mixture, 44_100, steps=2, seed=1))
    assert np.isfinite(separate(model, 0 * mixture, 44_100, steps=1)).all()
    for steps in (0, 3):
        with pytest.raises(InputError, match=f"the number of steps is {steps}; choose 1, 2, 4"):
            separate(model, mixture, 44_100, steps=steps)


@pytest.mark.parametrize(
    "sizes, message",
    [
        ({"sampling_rate": 16_000}, "has another rate, channels or latents than the model"),
        ({"latent_channels": 32}, "has another rate, channels or latents than the model"),
        ({"chunk_samples": 33 * 320}, "chunk_samples is 10560; choose a multiple of 640"),
    ],
)
def test_sizes_that_are_not_the_codecs_are_refused(codec_folder, sizes, message):
    with pytest.raises(InputError, match=message):
        assert msgld.MSGLD(codec=str(codec_folder), **SIZES | sizes).codec


# -- the training loop ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cache(toy_root, codec_folder, tmp_path_factory):
    config = LatentConfig(
        data_root=str(toy_root),
        codec=str(codec_folder),
        output_dir=str(tmp_path_factory.mktemp("latents") / "cache"),
        pairs=4,
        chunk_frames=FRAMES,
        hold_out_seconds=2.0,
        validation_pairs=1,
        accompaniment=True,
    )
    build_cache(config, quiet=True)
    return config


@torch.no_grad()
def test_the_cache_gives_the_loss_of_the_waves(cache, model):
    pair = separator.pairs_of(cache, model.codec)[1][0]
    held = CachedPairs(cache.output_dir, "condition", validation=True, accompaniment=True)
    whole, cached = base.TrainStep(model, [pair]), msgld.TrainStep(model, held)
    losses = []
    for step, item in ((whole, pair), (cached, held[0])):
        losses.append(step({key: value[None] for key, value in item.items()}, seeded_generator(0)).item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)


@pytest.mark.parametrize("cached", [True, False])
def test_train_command(cache, toy_root, tmp_path, monkeypatch, cached):
    plotted = []
    monkeypatch.setattr(base, "PREVIEW_STEPS", 2)
    settings = SIZES | {
        "system": "msgld",
        "codec": cache.codec,
        "output_dir": tmp_path / "run",
        "max_train_steps": 2,
    }
    settings |= {"latent_cache": cache.output_dir} if cached else {"data_root": toy_root, "pairs": 4}
    settings |= {"validation_pairs": 1, "hold_out_seconds": 2, "train_batch_size": 2}
    reset_accelerate()
    try:
        flags = [f"--{key}={value}" for key, value in settings.items()]
        train.main(flags, lambda path, waves, rate: plotted.append(waves))
    finally:
        reset_accelerate()
    assert msgld.MSGLD.from_pretrained(tmp_path / "run" / "model").config.codec == cache.codec
    config = read_yaml(tmp_path / "run" / "config.yaml")
    assert (config["data_root"], config["pairs"]) == (str(toy_root), 4), "also where a cache has them"
    assert {wave.shape for wave in plotted[-1].values()} == {(1, FRAMES * 320)}


def test_a_cache_of_other_pairs_is_refused(cache, tmp_path):
    config = msgld.TrainConfig(
        codec=cache.codec, latent_cache=cache.output_dir, **SIZES | {"chunk_samples": 64 * 320}
    )
    with pytest.raises(InputError, match="was made with another chunk_frames"):
        msgld.make_training(config, "cpu")
    (tmp_path / "cache.json").write_text("{}")
    with pytest.raises(InputError, match="holds no accompaniment; make a cache with accompaniment: true"):
        CachedPairs(tmp_path, "condition", accompaniment=True)
