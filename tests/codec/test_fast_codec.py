"""The fast codec: the package's own output, of its own modules, and only where nothing is learned."""

import pytest
import torch
from encodec.modules import SEANetDecoder, SEANetEncoder
from torch.nn.modules.module import register_module_forward_hook

from dmxlib import audio, metrics
from dmxlib.codec import Codec, mid_rms
from dmxlib.codec import fast as fast_codec
from dmxlib.codec.load import OFFICIAL, load_codec
from dmxlib.data.sets.toy import render_song

SIZE = {"n_filters": 4, "dimension": 16}
GROUPS = {**SIZE, "norm": "time_group_norm"}
NARROW = {
    "48khz": {**OFFICIAL["48khz"]["seanet"], **SIZE},
    "24khz": {**OFFICIAL["24khz"]["seanet"], **SIZE},
    "small": {**GROUPS, "ratios": [5, 4, 4, 4], "true_skip": True, "lstm": 0},
    "deep": {**GROUPS, "ratios": [3, 2], "n_residual_layers": 2},
    "bare": {**GROUPS, "ratios": [5, 8], "n_residual_layers": 0, "lstm": 0},
}


@pytest.fixture(params=NARROW)
def codec(request):
    """A codec with random weights, biases and gains, evaluated."""
    torch.manual_seed(0)
    codec = Codec(24_000, NARROW[request.param]).eval()
    with torch.no_grad():
        for parameter in codec.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return codec


@torch.no_grad()
@pytest.mark.parametrize("tile", [2**9, 2**18])  # many tiles a layer, and one
@pytest.mark.parametrize("frames", [1, 7, 641, 6400])
def test_the_packages_output(codec, monkeypatch, tile, frames):
    monkeypatch.setattr(fast_codec, "TILE", tile)
    wave = torch.randn(3, codec.channels, frames) * torch.tensor([1, 0.1, 3])[:, None, None]
    latents = codec.encoder(wave)
    for seanet, x in ((codec.encoder, wave), (codec.decoder, latents)):
        expected, given = seanet(x), x.clone()
        result = fast_codec.forward(seanet, x)
        assert result.shape == expected.shape and torch.equal(x, given)
        assert (result - expected).norm() < 1e-4 * expected.norm()


@torch.no_grad()
def test_half_precision_costs_the_voice_nothing():
    """Of the codec that ships: 0.05 dB of what a voice comes back with."""
    codec = load_codec("encodec-mini")
    wave = audio.match_channels(render_song(0, seconds=7.0)[0], 1)
    wave = torch.from_numpy(audio.resample(wave, 44_100, codec.config.sampling_rate))[None]
    level, scores = mid_rms(wave), []
    for half in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            decoded = level * codec.decode(codec.encode(wave)).float()
        scores.append(metrics.si_sdr(wave[0].numpy(), decoded[0, :, : wave.shape[2]].numpy()))
    assert scores[0] > 5 and scores[0] != scores[1] and abs(scores[0] - scores[1]) < 0.05


@pytest.fixture
def calls():
    """The networks whose own forward, the package's, was called: the fast path goes round it."""
    calls = []

    def heard(module, *_):
        if isinstance(module, (SEANetEncoder, SEANetDecoder)):
            calls.append(module)

    with register_module_forward_hook(heard):
        yield calls


def test_used_where_nothing_is_learned(calls, tiny_codec):
    wave = torch.randn(1, 1, 640)
    with torch.no_grad():
        tiny_codec.decode(tiny_codec.encode(wave))
        conditioner = tiny_codec.conditioner()
        conditioner.eval()(wave)
        assert calls == []
        conditioner.train()(wave)
        assert calls == [conditioner.encoder]
    conditioner.eval()(wave).sum().backward()
    assert len(calls) == 2 and all(weight.grad is not None for weight in conditioner.parameters())
    tiny_codec.decode(torch.randn(1, 16, 2))
    assert calls.pop() is tiny_codec.decoder


@torch.no_grad()
def test_new_weights_are_seen(codec):
    latents = torch.randn(1, 16, 20)
    before = fast_codec.forward(codec.decoder, latents)
    for parameter in codec.decoder.parameters():
        parameter.mul_(1.1)
    after = fast_codec.forward(codec.decoder, latents)
    assert not torch.allclose(before, after, rtol=1e-3)
    assert torch.allclose(after, codec.decoder(latents), atol=1e-4 * after.abs().max())
