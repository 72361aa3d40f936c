"""A codec is loaded by name: a saved folder, or EnCodec's own weights and no others."""

import hashlib
import json
import urllib.error

import encodec
import huggingface_hub
import pytest
import torch
from conftest import ENCODEC, same_weights
from safetensors.torch import save_file

from dmxlib.codec import Codec
from dmxlib.codec import load as load_module
from dmxlib.codec.load import from_encodec, hugging_face_name, load_codec
from dmxlib.codec.quantizer import QuantizedCodec
from dmxlib.errors import InputError


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def make_codec(name="48khz"):
    return QuantizedCodec(**ENCODEC[name]).eval()


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
    codec, model = from_encodec(str(path), quantized=True), official[name]
    assert not codec.training and same_weights_of(codec, model)
    plain = from_encodec(str(path))
    assert type(plain) is Codec and same_weights(plain.encoder, codec.encoder)
    assert same_weights(plain.decoder, codec.decoder) and not hasattr(plain, "quantizer")
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
    average = ("embed_avg", "cluster_size", "inited")  # the state of a training that we do not have
    state = {key: value for key, value in model.state_dict().items() if not key.endswith(average)}
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
    for config in ENCODEC.values():
        names = QuantizedCodec(**config).state_dict().keys()
        assert len({hugging_face_name(name) for name in names}) == len(names)


@pytest.fixture
def tiny_official(monkeypatch):
    """Narrow models in place of the official ones: refusing a file need not build 15 million weights."""
    monkeypatch.setattr(load_module, "OFFICIAL", ENCODEC)


def refused(path, word):
    with pytest.raises(InputError) as error:
        from_encodec(str(path))
    assert str(path) in str(error.value) and word in str(error.value) and "\n" not in str(error.value)


class Other:
    """Not a weight."""


def test_refused_files(tmp_path, tiny_official):
    good = save_th(make_codec().state_dict(), tmp_path / "good.th")
    assert same_weights(from_encodec(str(good)), from_encodec(good))
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
        from_encodec(name)


def test_named_weights_by_the_hub(offline, monkeypatch, tmp_path, tiny_official):
    path, codec = tmp_path / "model.safetensors", make_codec()
    save_file({hugging_face_name(key): value for key, value in codec.state_dict().items()}, path)
    asked = []
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *names: asked.append(names) or str(path))
    assert same_weights(from_encodec("48khz", quantized=True), codec)
    assert asked == [("facebook/encodec_48khz", "model.safetensors")]


def test_named_weights_by_the_packages_address(offline, monkeypatch, tmp_path, tiny_official):
    path = save_th(make_codec("24khz").state_dict(), tmp_path / "encodec_24khz.th")
    monkeypatch.setitem(load_module.TH_FILES, "24khz", path.name)
    asked = []

    def download(url, destination, checksum, progress):
        asked.append(url)
        assert len(checksum) == 8 and checksum in path.name
        path.rename(destination)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    for _ in range(2):  # the second time it is there
        assert from_encodec("24khz").config.sampling_rate == 24_000
    assert asked == [f"https://dl.fbaipublicfiles.com/encodec/v0/{path.name}"]


def test_load_takes_a_folder_or_official_weights(tmp_path, tiny_official, offline):
    codec = make_codec("24khz")
    codec.save_pretrained(tmp_path / "codec")
    assert same_weights(load_codec(str(tmp_path / "codec"), quantized=True), codec)
    path = save_th(codec.state_dict(), tmp_path / "official.th")
    assert same_weights(load_codec(str(path), quantized=True), codec)
    for name in (tmp_path / "codec", path):
        plain = load_codec(str(name))
        assert type(plain) is Codec and not plain.training
        assert plain.state_dict().keys() == {key for key in codec.state_dict() if "quantizer" not in key}
    with pytest.raises(InputError, match="does not exist"):
        load_codec(str(tmp_path / "none"))


def test_codec_of_a_folder_with_codebooks_has_no_quantizer(tmp_path, capfd):
    """Nor is what it saves to be read as one; neither says anything on loading."""
    whole = make_codec()
    whole.save_pretrained(tmp_path / "whole")
    plain = load_codec(str(tmp_path / "whole"))
    plain.save_pretrained(tmp_path / "plain")
    assert same_weights(load_codec(str(tmp_path / "plain")), plain)
    assert not {"n_q", "bins"} & json.loads((tmp_path / "plain" / "config.json").read_text()).keys()
    assert capfd.readouterr().err == ""
    with pytest.raises(InputError, match="plain has no codebooks"):
        load_codec(str(tmp_path / "plain"), quantized=True)


def test_codebooks_beside_the_codec_of_another_folder(tmp_path, capfd):
    whole = make_codec()
    plain = Codec.from_config(ENCODEC["48khz"])
    plain.load_state_dict(whole.state_dict(), strict=False)
    plain.save_pretrained(tmp_path / "codec")
    (tmp_path / "books").mkdir()
    config = {"codec": str(tmp_path / "codec"), "n_q": 2, "bins": 16}
    (tmp_path / "books" / "config.json").write_text(json.dumps(config))
    books = {key: value for key, value in whole.state_dict().items() if "quantizer" in key}
    save_file(books, tmp_path / "books" / "diffusion_pytorch_model.safetensors")
    assert same_weights(load_codec(str(tmp_path / "books")), plain)
    loaded = load_codec(str(tmp_path / "books"), quantized=True)
    assert same_weights(loaded, whole) and not loaded.training
    loaded.save_pretrained(tmp_path / "again")  # whole
    assert same_weights(load_codec(str(tmp_path / "again"), quantized=True), whole)
    assert capfd.readouterr().err == ""
