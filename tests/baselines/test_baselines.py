"""Every baseline has its loss, learns, separates to the exact length, saves, loads, and refuses pickles."""

import json
import math
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import RATE, reset_accelerate, separate
from safetensors.torch import load_file

from dmxlib import audio, baselines, metrics, streaming, train
from dmxlib.baselines import base
from dmxlib.config import from_values, read_yaml
from dmxlib.data import load_tracks
from dmxlib.errors import InputError
from dmxlib.reproduce import seeded_generator
from dmxlib.weights import find

CONFIGS = Path(train.__file__).parent / "configs"
# What is smaller than any config that ships.
SMALL = {
    "hdemucs": {"width": 4, "chunk_samples": 16_384},
    "bsrnn": {"features": 8, "pairs_of_layers": 1, "hop": 512, "chunk_samples": 16_384},
    "msdm": {
        "patch": 16,
        "level_channels": [16, 16, 16],
        "blocks_per_level": 1,
        "attention_from": 2,
        "fourier_channels": 16,
        "time_channels": 16,
        "chunk_samples": 8192,
    },
    "instglow": {"blocks": 2, "hidden": 8, "chunk_samples": 8192},
}
TRAINED = list(SMALL)  # a system that has no size here brings a test of its own
# The parameters in millions that the papers give, and how near ours come; H-Demucs's own, see its docstring.
PAPER = {"hdemucs": (83.6, 0.01), "bsrnn": (36, 0.02), "msdm": (405, 0.01), "instglow": (15, 0.03)}


@pytest.fixture(params=TRAINED)
def name(request):
    return request.param


def make_model(name):
    torch.manual_seed(0)
    model = baselines.load(name)(**SMALL[name])
    model.initialize(*waves(model))
    return model


def waves(model):
    """(vocals, accompaniment), each (2, channels, chunk_samples): a tone in noise, and noise."""
    shape = (2, model.config.channels, model.config.chunk_samples)
    noise = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)) / 20
    time = torch.arange(shape[-1]) / model.config.sampling_rate
    return torch.sin(2 * math.pi * 440 * time) / 10 + noise[0], noise[1]


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


# -- by name -------------------------------------------------------------------------------------------------


def test_systems_are_loaded_by_name_alone():
    imports = re.compile(rf"^\s*(from|import) .*baselines.*({'|'.join(baselines.SYSTEMS)})", re.MULTILINE)
    sources = [*CONFIGS.parent.glob("*.py"), *CONFIGS.parent.glob("baselines/*.py")]
    assert len(sources) > 20 and not any(imports.search(path.read_text()) for path in sources)
    assert imports.search("from dmxlib.baselines import msdm") and imports.search(
        "import dmxlib.baselines.instglow"
    )
    for name, (module, system, *_) in baselines.SYSTEMS.items():
        loaded = baselines.load(name)
        assert (loaded.__module__, loaded.__name__) == (module, system) and train.TRAINABLE[name] == module
        assert issubclass(loaded, base.Baseline) and baselines.module(name).TrainConfig().system == name
    for unknown in ("demucs", "irm"):
        with pytest.raises(InputError, match=f"system '{unknown}' is unknown; choose instglow, msdm"):
            baselines.load(unknown)


@pytest.mark.parametrize(
    "file", sorted(path.stem for path in CONFIGS.glob("*_ms*.yaml") if "latents" not in path.stem)
)
def test_a_prior_can_carry_all_noise(file):
    """The first level is as wide as what it denoises: noise that it leaves out no training takes away."""
    values = read_yaml(CONFIGS / f"{file}.yaml")
    network = 2 * values["patch"] if values["system"] == "msdm" else values["latent_channels"] + 1
    assert values["level_channels"][0] >= network


@pytest.mark.parametrize("size", ["mini", "paper"])
def test_configs_build_their_systems(name, size):
    module = baselines.module(name)
    config = from_values(module.TrainConfig, read_yaml(CONFIGS / f"{size}_{name}.yaml"))
    assert config.system == name and config.output_dir == f"data/runs/{size}_{name}"
    with torch.device("meta"):  # shapes without numbers
        millions = count(base.new_model(baselines.load(name), config)) / 1e6
    if size == "paper":
        expected, tolerance = PAPER[name]
        assert millions == pytest.approx(expected, rel=tolerance)  # sizes: tests/test_configs.py
    else:
        assert 1.5 < millions < 10  # under 40 MB at half precision


