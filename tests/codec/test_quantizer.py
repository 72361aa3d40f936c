"""The quantiser is EnCodec's, on the normalised latents of one stream."""

import copy

import pytest
import torch
from conftest import ENCODEC, same_weights

from dmxlib.codec.load import load_codec
from dmxlib.codec.quantizer import QuantizedCodec
from dmxlib.errors import InputError


@torch.no_grad()
def test_quantizer_is_the_packages(quantized_codec):
    codec = quantized_codec
    torch.manual_seed(0)
    latents = codec.encode(torch.randn(2, 1, 6400) * torch.tensor([0.1, 0.02])[:, None, None])
    raw = codec.normalization.inverse(latents)
    codes = codec.quantize(latents)
    expected = codec.quantizer.encode(raw, 75)
    assert codes.shape == (2, 4, 20) and torch.equal(codes, expected.transpose(0, 1))
    assert codes.min() >= 0 and codes.max() < 32
    assert torch.equal(codec.quantize(latents, 2), codes[:, :2])
    for n_q in (1, 4):
        restored = codec.normalization.inverse(codec.dequantize(codes[:, :n_q]))
        assert torch.allclose(restored, codec.quantizer.decode(expected[:n_q]), atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", ["48khz", "24khz"])
def test_save_and_load(tmp_path, name):
    torch.manual_seed(0)
    codec = QuantizedCodec(**ENCODEC[name]).eval()
    wave = torch.randn(1, codec.channels, 800)
    codec.calibrate([wave])
    codec.save_pretrained(tmp_path)
    loaded = load_codec(str(tmp_path), quantized=True)
    assert same_weights(codec, loaded) and not loaded.training
    latents = codec.encode(wave)
    assert torch.equal(codec.quantize(latents), loaded.quantize(latents))
    books = {key for key in codec.state_dict() if "quantizer" in key}
    assert books == {f"quantizer.vq.layers.{layer}._codebook.embed" for layer in range(2)}


@torch.no_grad()
def test_fitted_codebooks_code_better_the_more_of_them(quantized_codec):
    """Each takes what those before it leave; what was there before does not matter."""
    codec = copy.deepcopy(quantized_codec)
    torch.manual_seed(0)
    waves = torch.randn(4, 1, 1, 320 * 64)
    codec.fit_quantizer(waves)
    latents = codec.encode(waves[0])
    raw = codec.normalization.inverse(latents)
    errors = [
        (codec.normalization.inverse(codec.dequantize(codec.quantize(latents, n_q))) - raw).square().mean()
        for n_q in (1, 2, 4)
    ]
    assert raw.square().mean() > errors[0] > errors[1] > errors[2]
    fitted = copy.deepcopy(codec)
    codec.fit_quantizer(waves)
    assert same_weights(codec, fitted)
    with pytest.raises(InputError, match="cannot fill 32 codes"):
        codec.fit_quantizer(waves[:1, ..., : 320 * 10])
