"""A decoded voice, which has lost its level, gets it back."""

import pytest
import torch

from dmxlib import level

HOP, FRAMES = 320, 256
SAMPLES = HOP * FRAMES  # 3.4 s at 24 kHz


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def noise(batch=1):
    return torch.randn(batch, 1, SAMPLES)


def decibels(ratio):
    return 20 * torch.log10(ratio)


def swell(depth_db, cycles):
    """(1, 1, SAMPLES): amplitudes that go up and down by depth_db."""
    t = torch.linspace(0, 1, SAMPLES)
    return 10 ** (depth_db / 20 * torch.sin(2 * torch.pi * cycles * t) / 2)[None, None]


def test_rms():
    wave = torch.tensor([[[3.0, -3], [4, 4]], [[0, 0], [0, 0]]])
    assert level.rms(wave).shape == (2, 1, 1)
    assert torch.allclose(level.rms(wave).flatten(), torch.tensor([12.5**0.5, 0]))


def test_frame_levels_are_relative_and_floored():
    wave, reference = 0.1 * noise(2), torch.tensor([0.1, 1.0])[:, None, None]
    levels = level.frame_levels(wave, reference, HOP)
    assert levels.shape == (2, 1, FRAMES)
    inner = levels[..., 2:-2]  # the window reaches over the ends
    assert (inner[0]).abs().max() < 1 and (inner[1] + 20).abs().max() < 1
    wave[..., SAMPLES // 2 :] = 0
    levels = level.frame_levels(wave, reference, HOP)
    assert (levels[..., FRAMES // 2 + 2 :] == level.FLOOR_DB).all()
    assert (level.frame_levels(wave, 0 * reference, HOP) >= level.FLOOR_DB).all()  # a silent mixture


def test_channel_round_trip():
    levels = torch.linspace(level.FLOOR_DB, 6, 50)[None, None]
    channel = level.to_channel(levels)
    assert torch.allclose(level.from_channel(channel), levels, atol=1e-5)
    assert -2 < channel.min() and channel.max() < 2
    assert level.from_channel(torch.tensor([-9.0, 9.0])).tolist() == [level.FLOOR_DB, 6]


@torch.no_grad()
@pytest.mark.parametrize("loudness", [1.0, 1e-3])
def test_a_pair_comes_back_at_its_level(tiny_codec, loudness):
    vocals, mixture = 0.05 * loudness * noise(2) * swell(20, 2), 0.2 * loudness * noise(2)
    latents = level.encode_pair(tiny_codec, vocals, mixture)
    assert latents.shape == (2, tiny_codec.dimension + 1, FRAMES)
    restored = level.decode_pair(tiny_codec, latents, mixture)
    assert restored.shape == vocals.shape
    assert decibels(level.rms(restored) / level.rms(vocals)).abs().max() < 1


@pytest.mark.parametrize("residue_db", [0, -20, -40])  # of the codec, where the voice is silent
def test_true_silence_is_silent(residue_db):
    vocals, mixture = 0.1 * noise(), 0.2 * noise()
    start, stop = SAMPLES // 4, SAMPLES * 3 // 4  # 1.7 s
    vocals[..., start:stop] = 0
    decoded = noise()
    decoded[..., start:stop] *= 10 ** (residue_db / 20)
    levels = level.frame_levels(vocals, level.rms(mixture), HOP)
    restored = level.apply_mean_level(decoded, levels, level.rms(mixture))
    margin = 3 * HOP  # 40 ms
    silence = restored[..., start + margin : stop - margin]
    assert decibels(level.rms(silence) / level.rms(mixture)) < -40


def test_wholly_silent_vocals():
    mixture = 0.2 * noise()
    levels = level.frame_levels(0 * mixture, level.rms(mixture), HOP)
    restored = level.apply_mean_level(noise(), levels, level.rms(mixture))
    assert decibels(level.rms(restored) / level.rms(mixture)) < -40
    assert torch.isfinite(level.apply_mean_level(0 * mixture, levels, level.rms(mixture))).all()


@torch.no_grad()
def test_without_a_level_channel_the_vocals_are_projected_on_the_mixture(tiny_codec):
    vocals, mixture = 0.05 * noise(), 0.2 * noise()
    latents = tiny_codec.encode(vocals)
    wave, restored = tiny_codec.decode(latents), level.decode_pair(tiny_codec, latents, mixture)
    gain = max(0.0, ((wave * mixture).sum() / wave.square().sum()).item())
    assert torch.allclose(restored, gain * wave, atol=1e-6)


def test_projection_restores_the_level_of_what_the_mixture_holds():
    vocals, rest = 0.05 * noise(2), 0.1 * noise(2)
    restored = level.project(7 * vocals, vocals + rest)
    assert decibels(level.rms(restored) / level.rms(vocals)).abs().max() < 0.3
    assert not level.project(-vocals, vocals).any(), "no negative gain"
    assert not level.project(0 * vocals, vocals).any()


def test_gate_shuts_where_the_level_says_so_and_nowhere_else():
    wave, levels = noise(), torch.full((1, 1, FRAMES), level.GATE_DB)
    assert torch.equal(level.gate(wave, levels), wave)  # at the threshold it is open
    levels[..., FRAMES // 2 :] = level.FLOOR_DB
    gated = level.gate(wave, levels)
    half, margin = SAMPLES // 2, 2 * HOP
    assert torch.equal(gated[..., : half - margin], wave[..., : half - margin])
    loss = decibels(level.rms(gated[..., half + margin :]) / level.rms(wave[..., half + margin :]))
    assert abs(loss.item() - level.GATE_SLOPE * (level.FLOOR_DB - level.GATE_DB)) < 0.1


def test_mean_level_is_one_gain_that_restores_the_power():
    vocals, mixture = 0.03 * noise(2) * swell(10, 3), 0.2 * noise(2)
    levels, reference = level.frame_levels(vocals, level.rms(mixture), HOP), level.rms(mixture)
    decoded = vocals * torch.tensor([7.0, 0.1])[:, None, None]
    restored = level.apply_mean_level(decoded, levels, reference)
    assert torch.allclose(restored, vocals, rtol=0.05, atol=1e-5)
    ratio = restored / decoded
    assert torch.allclose(ratio, ratio[:, :, :1].expand_as(ratio), rtol=1e-3), "loud enough to open the gate"
    assert not level.apply_mean_level(0 * decoded, levels, reference).any()
