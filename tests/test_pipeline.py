"""Audio of any rate and length comes back as vocals; what cannot be loaded is refused unopened."""

import json
import pickle
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from safetensors.torch import load_file
from torch._subclasses.fake_tensor import FakeTensorMode

from dmxlib import streaming, weights
from dmxlib.codec import Codec
from dmxlib.diffusion import make_scheduler
from dmxlib.errors import InputError
from dmxlib.level import encode_pair
from dmxlib.pipeline import VocalSeparationPipeline
from dmxlib.training.separator import TrainConfig, new_pipeline
from dmxlib.unet import VocalUNet1D

CHUNK = 320 * 64 / 24_000  # s


def noise(seconds, rate, channels=2, seed=0):
    return 0.1 * np.random.default_rng(seed).standard_normal((channels, round(seconds * rate)), np.float32)


def separate(model, wave, rate=24_000, seed=0, **settings):
    settings = {"num_inference_steps": 2, "generator": torch.Generator().manual_seed(seed)} | settings
    return model(wave, rate, **settings).vocals


class Echo(VocalSeparationPipeline):
    """Gives every chunk back, and keeps it in `heard`."""

    def generate(self, mixture, *_):
        self.heard += mixture
        return mixture


@pytest.fixture
def echo(tiny_pipeline):
    echo = Echo(**tiny_pipeline.components, chunk_frames=64)
    echo.heard = []
    return echo


# -- any length, any rate -----------------------------------------------------------------------------------


@pytest.mark.parametrize("refine", [None, "wiener"])
@pytest.mark.parametrize("rate", [44_100, 48_000, 22_050])
@pytest.mark.parametrize("chunks", [0.3, 1, 1.8, 2.37])  # 1 + 0.8 is exactly two chunks
def test_output_has_the_inputs_rate_and_length(tiny_pipeline, rate, chunks, refine):
    wave = noise(chunks * CHUNK, rate)
    vocals = separate(tiny_pipeline, wave, rate, refine=refine, num_inference_steps=1)
    assert vocals.shape == wave.shape and vocals.dtype == np.float32
    # a level is clamped at twice the mixture's; a mask takes away alone
    assert 0 < np.square(vocals).mean() < (1 if refine else 4) * np.square(wave).mean()


@pytest.mark.parametrize(("samples", "count"), [(1, 1), (20_480, 1), (20_481, 2), (36_864, 2), (36_865, 3)])
def test_every_chunk_has_the_length_of_training(echo, samples, count):
    wave = noise(samples / 24_000, 24_000)
    vocals = separate(echo, wave)
    assert [tuple(chunk.shape) for chunk in echo.heard] == [(1, 20_480)] * count
    mid = torch.from_numpy(wave.mean(axis=0))
    for index, chunk in enumerate(echo.heard):  # 20 % overlap; the last one is padded
        excerpt = mid[index * 16_384 :][:20_480]
        assert torch.equal(chunk[0, : len(excerpt)], excerpt) and not chunk[0, len(excerpt) :].any()
    assert np.allclose(vocals, wave.mean(axis=0), atol=1e-6)


@pytest.mark.parametrize("rate", [16_000, 24_001, 44_100])
def test_a_chunk_of_another_rate_has_that_length_too(echo, rate):
    """Resampled, it may be a sample longer."""
    separate(echo, noise(1.5 * CHUNK, rate), rate)
    assert {tuple(chunk.shape) for chunk in echo.heard} == {(1, 20_480)}


@pytest.mark.parametrize("overlap", [0, 0.1, 0.5])
def test_any_overlap_gives_unchanged_chunks_back(echo, overlap):
    wave = noise(3.3 * CHUNK, 24_001)  # an odd rate, for which half a chunk is no whole number
    vocals = separate(echo, wave, 24_001, overlap=overlap)
    smooth = noise(3.3 * CHUNK, 24_000)
    assert vocals.shape == wave.shape
    assert np.allclose(separate(echo, smooth, overlap=overlap), smooth.mean(axis=0), atol=1e-6)