def test_benchmark_configs_are_of_16_khz_mono(name):
    module = baselines.module(name)
    config = from_values(module.TrainConfig, read_yaml(CONFIGS / f"huang_{name}.yaml"))
    assert config.system == name and config.output_dir == f"data/runs/huang_{name}"
    assert config.data_root == "data/mir-1k-huang" and "levels" not in config.augmentations
    with torch.device("meta"):
        model = base.new_model(baselines.load(name), config)
    assert (model.config.sampling_rate, model.config.channels) == (16_000, 1)
    assert 2 < count(model) / 1e6 < 10


def test_a_model_of_16_khz_mono_separates(name, rng):
    mono = {"sampling_rate": 16_000} | ({"channels": 1} if name in ("bsrnn", "hdemucs") else {})
    model = baselines.load(name)(**SMALL[name], **mono).eval()
    mixture = 0.1 * np.repeat(rng.standard_normal((1, 30_000)), 2, axis=0).astype(np.float32)
    vocals = separate(model, mixture, 16_000, steps=1)
    assert vocals.shape == mixture.shape and np.isfinite(vocals).all()
    assert np.array_equal(vocals[0], vocals[1])


# -- losses and steps ----------------------------------------------------------------------------------------


def test_gradients_are_the_losses_own(name):
    """From a small step up the gradient to one down it the loss falls by their length times the gradient's,
    and every parameter has one, which DDP waits for."""
    model = make_model(name)
    pair = waves(model)
    loss = model.loss(*pair, seeded_generator(0))
    loss.backward()
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None for parameter in learning)
    assert sum(p.numel() for p in learning) > 0.99 * count(model)
    squared = sum(parameter.grad.square().sum() for parameter in learning)
    step, around = 3e-4 * loss.abs() / squared, []
    with torch.no_grad():
        for way in (step, -2 * step):
            for parameter in learning:
                parameter += way * parameter.grad
            around.append(model.loss(*pair, seeded_generator(0)))
    assert (around[0] - around[1]).item() == pytest.approx((2 * step * squared).item(), rel=0.2)


