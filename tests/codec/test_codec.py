"""The codec is EnCodec's network without chunks or quantiser, and reads EnCodec's weights and no others."""

import hashlib
import urllib.error

import encodec
import huggingface_hub
import pytest
import torch
from safetensors.torch import save_file

from dmxlib import codec as codec_module
from dmxlib.codec import OFFICIAL, Codec, Conditioner, hugging_face_name, unit_rms
from dmxlib.errors import InputError

TINY = {  # the official architectures, narrow
    name: dict(
        official,
        seanet=dict(official["seanet"], n_filters=2, dimension=8, ratios=[4, 2]),
        n_q=2,
        bins=16,
    )
    for name, official in OFFICIAL.items()
}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def wave():
    """(2, 1, 6400): noise at two levels."""
    return torch.randn(2, 1, 6400) * torch.tensor([0.1, 0.02])[:, None, None]


def make_codec(name="48khz"):
    return Codec(**TINY[name]).eval()


def same_weights(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


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
    assert torch.equal(codec.quantize(latents), loaded.quantize(latents))
    assert loaded.config.sampling_rate == codec.config.sampling_rate


@torch.no_grad()
def test_quantizer_is_the_packages(tiny_codec, wave):
    latents = tiny_codec.encode(wave)
    raw = tiny_codec.normalization.inverse(latents)
    codes = tiny_codec.quantize(latents)
    expected = tiny_codec.quantizer.encode(raw, 75)
    assert codes.shape == (2, 4, 20) and torch.equal(codes, expected.transpose(0, 1))
    assert codes.min() >= 0 and codes.max() < 32
    assert torch.equal(tiny_codec.quantize(latents, 2), codes[:, :2])
    for n_q in (1, 4):
        restored = tiny_codec.normalization.inverse(tiny_codec.dequantize(codes[:, :n_q]))
        assert torch.allclose(restored, tiny_codec.quantizer.decode(expected[:n_q]), atol=1e-5)


# -- the conditioner -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["48khz", "24khz"])
def test_conditioner_is_a_copy(name):
    codec = make_codec(name).requires_grad_(False)
    wave = torch.randn(1, codec.channels, 800)
    codec.calibrate([wave])
    before = {key: value.clone() for key, value in codec.state_dict().items()}
    conditioner = codec.conditioner()
    assert type(conditioner) is Conditioner and same_weights(conditioner.encoder, codec.encoder)
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


# -- EnCodec's own weights -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def official():
    """The package's two models with random weights, by name."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        models = {
            "48khz": encodec.EncodecModel.encodec_model_48khz(pretrained=False),
            "24khz": encodec.EncodecModel.encodec_model_24khz(pretrained=False),
        }
        for model in models.values():
            for layer in model.quantizer.vq.layers:  # as after training: initialised
                layer._codebook.inited.fill_(1)
                layer._codebook.embed.normal_()
    return models


@pytest.fixture(params=["48khz-safetensors", "48khz-th", "24khz-safetensors", "24khz-th"])
def weights_file(request, tmp_path, official):
    """(name, path) of official weights, in the hub's format and in the package's."""
    name, form = request.param.split("-")
    state = official[name].state_dict()
    if form == "safetensors":
        path = tmp_path / "model.safetensors"
        save_file({hugging_face_name(key): value.contiguous() for key, value in state.items()}, path)
        return name, path
    return name, save_th(state, tmp_path / "encodec.th")


def save_th(content, path):
    """torch.save under a name that ends with the checksum."""
    torch.save(content, path)
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    return path.rename(path.with_name(f"{path.stem}-{checksum}.th"))


@torch.no_grad()
def test_official_weights_give_the_packages_output(official, weights_file):
    name, path = weights_file
    codec, model = Codec.from_encodec(str(path)), official[name]
    assert not codec.training and same_weights_of(codec, model)
    assert (codec.config.sampling_rate, codec.channels) == (model.sample_rate, model.channels)
    assert (codec.config.n_q, codec.hop_length) == (model.quantizer.n_q, 320)
    # One second and both channels alike: there the package's level, the mid's RMS, is the same as ours.
    wave = 0.1 * torch.randn(1, 1, model.sample_rate // 4).expand(-1, model.channels, -1)
    ((codes, scale),) = model.encode(wave)
    latents = codec.encode(wave)
    assert torch.allclose(latents, model.encoder(wave if scale is None else wave / scale[:, None]), atol=1e-4)
    assert (codec.quantize(latents) == codes).float().mean() > 0.99
    decoded, expected = codec.decode(codec.dequantize(codes)), model.decode([(codes, scale)])
    assert torch.allclose(decoded * (1 if scale is None else scale[:, None]), expected, atol=1e-5)


def same_weights_of(codec, model):
    state = model.state_dict()
    ours = codec.state_dict()
    same = all(torch.equal(ours.pop(key), value) for key, value in state.items())
    return same and all(key.startswith("normalization.") for key in ours)


def test_hugging_face_names():
    for name, expected in {
        "encoder.model.0.conv.conv.weight": "encoder.layers.0.conv.weight",
        "encoder.model.0.conv.norm.bias": "encoder.layers.0.norm.bias",
        "encoder.model.1.block.3.conv.conv.weight_g": "encoder.layers.1.block.3.conv.weight_g",
        "encoder.model.1.shortcut.conv.norm.weight": "encoder.layers.1.shortcut.norm.weight",
        "encoder.model.13.lstm.weight_ih_l0": "encoder.layers.13.lstm.weight_ih_l0",
        "decoder.model.3.convtr.convtr.weight": "decoder.layers.3.conv.weight",
        "decoder.model.3.convtr.norm.weight": "decoder.layers.3.norm.weight",
        "quantizer.vq.layers.4._codebook.embed": "quantizer.layers.4.codebook.embed",
    }.items():
        assert hugging_face_name(name) == expected
    for config in TINY.values():
        names = Codec(**config).state_dict().keys()
        assert len({hugging_face_name(name) for name in names}) == len(names)


@pytest.fixture
def tiny_official(monkeypatch):
    """Narrow models in place of the official ones: refusing a file need not build 15 million weights."""
    monkeypatch.setattr(codec_module, "OFFICIAL", TINY)


def refused(path, word):
    with pytest.raises(InputError) as error:
        Codec.from_encodec(str(path))
    assert str(path) in str(error.value) and word in str(error.value) and "\n" not in str(error.value)


class Other:
    """Not a weight."""


def test_refused_files(tmp_path, tiny_official):
    good = save_th(make_codec().state_dict(), tmp_path / "good.th")
    assert same_weights(Codec.from_encodec(str(good)), Codec.from_encodec(good))
    damaged = tmp_path / f"damaged-{good.stem[-8:]}.th"
    content = bytearray(good.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    refused(damaged, "SHA-256")
    for name in ("nameless.th", "nothing-.th"):
        refused(good.rename(tmp_path / name), "SHA-256")
        good = tmp_path / name
    refused(save_th({"weights": Other()}, tmp_path / "object.th"), "not opened")
    refused(save_th([1, 2], tmp_path / "list.th"), "does not hold the weights")
    refused(save_th({"encoder": torch.zeros(3)}, tmp_path / "other.th"), "does not hold the weights")
    text = tmp_path / f"text-{hashlib.sha256(b'text').hexdigest()[:8]}.th"
    text.write_bytes(b"text")
    refused(text, "not opened")


def test_refused_safetensors(tmp_path, tiny_official):
    refused(tmp_path / "none.safetensors", "does not exist")
    save_file({"encoder": torch.zeros(3)}, tmp_path / "other.safetensors")
    refused(tmp_path / "other.safetensors", "does not hold the weights")
    torch.save(make_codec().state_dict(), tmp_path / "pickle.safetensors")
    refused(tmp_path / "pickle.safetensors", "no safetensors file")
    torch.save(make_codec().state_dict(), tmp_path / "model.bin")
    refused(tmp_path / "model.bin", "not opened")


@pytest.fixture
def offline(monkeypatch, tmp_path):
    def fail(*args, **kwargs):
        raise urllib.error.URLError("no connection")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))


@pytest.mark.parametrize("name", ["48khz", "24khz"])
def test_named_weights_offline(offline, name):
    with pytest.raises(InputError, match=rf"(?s)\A[^\n]*huggingface.co/facebook/encodec_{name}[^\n]*\Z"):
        Codec.from_encodec(name)


def test_named_weights_by_the_hub(offline, monkeypatch, tmp_path, tiny_official):
    path, codec = tmp_path / "model.safetensors", make_codec()
    save_file({hugging_face_name(key): value for key, value in codec.state_dict().items()}, path)
    asked = []
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *names: asked.append(names) or str(path))
    assert same_weights(Codec.from_encodec("48khz"), codec)
    assert asked == [("facebook/encodec_48khz", "model.safetensors")]


def test_named_weights_by_the_packages_address(offline, monkeypatch, tmp_path, tiny_official):
    path = save_th(make_codec("24khz").state_dict(), tmp_path / "encodec_24khz.th")
    monkeypatch.setitem(codec_module.TH_FILES, "24khz", path.name)
    asked = []

    def download(url, destination):
        asked.append(url)
        path.rename(destination)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    for _ in range(2):  # the second time it is there
        assert Codec.from_encodec("24khz").config.sampling_rate == 24_000
    assert asked == [f"https://dl.fbaipublicfiles.com/encodec/v0/{path.name}"]


def test_load_takes_a_folder_or_official_weights(tmp_path, tiny_official, offline):
    codec = make_codec("24khz")
    codec.save_pretrained(tmp_path / "codec")
    assert same_weights(Codec.load(str(tmp_path / "codec")), codec)
    path = save_th(codec.state_dict(), tmp_path / "official.th")
    assert same_weights(Codec.load(str(path)), codec)
    with pytest.raises(InputError, match="does not exist"):
        Codec.load(str(tmp_path / "none"))
