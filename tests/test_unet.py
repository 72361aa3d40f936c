"""The U-Net: its shapes, what its output depends on, its files, and the paper's size."""

import inspect
import json
import math
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import dmxlib
from dmxlib.config import read_yaml
from dmxlib.errors import InputError
from dmxlib.unet import ResidualBlock, VocalUNet1D

TINY = dict(
    latent_channels=5,
    condition_channels=4,
    level_channels=(16, 16, 24, 32),
    blocks_per_level=1,
    first_injection=1,
    attention_from=3,
    fourier_channels=16,
    time_channels=24,
)


def make_unet(**options):
    torch.manual_seed(0)
    return VocalUNet1D(**TINY | options).eval()


@pytest.fixture(scope="module")
def unet():
    return make_unet()


def inputs(batch=2, frames=32):
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(batch, channels, frames, generator=generator) for channels in (5, 4))


@pytest.mark.parametrize(
    "option",
    [
        dict(level_channels=(12, 16)),
        dict(fourier_channels=15),
        dict(kernel_size=4),
        dict(blocks_per_level=(1, 2)),
        dict(first_injection=4),  # of four levels
        dict(first_injection=-1),
    ],
    ids=str,
)
def test_sizes_that_there_are_no_layers_for(option):
    with pytest.raises(InputError, match="choose"):
        make_unet(**option)


@torch.no_grad()
@pytest.mark.parametrize("timestep", [3, 3.0, torch.tensor(3), torch.tensor(3.0), torch.tensor([3, 3])])
def test_forward(unet, timestep):
    sample, condition = inputs()
    output = unet(sample, timestep, condition)
    assert output.sample.shape == sample.shape and output.sample.isfinite().all()
    assert torch.equal(output.sample, unet(sample, torch.tensor([3.0, 3.0]), condition).sample)
    (plain,) = unet(sample, timestep, condition, return_dict=False)
    assert torch.equal(plain, output.sample)