@pytest.mark.parametrize("rate", [16_000, 22_050, 24_000, 44_100, 48_000])
def test_a_tone_keeps_its_pitch(echo, rate):
    tone = np.sin(2 * np.pi * 440 * np.arange(3 * rate) / rate).astype(np.float32)
    vocals = separate(echo, tone, rate)

    def hertz(wave, rate):
        spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave)), 16 * len(wave)))
        return spectrum.argmax() * rate / (16 * len(wave))

    assert hertz(vocals[0], rate) == pytest.approx(440, abs=1)
    assert all(hertz(wave[0].numpy(), 24_000) == pytest.approx(440, abs=1) for wave in echo.heard[:2])
    inner = slice(rate // 10, -rate // 10)
    assert np.allclose(vocals[0][inner], tone[inner], atol=0.01)


def test_mono_and_blocks_are_the_same_as_one_stereo_array(tiny_pipeline):
    wave = noise(2 * CHUNK, 24_000, channels=1)
    whole = separate(tiny_pipeline, np.repeat(wave, 2, axis=0))
    assert np.array_equal(separate(tiny_pipeline, wave), whole)
    assert np.array_equal(separate(tiny_pipeline, wave[0]), whole)
    blocks = np.array_split(wave, 7, axis=1)
    settings = dict(num_inference_steps=2, generator=torch.Generator().manual_seed(0))
    mixtures, streamed = zip(*tiny_pipeline.stream(blocks, 24_000, **settings), strict=True)
    assert np.array_equal(np.concatenate(streamed, axis=1), whole)
    # cross-faded, and yet exact
    assert np.array_equal(np.concatenate(mixtures, axis=1), np.repeat(wave, 2, axis=0))


# -- channels -----------------------------------------------------------------------------------------------


def test_mono_codec_gives_both_channels_alike_and_refined_the_image(tiny_pipeline):
    wave = noise(1.5 * CHUNK, 44_100, channels=1) * np.array([[1], [0.25]], np.float32)
    raw = separate(tiny_pipeline, wave, 44_100)
    assert np.array_equal(raw[0], raw[1])
    refined = separate(tiny_pipeline, wave, 44_100, refine="wiener")
    assert np.allclose(refined[1], 0.25 * refined[0], atol=1e-6)
    assert 0 < refined.std() < wave.std()


@pytest.mark.parametrize("refine", [None, "wiener"])
def test_silence_stays_silent(tiny_pipeline, refine):
    wave = noise(3 * CHUNK, 24_000)
    wave[:, : round(1.5 * CHUNK * 24_000)] = 0
    vocals = separate(tiny_pipeline, wave, refine=refine)
    assert np.abs(vocals[:, : round(0.8 * CHUNK * 24_000)]).max() < 1e-6
    assert np.isfinite(vocals).all() and vocals.std() > 1e-4


# -- noise --------------------------------------------------------------------------------------------------


def test_a_seed_fixes_the_output(tiny_pipeline):
    wave = noise(2 * CHUNK, 24_000)
    first, again, other = (separate(tiny_pipeline, wave, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert np.abs(first - other).max() > 0.01


def test_without_a_generator_the_global_seed_rules(tiny_pipeline):
    wave = noise(CHUNK, 24_000)
    drawn = []
    for _ in range(2):
        torch.manual_seed(5)
        drawn += [separate(tiny_pipeline, wave, generator=None) for _ in range(2)]
    assert np.array_equal(drawn[0], drawn[2]) and not np.array_equal(drawn[0], drawn[1])


def test_batch_size_does_not_change_the_result(tiny_pipeline):
    wave = noise(4.5 * CHUNK, 24_000)
    alone, pairs, all_at_once = (
        separate(tiny_pipeline, wave, batch_size=size, num_inference_steps=4) for size in (1, 2, 99)
    )
    assert np.allclose(alone, pairs, atol=1e-5) and np.allclose(alone, all_at_once, atol=1e-5)


def test_chunks_are_drawn_from_different_noise(tiny_pipeline):
    chunk = noise(0.8 * CHUNK, 24_000)
    vocals = separate(tiny_pipeline, np.tile(chunk, 3), overlap=0.2)
    hop = chunk.shape[1]
    assert not np.allclose(vocals[:, 4000:12_000], vocals[:, hop + 4000 : hop + 12_000], atol=1e-3)


@torch.no_grad()
def test_the_sampled_latents_are_what_is_decoded(tiny_pipeline):
    wave = noise(CHUNK, 24_000)
    mid = torch.from_numpy(wave.mean(axis=0))[None, None]
    sampled = tiny_pipeline.sample(tiny_pipeline.conditioner(mid), 2, torch.Generator().manual_seed(0))
    assert sampled.shape == (1, 17, 64)
    assert np.allclose(
        separate(tiny_pipeline, wave), tiny_pipeline.decode(sampled, mid)[0].numpy(), atol=1e-6
    )


@torch.no_grad()
def test_the_decoder_alone_multiplies_in_bfloat16(tiny_pipeline, monkeypatch):
    monkeypatch.setattr(streaming, "BFLOAT16", True)  # any processor can, some take longer
    mixture = torch.from_numpy(noise(CHUNK, 24_000, channels=1)[None])
    half = tiny_pipeline.generate(mixture, 2, torch.Generator().manual_seed(0))
    condition = tiny_pipeline.conditioner(mixture)
    latents = tiny_pipeline.sample(condition, 2, torch.Generator().manual_seed(0))
    with streaming.bfloat16("cpu"):
        assert torch.equal(half, tiny_pipeline.decode(latents, mixture))
    whole = tiny_pipeline.decode(latents, mixture)
    assert 0 < (half - whole).square().mean() < 1e-3 * whole.square().mean()


@torch.no_grad()
def test_true_latents_decode_at_the_vocals_level(tiny_pipeline, rng):
    swell = np.geomspace(0.01, 0.3, 20_480) * rng.standard_normal(20_480)
    vocals = torch.from_numpy(swell.astype(np.float32))[None, None]
    mixture = vocals + 0.1 * torch.randn(vocals.shape, generator=torch.Generator().manual_seed(0))
    latents = encode_pair(tiny_pipeline.codec, vocals, mixture)
    assert latents.shape == (1, 17, 64)
    ratio = tiny_pipeline.decode(latents, mixture).square().mean() / vocals.square().mean()
    assert abs(10 * ratio.log10()) < 1


@pytest.mark.parametrize("steps", [1, 4])
def test_the_number_of_steps_is_saved_and_taken(tiny_pipeline, tmp_path, steps):
    model = VocalSeparationPipeline(**tiny_pipeline.components, chunk_frames=64, num_inference_steps=steps)
    model.save_pretrained(tmp_path)
    wave, loaded = noise(CHUNK, 24_000), load(tmp_path)
    assert loaded.num_inference_steps == steps
    own = separate(loaded, wave, num_inference_steps=None)
    assert np.allclose(own, separate(tiny_pipeline, wave, num_inference_steps=steps), atol=1e-6)
    assert not np.allclose(own, separate(tiny_pipeline, wave, num_inference_steps=2), atol=1e-4)


def test_the_temperature_is_saved_and_scales_the_noise(tiny_pipeline, tmp_path):
    wave, started = noise(CHUNK, 24_000), {}
    for temperature in (1.0, 0.25, 0.0):
        model = VocalSeparationPipeline(**tiny_pipeline.components, chunk_frames=64, temperature=temperature)
        model.save_pretrained(tmp_path / str(temperature))
        model, inputs = load(tmp_path / str(temperature)), []
        model.unet.register_forward_pre_hook(lambda _, values, inputs=inputs: inputs.append(values[0]))
        separate(model, wave, num_inference_steps=2)
        started[temperature] = inputs[0]
    assert torch.equal(0.25 * started[1.0], started[0.25]) and started[1.0].std() > 0.9
    assert not started[0.0].any()


@pytest.mark.parametrize("rule", ["averaged", "drawn"])
def test_level_rule_of_an_older_folder(copy, tiny_pipeline, rule):
    index = copy / "model_index.json"
    older = json.loads(index.read_text()) | {"level_rule": rule}
    del older["num_inference_steps"]
    index.write_text(json.dumps(older))
    if rule == "drawn":
        assert "train it anew" in refused(copy)
    else:
        loaded, wave = load(copy), noise(CHUNK, 24_000)
        assert "level_rule" not in loaded.config and loaded.num_inference_steps == 1
        assert np.allclose(separate(loaded, wave), separate(tiny_pipeline, wave), atol=1e-6)


@torch.no_grad()
def test_the_level_channel_can_be_left_out(tiny_codec, tmp_path):
    config = TrainConfig(
        level_channel=False, interpolation="linear", level_channels=[16] * 3, chunk_frames=64,
        attention_from=2, fourier_channels=16, time_channels=16, num_inference_steps=2,
    )  # fmt: skip
    model = new_pipeline(tiny_codec, config)
    assert model.unet.config.latent_channels == tiny_codec.dimension == 16
    assert model.unet.config.interpolation == "linear" and model.num_inference_steps == 2
    model.save_pretrained(tmp_path)
    wave, loaded = noise(1.5 * CHUNK, 24_000), load(tmp_path)
    vocals = separate(loaded, wave)
    assert vocals.shape == wave.shape and np.allclose(vocals, separate(model, wave), atol=1e-6)
    pair = torch.from_numpy(noise(CHUNK, 24_000))[:, None]
    assert torch.equal(loaded.encode(pair, pair), tiny_codec.encode(pair))


# -- devices ------------------------------------------------------------------------------------------------


class OneStep(DDIMScheduler):
    """A single step, whose index is no tensor: the tensors below hold no numbers."""

    timesteps = None

    def set_timesteps(self, steps, device):
        assert (steps, device.type) == (1, "cuda")
        self.timesteps = [999]

    def step(self, v, timestep, sample):
        return SimpleNamespace(prev_sample=-v)


@pytest.mark.parametrize("extra_channels", [0, 1])
def test_all_tensors_are_on_the_models_device(monkeypatch, extra_channels):
    """Of shapes and devices alone, so that no GPU is needed."""
    scheduler = OneStep.from_config(make_scheduler().config)
    monkeypatch.setattr(torch, "randint", lambda *_, **__: SimpleNamespace(tolist=lambda: [0, 1]))
    with FakeTensorMode():
        with torch.device("cuda"):
            seanet = dict(channels=1, dimension=16, n_filters=4, ratios=[5, 4, 4, 4], norm="time_group_norm")
            codec = Codec(sampling_rate=24_000, seanet=seanet | {"lstm": 0}).eval()
            sizes = dict(blocks_per_level=1, first_injection=1, attention_from=2)
            sizes |= dict(fourier_channels=16, time_channels=16, mask_channels=8)
            unet = VocalUNet1D(16 + extra_channels, 16, (16, 16, 16), **sizes)
            model = VocalSeparationPipeline(codec, codec.conditioner(), unet, scheduler, chunk_frames=64)
        vocals = model.generate(torch.zeros(2, 1, model.chunk_samples, device=model.device), 1)
    assert model.device.type == vocals.device.type == "cuda" and vocals.shape == (2, 1, 20_480)


# -- what cannot be used ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [{"num_inference_steps": steps} for steps in (3, 0, -10, 1001)]
    + [{"overlap": overlap} for overlap in (-0.1, 0.51, float("nan"))]
    + [{"refine": "sharpen"}, {"batch_size": 0}],
)
def test_settings_out_of_range_are_refused_at_once(tiny_pipeline, settings):
    with pytest.raises(InputError, match="choose"):
        tiny_pipeline.stream(iter(()), 24_000, **settings)


@pytest.mark.parametrize(
    "wave", [np.zeros((2, 0)), [], [0.1, float("nan")], [[np.inf, 0]], np.zeros((1, 2, 9))]
)
def test_audio_that_is_none_is_refused(tiny_pipeline, wave):
    with pytest.raises(InputError, match="mixture"):
        tiny_pipeline(wave, 24_000)


# -- files --------------------------------------------------------------------------------------------------


@pytest.fixture
def copy(model_folder, tmp_path):
    """The saved system, to be spoilt."""
    return shutil.copytree(model_folder, tmp_path / "copy")


def load(folder):
    return VocalSeparationPipeline.from_pretrained(folder)


@pytest.mark.parametrize("kind", [str, lambda folder: folder])
def test_saved_pipeline_loads_to_the_identical_output(tiny_pipeline, model_folder, kind):
    wave = noise(1.5 * CHUNK, 44_100)
    loaded = load(kind(model_folder))
    assert loaded.config.chunk_frames == 64 and loaded.num_inference_steps == 1
    assert not any(module.training for module in (loaded.codec, loaded.unet, loaded.conditioner))
    assert np.array_equal(separate(loaded, wave, 44_100), separate(tiny_pipeline, wave, 44_100))


def test_model_that_ships_is_found_by_name(model_folder, monkeypatch):
    monkeypatch.setattr(weights, "FOLDER", model_folder.parent)
    assert weights.shipped() == ["tiny"]
    assert load("tiny").config.chunk_frames == 64


def refused(name, match=None):
    with pytest.raises(InputError, match=match) as caught:
        load(name)
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".") and len(message) < 600
    return message


@pytest.mark.parametrize("name", ["ldm-dmx-nonsense", "nobody/nothing", "a/b/c/d", "../no/such/folder", "?"])
def test_unknown_name_is_refused(name):
    assert name in refused(name, "cannot be loaded")


@pytest.mark.parametrize("part", ["unet", "codec", "conditioner"])
def test_weights_of_another_model_are_refused(copy, part, capfd):
    """diffusers leaves at random what it does not find, and says so in a hundred lines."""
    name, source = "diffusion_pytorch_model.safetensors", "codec" if part == "unet" else "unet"
    shutil.copy(copy / source / name, copy / part / name)
    assert f"{copy / part} cannot be loaded" in refused(copy, "another model's")
    assert "newly initialized" not in capfd.readouterr().err


@pytest.mark.parametrize("content", ["{", "[1]", "{}", ""])
def test_config_that_is_none_is_refused(copy, content):
    (copy / "codec" / "config.json").write_text(content)
    assert "codec" in refused(copy)


def test_what_ships_but_is_no_pipeline_is_told_so():
    assert "encodec-mini holds no model_index.json" in refused("encodec-mini")


@pytest.mark.parametrize(
    "missing",
    [
        "unet/diffusion_pytorch_model.safetensors",
        "codec/diffusion_pytorch_model.safetensors",
        "conditioner/config.json",
        "scheduler/scheduler_config.json",
        "scheduler",
        "codec",
        "model_index.json",
    ],
)
def test_missing_file_is_told_in_one_sentence(copy, missing):
    path = copy / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert str(copy) in refused(copy)


@pytest.mark.parametrize("name", ["unet/config.json", "model_index.json"])
def test_damaged_description_is_refused(copy, name):
    (copy / name).write_text("{")
    refused(copy)


def test_truncated_weights_are_refused(copy):
    path = copy / "unet" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    refused(copy)


def test_weights_of_another_size_are_refused(copy):
    config = copy / "unet" / "config.json"
    config.write_text(config.read_text().replace('"kernel_size": 3', '"kernel_size": 5'))
    refused(copy)


def test_pickle_given_as_a_name_is_refused(evil, tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(pickle.dumps(evil))
    refused(path, "pickles are not opened")
    assert not evil.marker.exists()


@pytest.mark.parametrize("part", ["codec", "conditioner", "unet"])
@pytest.mark.parametrize(
    "name", ["diffusion_pytorch_model.bin", "pytorch_model.bin", "diffusion_pytorch_model.safetensors"]
)
@pytest.mark.parametrize("save", [torch.save, lambda evil, path: path.write_bytes(pickle.dumps(evil))])
def test_pickle_in_the_place_of_weights_is_refused(copy, evil, part, name, save):
    (copy / part / "diffusion_pytorch_model.safetensors").unlink()
    save(evil, copy / part / name)
    refused(copy)
    assert not evil.marker.exists()


def test_harmless_pickle_in_the_place_of_weights_is_refused_as_well(copy):
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    refused(copy)


def test_pickle_beside_the_weights_is_not_opened(copy, evil):
    for part in ("codec", "conditioner", "unet"):
        for name in ("diffusion_pytorch_model.bin", "pytorch_model.bin"):
            torch.save(evil, copy / part / name)
    load(copy)
    assert not evil.marker.exists()
