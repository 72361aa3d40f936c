"""The codec is EnCodec's network without chunks or quantiser; the conditioner is a copy of its encoder."""

import pytest
import torch
from conftest import ENCODEC, same_weights

from dmxlib.codec import Codec, Conditioner, Normalization, unit_rms
from dmxlib.errors import InputError


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def wave():
    """(2, 1, 6400): noise at two levels."""
    return torch.randn(2, 1, 6400) * torch.tensor([0.1, 0.02])[:, None, None]


def make_codec(name="48khz"):
    return Codec.from_config(ENCODEC[name]).eval()


# -- latents -------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("frames", [6400, 6401, 6719, 640])
def test_shapes(tiny_codec, frames):
    latents = tiny_codec.encode(torch.randn(3, 1, frames))
    assert latents.shape == (3, 16, -(-frames // 320)) and tiny_codec.hop_length == 320
    assert tiny_codec.decode(latents).shape == (3, 1, 320 * latents.shape[-1])
    assert (tiny_codec.channels, tiny_codec.dimension) == (1, 16)


@torch.no_grad()
def test_one_stream():
    """Nothing marks a second, the length of EnCodec's chunks: a change is felt on both of its sides."""
    codec, wave = make_codec(), torch.randn(1, 2, 96_000)
    changed = wave.clone()
    changed[..., 48_000] += 5
    difference = (codec.encode(wave) - codec.encode(changed)).abs().amax(dim=(0, 1))  # hop 8
    far = difference[:100].mean()
    assert difference[5990:6000].max() > 10 * far and difference[6000:6010].max() > 10 * far


@torch.no_grad()
def test_batch_items_do_not_touch(tiny_codec, wave):
    both = tiny_codec.encode(wave)
    assert torch.allclose(both[:1], tiny_codec.encode(wave[:1]), atol=1e-5)


@torch.no_grad()
def test_level_is_divided_out_but_silence_stays_quiet(tiny_codec, wave):
    assert torch.allclose(unit_rms(wave).square().mean(dim=(1, 2)), torch.ones(2))
    assert torch.allclose(tiny_codec.encode(wave), tiny_codec.encode(0.3 * wave), atol=1e-4)
    quiet = unit_rms(1e-6 * wave)
    assert quiet.abs().max() < 0.01 and torch.isfinite(tiny_codec.encode(0 * wave)).all()


@torch.no_grad()
def test_calibration_half_whitens():
    codec = make_codec()
    waves = [torch.randn(2, 2, 4000) for _ in range(3)]
    raw = torch.cat([codec.encoder(unit_rms(wave)) for wave in waves])
    assert not codec.normalization.fitted
    torch.testing.assert_close(codec.encode(waves[0]), raw[:2])  # the identity until then
    codec.calibrate(waves)
    assert codec.normalization.fitted
    latents = torch.cat([codec.encode(wave) for wave in waves]).transpose(0, 1).flatten(1)
    assert latents.mean(1).abs().max() < 1e-4
    whole, half = raw.transpose(0, 1).flatten(1).cov(), latents.cov()
    assert half.trace().item() == pytest.approx(8, rel=1e-3)
    scale = whole.trace() / (half @ half).trace()  # the square root of the raw covariance, but for a factor
    torch.testing.assert_close(scale * half @ half, whole, rtol=1e-3, atol=1e-3 * whole.max().item())
    torch.testing.assert_close(
        codec.decode(codec.encode(waves[0])), codec.decoder(raw[:2]), atol=1e-4, rtol=0
    )
    scale = codec.normalization.scale.clone()
    codec.calibrate(waves)  # starts anew
    torch.testing.assert_close(codec.normalization.scale, scale)


def test_calibration_by_less_than_a_frame_per_channel():
    codec = make_codec()
    wave = torch.randn(1, 2, 40)
    with torch.no_grad():
        codec.calibrate([wave])  # 5 frames of 8 channels
        latents = codec.encode(wave)
        torch.testing.assert_close(codec.decode(latents), codec.decoder(codec.encoder(unit_rms(wave))))
    assert latents.abs().max() < 10


@torch.no_grad()
@pytest.mark.parametrize("name", ["48khz", "24khz"])
def test_save_and_load(tmp_path, name):
    codec = make_codec(name)
    wave = torch.randn(1, codec.channels, 800)
    codec.calibrate([wave])
    codec.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json",
        "diffusion_pytorch_model.safetensors",
    ]
    loaded = Codec.from_pretrained(tmp_path, low_cpu_mem_usage=False)
    assert same_weights(codec, loaded) and not loaded.training
    assert torch.equal(codec.encode(wave), loaded.encode(wave))
    latents = codec.encode(wave)
    assert torch.equal(codec.decode(latents), loaded.decode(latents))
    assert loaded.config.sampling_rate == codec.config.sampling_rate


# -- the conditioner -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["48khz", "24khz"])
def test_conditioner_is_a_copy(name):
    codec = make_codec(name).requires_grad_(False)
    wave = torch.randn(1, codec.channels, 800)
    codec.calibrate([wave])
    before = {key: value.clone() for key, value in codec.state_dict().items()}
    conditioner = codec.conditioner()
    assert type(conditioner) is Conditioner and not isinstance(codec, Conditioner)
    assert same_weights(conditioner.encoder, codec.encoder)
    assert torch.equal(conditioner.eval()(wave), codec.encode(wave))
    pointers = {tensor.data_ptr() for tensor in codec.state_dict().values()}
    assert not pointers & {tensor.data_ptr() for tensor in conditioner.state_dict().values()}
    conditioner.train()(wave).square().mean().backward()
    parameters = list(conditioner.parameters())
    assert all(parameter.requires_grad and parameter.grad is not None for parameter in parameters)
    torch.optim.SGD(parameters, 1.0).step()
    assert all(torch.equal(value, before[key]) for key, value in codec.state_dict().items())


@torch.no_grad()
def test_conditioner_saves_and_loads(tmp_path, tiny_codec, wave):
    conditioner = tiny_codec.conditioner()
    conditioner.save_pretrained(tmp_path)
    loaded = Conditioner.from_pretrained(tmp_path, low_cpu_mem_usage=False)
    assert torch.equal(loaded(wave), tiny_codec.encode(wave)) and loaded.hop_length == 320


def test_range_normalisation_is_each_channels_own():
    torch.manual_seed(0)
    latents, normalization = torch.randn(5, 400) * torch.logspace(-2, 2, 5)[:, None] + 3, Normalization(5)
    normalization.fit(latents, "range")
    normal = normalization(latents[None])[0]
    assert torch.allclose(normal.mean(1), torch.zeros(5), atol=1e-4)
    assert torch.allclose(normal.abs().amax(1), torch.ones(5), atol=1e-4)
    assert torch.allclose(normalization.inverse(normal[None])[0], latents, rtol=1e-3, atol=1e-3)
    assert normalization.fitted and not (normalization.scale - normalization.scale.diag().diag()).any()
    strays = torch.rand(1, 4000) * 2 - 1
    strays[:, 1000::1000] = 50  # what three frames do in four thousand does not shrink the others
    strays -= strays.mean()
    narrow = Normalization(1)
    narrow.fit(strays, "range")
    assert 0.95 < narrow(strays[None])[0, 0, :1000].abs().max() <= 1
    with pytest.raises(InputError, match="choose half-whitened or range"):
        normalization.fit(latents, "white")