@torch.no_grad()
@pytest.mark.parametrize(
    "options",
    [{}, dict(blocks_per_level=2, kernel_size=5), dict(first_injection=3), dict(mask_channels=6)],
)
@pytest.mark.parametrize("frames", [4, 20, 64])
def test_lengths(options, frames):
    unet = make_unet(**options)
    assert unet.frame_multiple == 4
    sample, condition = inputs(1, frames)
    assert unet(sample, 0, condition).sample.shape == (1, 5, frames)
    assert unet(sample, 0, condition[..., : frames // 2]).sample.shape == (1, 5, frames)


@torch.no_grad()
def test_each_level_has_its_own_number_of_blocks():
    unet = make_unet(blocks_per_level=(2, 1, 3, 1))
    for blocks in (unet.down_blocks, unet.up_blocks):
        assert [len(level.residual) for level in blocks] == [2, 1, 3, 1]
    sample, condition = inputs()
    assert unet(sample, 0, condition).sample.shape == sample.shape


@torch.no_grad()
def test_each_item_has_its_own_timestep(unet):
    sample, condition = inputs()
    both = unet(sample, torch.tensor([10.5, 700.0]), condition).sample
    for i, timestep in enumerate((10.5, 700.0)):
        alone = unet(sample[i : i + 1], torch.tensor(timestep), condition[i : i + 1]).sample
        assert torch.allclose(both[i : i + 1], alone, atol=1e-5)
    assert not torch.allclose(both[:1], unet(sample[:1], 10, condition[:1]).sample, atol=1e-5)  # not rounded


@torch.no_grad()
def test_the_network_is_told_t_itself(unet):
    """Index i is t = (i + 1) / 1000: weights that were trained with another count of it know nothing of t."""
    told, (sample, condition) = [], inputs()
    hook = unet.time_proj.register_forward_pre_hook(lambda _, arguments: told.append(arguments[0]))
    for timestep in (torch.tensor([499, 999]), 249.0):
        unet(sample, timestep, condition)
    hook.remove()
    assert torch.equal(torch.stack(told), torch.tensor([[0.5, 1.0], [0.25, 0.25]]))


@torch.no_grad()
def test_output_depends_on_everything(unet):
    sample, condition = inputs()
    output = unet(sample, 500, condition).sample
    for changed in ((1.1 * sample, 500, condition), (sample, 100, condition), (sample, 500, -condition)):
        assert (unet(*changed).sample - output).abs().max() > 1e-3


@torch.no_grad()
def test_mixture_halves_stand_for_the_mixture(unet):
    sample, condition = inputs()
    output = unet(sample, 500, condition).sample
    assert torch.equal(unet(sample, 500, unet.mixture_halves(condition, 32)).sample, output)
    injection, x = unet.injections[1], torch.randn(2, 16, 32)
    merged = injection(x, injection.mixture_half(condition, 32))
    expected = injection.convolution(torch.cat([x, condition], dim=1))
    torch.testing.assert_close(merged, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(("interpolation", "expected"), [("area", [1.5, 5.5]), ("linear", [1.5, 5.5])])
def test_interpolation_of_the_mixture(interpolation, expected):
    unet = make_unet(interpolation=interpolation, mask_channels=6)
    condition = torch.arange(8.0).expand(1, 4, 8)
    halves = unet.mixture_halves(condition, 8)
    same, shorter = (unet.injections[i].mixture_half(condition, n) for i, n in ((1, 8), (3, 2)))
    assert torch.equal(halves[1], same) and torch.equal(halves[3], shorter)
    weight, bias = (getattr(unet.injections[3].convolution, name) for name in ("weight", "bias"))
    ramp = torch.tensor(expected).expand(1, 4, 2)
    assert torch.allclose(shorter, torch.conv1d(ramp, weight[:, -4:], bias), atol=1e-5)
    impulse = torch.zeros(1, 4, 8)
    impulse[..., 0] = 1  # linear looks at the two frames beside the middle alone
    silent = unet.injections[3].mixture_half(torch.zeros(1, 4, 8), 2)
    unheard = torch.allclose(unet.injections[3].mixture_half(impulse, 2), silent)
    assert unheard == (interpolation == "linear")


def test_folders_without_the_key_interpolate_by_area(unet, tmp_path):
    unet.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config.pop("interpolation") == "area"
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert VocalUNet1D.from_pretrained(tmp_path).injections[1].interpolation == "area"


def test_unknown_interpolation_is_refused():
    with pytest.raises(InputError, match="choose linear or area"):
        make_unet(interpolation="cubic")


def test_condition_reaches_every_injected_level(unet):
    for without in range(1, 4):
        changed = make_unet()
        changed.load_state_dict(unet.state_dict())
        changed.injections[without].convolution.weight.data[:, -4:] = 0  # the condition's columns
        sample, condition = inputs()
        difference = changed(sample, 500, condition).sample - unet(sample, 500, condition).sample
        assert difference.abs().max() > 1e-4
    assert unet.injections[0] is None


def test_mask_adds_to_the_output_what_it_leaves_of_the_mixture(unet):
    masked = make_unet(mask_channels=6)
    missing, unexpected = masked.load_state_dict(unet.state_dict(), strict=False)
    assert missing and not unexpected and all(name.startswith("mask.") for name in missing)
    sample, condition = inputs()
    output = masked(sample, 500, condition).sample
    assert torch.equal(masked(sample, 500, masked.mixture_halves(condition, 32)).sample, output)
    masked.mask.out.bias.data.zero_()
    for part in (masked.mask.mask, masked.mask.basis, masked.mask.out):
        weights = {name: weight.clone() for name, weight in part.state_dict().items()}
        for weight in part.parameters():
            weight.data.zero_()  # nothing is let through
        torch.testing.assert_close(masked(sample, 500, condition).sample, unet(sample, 500, condition).sample)
        part.load_state_dict(weights)
    constant = masked.mask.mask  # a mask of ones: a linear map of the mixture, whatever the features are
    constant.weight.data.zero_()
    constant.bias.data.fill_(1)
    added = masked(sample, 500, condition).sample - unet(sample, 500, condition).sample
    torch.testing.assert_close(added, masked.mask.out(masked.mask.basis(condition)), atol=1e-5, rtol=1e-5)


def test_film_scales_and_shifts_each_block(unet):
    sample, condition = inputs()
    blocks = [module for module in unet.modules() if hasattr(module, "film")]
    assert len(blocks) == 4 + 1 + 4
    output = unet(sample, 500, condition).sample
    for block in blocks:
        for half in block.film.bias.data.chunk(2):
            half += 1
            assert (unet(sample, 500, condition).sample - output).abs().max() > 1e-3
            half -= 1


@torch.no_grad()
@pytest.mark.parametrize(("bias", "gain"), [(1e9, 2.0), (-1e9, 0.0)])
def test_gain_of_a_block_is_bounded(bias, gain):
    block, x, time = ResidualBlock(8, 8, 3, 4), torch.randn(1, 8, 16), torch.randn(1, 4)
    plain = block.convolutions(x) + block.shortcut(x)
    block.film.weight.zero_()
    scale, shift = block.film.bias.chunk(2)
    scale.fill_(bias)
    shift.zero_()
    torch.testing.assert_close(block(x, time), gain * plain)


@pytest.mark.parametrize("mask_channels", [0, 6])
def test_every_trained_weight_has_a_gradient(mask_channels):
    unet = make_unet(mask_channels=mask_channels)
    sample, condition = inputs()
    unet(sample, torch.tensor([5, 900]), condition).sample.square().mean().backward()
    trained = {name: weight for name, weight in unet.named_parameters() if weight.requires_grad}
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in trained.values())
    frozen = {name for name, _ in unet.named_parameters()} - trained.keys()
    assert frozen == {"time_proj.weight"}  # random Fourier frequencies


@torch.no_grad()
def test_save_and_load(unet, tmp_path):
    unet.save_pretrained(tmp_path)
    sample, condition = inputs()
    for options in ({}, dict(low_cpu_mem_usage=False)):
        loaded = VocalUNet1D.from_pretrained(tmp_path, **options)
        assert torch.equal(loaded(sample, 7, condition).sample, unet(sample, 7, condition).sample)
        assert not loaded.training
        assert all(loaded.config[key] == value for key, value in TINY.items() if key != "level_channels")
    config = json.loads((tmp_path / "config.json").read_text())
    assert {key for key in config if not key.startswith("_")} == {
        *TINY,
        "kernel_size",
        "mask_channels",
        "interpolation",
        "sources",
    }


def count(**options):
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in VocalUNet1D(**options).parameters())


def test_size_of_the_paper():
    config = read_yaml(Path(dmxlib.__file__).parent / "configs" / "paper_stage1.yaml")
    sizes = {key: config[key] for key in inspect.signature(VocalUNet1D).parameters if key in config}
    unet = count(latent_channels=129, condition_channels=128, **sizes)
    assert unet + 7_428_336 == pytest.approx(115.9e6, rel=0.003)  # with the conditioning encoder


def test_size_of_the_small_system():
    """What ships has as many numbers as a network of its config, and is small enough for a processor."""
    folder = Path(dmxlib.__file__).parent / "pretrained" / "ldm-dmx-mini" / "unet"
    sizes = json.loads((folder / "config.json").read_text())
    sizes = {key: sizes[key] for key in inspect.signature(VocalUNet1D).parameters if key in sizes}
    with safe_open(folder / "diffusion_pytorch_model.safetensors", "pt") as file:
        saved = sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys())
    assert count(**sizes) == saved <= 12e6