def test_bsrnn_loss_of_a_known_error():
    """L1 of real part, imaginary part and wave: of the truth nothing, of silence the vocals' own. A step
    takes one channel, now the left, now the right one."""
    model = make_model("bsrnn")
    vocals, accompaniment = waves(model)
    sums = []  # of L1 over each channel
    for channel in (0, 1):
        wave = vocals[:, channel]
        spectrum = torch.stft(wave, 2048, 512, window=torch.hann_window(2048), return_complex=True)
        sums.append(spectrum.real.abs().mean() + spectrum.imag.abs().mean() + wave.abs().mean())
    gain = torch.zeros(2)  # of all masks, real and imaginary
    for mask in model.masks:
        mask.register_forward_hook(lambda _, inputs, out: gain.repeat(out.shape[2] // 2).expand_as(out))
    silence = {
        round(model.loss(vocals, accompaniment, torch.Generator().manual_seed(k)).item(), 4) for k in range(8)
    }
    assert silence == {round(value.item(), 4) for value in sums}
    gain[0] = 1
    assert model.loss(vocals, torch.zeros_like(vocals), None).item() == pytest.approx(0, abs=1e-5)


def test_hdemucs_loss_knows_which_source_is_which():
    model = make_model("hdemucs")
    vocals, accompaniment = pair = waves(model)
    distance = (vocals - accompaniment).abs().mean().item()
    for order, expected in (((0, 1), 0), ((1, 0), distance)):
        estimate = torch.stack([pair[index] for index in order], dim=1)
        model.network.register_forward_hook(lambda *_, estimate=estimate: estimate)
        assert model.loss(vocals, accompaniment, None).item() == pytest.approx(expected, abs=1e-7)


def test_noise_comes_from_the_generator(name):
    model = make_model(name)
    pair = waves(model)
    with torch.no_grad():
        losses = [model.loss(*pair, seeded_generator(seed)).item() for seed in (0, 0, 1)]
    assert losses[0] == losses[1]
    assert (losses[0] != losses[2]) == (name != "hdemucs")  # BS-RNN draws a channel


# -- separation ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("samples, rate", [(30_000, 44_100), (23_456, 48_000), (100, 16_000)])
def test_separates_to_the_exact_length(name, rng, samples, rate):
    mixture = rng.standard_normal((2, samples)).astype(np.float32) / 10
    model = make_model(name).eval()
    vocals = separate(model, mixture, rate, steps=2)
    assert vocals.shape == mixture.shape and vocals.dtype == np.float32 and np.isfinite(vocals).all()
    assert vocals.std() > 0


def test_seed_and_steps(name, rng):
    mixture = rng.standard_normal((2, 9000)).astype(np.float32) / 10
    model = make_model(name).eval()
    first, again, other, more = (
        separate(model, mixture, 22_050, steps=steps, seed=seed)
        for steps, seed in ((2, 0), (2, 0), (2, 1), (3, 0))
    )
    assert np.array_equal(first, again)
    assert np.array_equal(first, other) == (name != "msdm")
    assert np.array_equal(first, more) == (model.num_inference_steps == 1)
    assert model.num_inference_steps == (150 if name in ("msdm", "instglow") else 1)


@pytest.mark.parametrize("name", sorted(set(TRAINED) - {"msdm"}))  # whose noise is drawn for them all
def test_chunks_that_are_computed_at_once_do_not_change_each_other(name, rng):
    model = make_model(name).eval()
    samples = 3 * model.config.chunk_samples
    mixture = (rng.standard_normal((2, samples)) * np.linspace(0, 0.3, samples)).astype(np.float32)
    model.batch_size = 1
    alone = separate(model, mixture, model.config.sampling_rate, steps=3)
    model.batch_size = 3
    together = separate(model, mixture, model.config.sampling_rate, steps=3)
    np.testing.assert_allclose(alone, together, atol=1e-4 * np.abs(alone).max())


def test_separates_in_bf16(name, rng):
    mixture = rng.standard_normal((2, 20_000)).astype(np.float32) / 10
    model = make_model(name).eval()
    with torch.autocast("cpu", torch.bfloat16):
        half = separate(model, mixture, RATE, steps=2)
    whole = separate(model, mixture, RATE, steps=2)
    assert half.dtype == np.float32 and 0 < np.square(half - whole).mean() < 0.01 * np.square(whole).mean()


@pytest.mark.parametrize("name", ["bsrnn", "hdemucs"])
def test_bfloat16_is_taken_where_there_is_some_and_changes_little(name, toy_root, monkeypatch):
    mixture = load_tracks(toy_root, "test")[0].mixture(0, 2 * RATE)
    model = baselines.load(name).from_pretrained(find(f"{name}-mini", "config.json"))
    whole = separate(model, mixture, RATE)
    monkeypatch.setattr(streaming, "BFLOAT16", True)  # any processor can, some take longer
    half = separate(model, mixture, RATE)
    assert 0 < np.square(half - whole).mean() < 1e-4 * np.square(whole).mean()


@pytest.mark.parametrize("level", [0, 1e-6])
def test_silence_gives_numbers(name, level, rng):
    mixture = (level * rng.standard_normal((2, 10_000))).astype(np.float32)
    assert np.isfinite(separate(make_model(name).eval(), mixture, 44_100, steps=3)).all()


def test_unusable_mixtures_are_refused(name):
    model = make_model(name)
    silence = np.zeros((2, 100), np.float32)
    for mixture in (silence[:, :0], silence[None], silence + np.nan):
        with pytest.raises(InputError, match="mixture is empty, not"):
            separate(model, mixture, RATE)
    with pytest.raises(InputError, match="the number of steps is 0"):
        separate(model, silence, RATE, steps=0)


# -- what each one is ----------------------------------------------------------------------------------------


def test_hdemucs_extracts_the_source_named_vocals():
    model = make_model("hdemucs").eval()
    mixture = sum(waves(model))
    with torch.no_grad():
        both = model.network(mixture)
        assert torch.equal(model.extract(mixture, 1, None), both[:, 0])
        swapped = baselines.load("hdemucs")(**SMALL["hdemucs"], sources=["accompaniment", "vocals"])
        swapped.network.load_state_dict(model.network.state_dict())
        assert torch.equal(swapped.eval().extract(mixture, 1, None), both[:, 1])


def test_official_hdemucs(monkeypatch, rng):
    module = baselines.module("hdemucs")
    small = module.models.HDemucs
    monkeypatch.setattr(
        module.models, "HDemucs", lambda sources, channels, width, nfft: small(sources, channels, 4)
    )
    official = small(["drums", "bass", "other", "vocals"], 2, 4)

    class Bundle:
        get_model = staticmethod(lambda: official)

    monkeypatch.setattr(module.pipelines, "HDEMUCS_HIGH_MUSDB", Bundle)
    monkeypatch.setattr(module.TrainConfig, "chunk_samples", 44_100)
    model = module.HDemucs.from_pretrained("torchaudio:HDEMUCS_HIGH_MUSDB")
    assert list(model.config.sources) == official.sources and not model.training
    state = model.network.state_dict()
    assert all(torch.equal(state[key], value) for key, value in official.state_dict().items())
    # a song of one chunk is separated as torchaudio does it
    song = rng.standard_normal((2, model.config.chunk_samples)).astype(np.float32) / 10
    with torch.no_grad():
        theirs = official.eval()(torch.from_numpy(song)[None])[0, official.sources.index("vocals")]
    np.testing.assert_allclose(separate(model, song, 44_100), theirs, atol=1e-6)

    def offline():
        raise OSError("no connection")

    monkeypatch.setattr(Bundle, "get_model", staticmethod(offline))
    with pytest.raises(InputError, match=r"\Athe official weights of H-Demucs [^\n]*\Z"):
        module.HDemucs.from_pretrained("torchaudio:HDEMUCS_HIGH_MUSDB")


def test_bsrnn_bands():
    widths = baselines.module("bsrnn").band_widths(44_100, 2048)
    assert len(widths) == 41 and sum(widths) == 1025  # as the paper counts V7's
    edges = np.cumsum(widths) * 44_100 / 2048
    assert edges[[9, 21, 29, 37, 39]] == pytest.approx([1000, 4000, 8000, 16_000, 20_000], abs=11)
    assert sum(baselines.module("bsrnn").band_widths(16_000, 512)) == 257


@pytest.mark.parametrize("rate, window", [(44_100, 2048), (16_000, 512)])
def test_bsrnn_bands_cover_every_bin_once(rate, window):
    """On the way in, and on the way out: a mask that is its band's number stands on that band's bins."""
    model = baselines.load("bsrnn")(**SMALL["bsrnn"], sampling_rate=rate, window=window)
    read, masks = [], []
    for band, (split, width) in enumerate(zip(model.split, model.widths, strict=True)):
        split.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0][0, 0].unflatten(0, (-1, 2))))
        masks.append(lambda x, number=band + 1.0, width=width: x.new_full((*x.shape[:2], 2 * width), number))
    del model.masks
    model.masks = masks
    bins = torch.arange(window // 2 + 1) + 1.0
    spectrum = torch.complex(bins, -bins)[None, :, None].expand(1, -1, 3)
    filtered = model.filter(spectrum)
    assert torch.equal(torch.view_as_complex(torch.cat(read)), spectrum[0, :, 0])
    numbers = torch.repeat_interleave(torch.arange(len(model.widths)) + 1.0, torch.tensor(model.widths))
    assert torch.allclose(filtered, spectrum * (numbers * (1 + 1j))[None, :, None])


def test_bsrnn_masks_each_channel_alone(rng):
    model = make_model("bsrnn").eval()
    wave = torch.from_numpy(rng.standard_normal((1, 2, 16_384)).astype(np.float32))
    with torch.no_grad():
        both = model.extract(wave, 1, None)
        flipped = model.extract(wave.flip(1), 1, None)
        louder = model.extract(10 * wave, 1, None)
    assert torch.allclose(both, flipped.flip(1), atol=1e-5)
    assert torch.allclose(10 * both, louder, atol=1e-3)  # the norms take the level away, the mask does not


def test_bsrnn_hears_two_excerpts_at_once(rng):
    model = make_model("bsrnn").eval()
    wave = rng.standard_normal((2, 2 * model.config.chunk_samples)).astype(np.float32)
    heard = []
    model.split[0].register_forward_pre_hook(lambda _, inputs: heard.append(inputs[0].shape[1]))
    vocals = separate(model, np.concatenate([wave, wave], axis=1), model.sampling_rate)
    with torch.no_grad():
        first = model.extract(torch.from_numpy(wave)[None], 1, None)[0].numpy()
    assert set(heard) == {2 * model.config.chunk_samples // model.config.hop + 1}
    alone = wave.shape[1] - int(audio.OVERLAP * wave.shape[1])  # what no second chunk is cross-faded over
    assert np.allclose(vocals[:, :alone], first[:, :alone], atol=1e-6)


def test_bsrnn_hears_a_mono_recording_once(rng):
    model = make_model("bsrnn").eval()
    wave = torch.from_numpy(rng.standard_normal((2, 1, 16_384)).astype(np.float32))
    stereo = torch.cat([wave, wave.flip(2)], dim=1)
    heard = []
    model.split[0].register_forward_pre_hook(lambda _, inputs: heard.append(len(inputs[0])))
    with torch.no_grad():
        once, both = (model.extract(mixture, 1, None) for mixture in (wave.expand(-1, 2, -1), stereo))
    assert heard == [2, 4] and once.shape == both.shape
    assert torch.allclose(once, both[:, :1], atol=1e-6)


def test_msdm_samples_the_posterior_of_two_gaussians():
    """With the true denoiser of independent normal sources the posterior is known: mean and deviation."""
    variances = torch.tensor([0.09, 0.03])[None, :, None]

    class Normal(baselines.load("msdm")):
        def denoise(self, sources, sigma):
            return sources * variances / (variances + sigma[:, None, None] ** 2)

    model = Normal(**SMALL["msdm"])
    mixture = torch.full((1, 1, 20_000), 0.5)
    vocals = model.extract(mixture, 150, torch.Generator().manual_seed(0))
    assert vocals.mean().item() == pytest.approx(0.5 * 0.09 / 0.12, abs=0.03)
    assert vocals.std().item() == pytest.approx((0.09 * 0.03 / 0.12) ** 0.5, rel=0.15)


def test_msdm_refuses_a_length_it_cannot_halve():
    with pytest.raises(InputError, match="chunk_samples is 8010; choose a multiple of 32"):
        baselines.load("msdm")(**SMALL["msdm"] | {"chunk_samples": 8010})


def test_msdm_loss_is_one_for_a_denoiser_that_knows_nothing():
    model = make_model("msdm")
    for parameter in model.network.out_block.parameters():
        torch.nn.init.zeros_(parameter)  # then D(x) = c_skip x, the best linear guess, of weighted error 1
    shape = (64, 1, model.config.chunk_samples)
    pair = [0.2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    with torch.no_grad():
        assert model.loss(*pair, seeded_generator(0)).item() == pytest.approx(1, rel=0.02)


def perturbed_flow():
    module = baselines.module("instglow")
    torch.manual_seed(0)
    flow = module.Glow(bins=8, blocks=2, hidden=4)
    flow.initialize(torch.rand(4, 8, 16))
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    return module, flow.double()


def test_glow_is_invertible_and_its_likelihood_exact():
    module, flow = perturbed_flow()
    x = torch.rand(1, 8, 4, dtype=torch.double)

    def latents(flat):
        z = module.squeeze(flat.view(1, 8, 4))
        for block in flow.blocks:
            z, _ = block(z)
        return z.flatten()

    z = latents(x.flatten())
    assert torch.allclose(flow.inverse(z.view(1, 16, 2)), x, atol=1e-9)
    jacobian = torch.autograd.functional.jacobian(latents, x.flatten())
    volume = torch.linalg.slogdet(jacobian).logabsdet
    log_density = torch.distributions.Normal(0, 1).log_prob(z).sum() + volume
    assert flow(x).item() == pytest.approx(-log_density.item() / x.numel(), abs=1e-6)


def test_instglow_starts_whitened():
    model = make_model("instglow")
    vocals, accompaniment = (torch.randn(2, 4, 1, 8192, generator=torch.Generator().manual_seed(0))).unbind()
    model.initialize(vocals, accompaniment)
    spectrum = model.magnitude(vocals, seeded_generator(0))
    z, _ = model.flows[0].blocks[0](baselines.module("instglow").squeeze(spectrum))
    assert z.mean().abs() < 0.05 and z.std().item() == pytest.approx(1, abs=0.1)


def test_instglow_explains_the_mixture_as_it_iterates():
    """Where the vocals' flow says low and the accompaniment's high frequencies, it tells them apart."""
    model = make_model("instglow")
    time = torch.arange(8192) / 22_050
    low, high = (0.3 * torch.sin(2 * math.pi * f * time)[None, None] for f in (440, 6000))
    model.initialize(low.expand(2, -1, -1), high.expand(2, -1, -1))
    vocals = model.extract(low + high, 60, None)
    assert metrics.sdr(low[0].numpy(), vocals[0].numpy()) > 10


# -- what ships ----------------------------------------------------------------------------------------------

SHIPPED = [name for name in baselines.SYSTEMS if find(f"{name}-mini", "config.json")]


@pytest.mark.parametrize("name", SHIPPED)
def test_what_ships_was_trained(name, toy_root):
    """It hears more of the voice in a synthetic song than the song itself holds (MSDM, which takes many steps
    to, tells the song's sources from noise), in under 40 MB."""
    folder, track = find(f"{name}-mini", "config.json"), load_tracks(toy_root, "test")[0]
    model = baselines.load(name).from_pretrained(folder)
    if name == "msdm":
        pair = (track.vocals(), track.mixture() - track.vocals())
        pair = [torch.from_numpy(wave.mean(axis=0))[None, None, : 2 * 65_536 : 2] for wave in pair]
        with torch.no_grad():
            assert model.loss(*pair, seeded_generator(0)) < 0.7  # 1 is that of one that knows nothing
    else:
        estimate = separate(model, track.mixture(), track.rate, steps=10)
        before, after = (metrics.si_sdr(track.vocals(), wave) for wave in (track.mixture(), estimate))
        assert after > before
    assert sum(path.stat().st_size for path in folder.iterdir()) < 40e6


# -- folders -------------------------------------------------------------------------------------------------


def test_saves_and_loads(name, tmp_path, rng):
    model = make_model(name).eval()
    model.save_pretrained(tmp_path / "model")
    assert {path.suffix for path in (tmp_path / "model").iterdir()} == {".json", ".safetensors"}
    loaded = baselines.load(name).from_pretrained(tmp_path / "model")
    mixture = rng.standard_normal((2, 5000)).astype(np.float32) / 10
    assert not loaded.training and loaded.config.chunk_samples == SMALL[name]["chunk_samples"]
    before, after = (separate(system, mixture, RATE, steps=2) for system in (model, loaded))
    assert np.array_equal(before, after)


def test_the_target_is_saved_and_gone_on_with(name, tmp_path):
    module = baselines.module(name)
    config = module.TrainConfig(**SMALL[name], target="drums")
    base.new_model(baselines.load(name), config).save_pretrained(tmp_path)
    assert baselines.from_pretrained(tmp_path).target == "drums"
    later = module.TrainConfig(pretrained_model_name_or_path=str(tmp_path))
    base.make_model(baselines.load(name), later)
    assert later.target == "drums"
    # a folder of before there were targets takes out vocals
    file = tmp_path / "config.json"
    file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != "target"}))
    assert baselines.from_pretrained(tmp_path).target == "vocals"


def test_folders_of_before_the_classes_had_names_load(name, tmp_path):
    make_model(name).save_pretrained(tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    assert f'"_class_name": "{baselines.SYSTEMS[name].model}"' in file.read_text()
    file.write_text(file.read_text().replace(baselines.SYSTEMS[name].model, "Model"))
    assert type(baselines.load(name).from_pretrained(tmp_path / "model")) is baselines.load(name)


def test_half_precision_weights_work_in_float32(name, tmp_path):
    make_model(name).half().save_pretrained(tmp_path / "model")
    loaded = baselines.load(name).from_pretrained(tmp_path / "model")
    assert all(parameter.dtype == torch.float32 for parameter in loaded.parameters())


def test_refused_folders(name, tmp_path, evil):
    model_class = baselines.load(name)
    for missing in (tmp_path / "none", None):
        with pytest.raises(InputError, match="is no folder with config.json"):
            model_class.from_pretrained(missing)
    file = tmp_path / "model.pt"
    file.write_bytes(pickle.dumps(evil))
    with pytest.raises(InputError, match="pickles are not opened"):
        model_class.from_pretrained(file)
    folder = tmp_path / "model"
    make_model(name).save_pretrained(folder)
    weights = folder / "diffusion_pytorch_model.safetensors"
    weights.unlink()
    torch.save({"weight": evil}, folder / "diffusion_pytorch_model.bin")
    with pytest.raises(InputError, match=r"\A[^\n]*cannot be loaded[^\n]*\Z"):
        model_class.from_pretrained(folder)
    torch.save({"weight": evil}, weights)
    with pytest.raises(InputError, match="cannot be loaded"):
        model_class.from_pretrained(folder)
    assert not evil.marker.exists()


def test_weights_of_another_system_are_refused(tmp_path):
    make_model("bsrnn").save_pretrained(tmp_path)
    for other in set(TRAINED) - {"bsrnn"}:
        with pytest.raises(InputError, match="cannot be loaded"):
            baselines.load(other).from_pretrained(tmp_path)


# -- the one training loop -----------------------------------------------------------------------------------


@pytest.fixture
def flags(toy_root, tmp_path):
    def make(name, **settings):
        shared = {"system": name, "data_root": toy_root, "output_dir": tmp_path / "run"}
        shared |= {"pairs": 4, "validation_pairs": 1, "train_batch_size": 2, "hold_out_seconds": 2}
        return [f"--{key}={value}" for key, value in (shared | SMALL[name] | settings).items()]

    return make


def run(flags, drawn):
    """The command; what its pictures would be of goes to the list."""
    reset_accelerate()
    try:
        train.main(flags, lambda *picture: drawn.append(picture))
    finally:
        reset_accelerate()


def test_train_command(name, flags, tmp_path, toy_root, monkeypatch):
    drawn = []
    monkeypatch.setattr(base, "PREVIEW_STEPS", 2)
    run(flags(name, max_train_steps=2, checkpointing_steps=1, lr_warmup_steps=0), drawn)
    folder = tmp_path / "run"
    config = read_yaml(folder / "config.yaml")
    assert config["system"] == name == train.chosen(["--config", str(folder / "config.yaml")])
    first, second = (load_file(folder / f"checkpoint-{step}" / "model.safetensors") for step in (1, 2))
    changed = [not torch.equal(first[key], second[key]) for key in first]
    assert sum(changed) > 0.5 * len(changed)  # H-Demucs's inner branches start at 1e-4
    # the picture is at the system's own rate and length
    model = baselines.load(name).from_pretrained(folder / "model")
    _, waves, rate = drawn[-1]
    shape = (model.config.channels, model.config.chunk_samples)
    assert rate == model.config.sampling_rate and {wave.shape for wave in waves.values()} == {shape}
    # and what was trained separates a song
    (track,) = load_tracks(toy_root, "test")
    assert separate(model, track.mixture(0, 20_000), track.rate, steps=1).shape == (2, 20_000)
    # a run that goes on
    run([*flags(name, max_train_steps=3), "--resume_from_checkpoint=latest"], drawn)
    assert (folder / "checkpoint-3").is_dir()


def test_validation_is_repeatable(name, toy_root, monkeypatch):
    module = baselines.module(name)
    settings = {"data_root": str(toy_root), "hold_out_seconds": 2.0, "pairs": 2, "validation_pairs": 2}
    step, _ = module.make_training(module.TrainConfig(**settings, **SMALL[name]), "cpu")
    monkeypatch.setattr(base, "PREVIEW_STEPS", 1)
    with torch.no_grad():
        figures = [step.eval().validate()[0] for _ in range(2)]
    assert figures[0] == figures[1] and math.isfinite(figures[0]["loss"])


def test_the_config_has_the_sizes_of_the_weights_it_goes_on_from(name, toy_root, tmp_path):
    module = baselines.module(name)
    baselines.load(name)(**SMALL[name]).save_pretrained(tmp_path)
    settings = {"data_root": str(toy_root), "hold_out_seconds": 2.0, "pairs": 2, "validation_pairs": 1}
    config = module.TrainConfig(pretrained_model_name_or_path=str(tmp_path), **settings)
    asked = vars(config).copy()
    step, _ = module.make_training(config, "cpu")
    saved = json.loads((tmp_path / "config.json").read_text())
    sizes = saved.keys() & asked.keys()
    assert "chunk_samples" in sizes and all(vars(config)[key] == saved[key] for key in sizes)
    assert all(vars(config)[key] == asked[key] for key in asked.keys() - sizes)


@pytest.mark.parametrize("argument", ["--system=demucs", "--system=irm"])
def test_train_command_refuses_other_systems(argument, tmp_path):
    with pytest.raises(SystemExit, match="^error: system '(demucs|irm)' is unknown; choose ldm-dmx, ldm"):
        run([argument, f"--output_dir={tmp_path / 'run'}"], [])
    assert not (tmp_path / "run").exists()


def test_the_system_is_known_before_its_keys(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("system: msdm\nwidth: 3\n")
    assert train.chosen([]) == "ldm-dmx"
    assert train.chosen(["--config", str(file), "--width=4"]) == "msdm"
    assert train.chosen(["--config", str(file), "--system", "bsrnn"]) == "bsrnn"
