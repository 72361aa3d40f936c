"""A GPU computes and learns what the processor does: outputs within 1e-3 of their largest sample."""

import copy
import json

import numpy as np
import pytest
import torch
from conftest import make_pipeline, separate

from dmxlib import baselines, data, train
from dmxlib.data.augment import AUGMENTATIONS
from dmxlib.data.on_device import DevicePairs
from dmxlib.ensemble import load_separator
from dmxlib.reproduce import seeded_generator
from dmxlib.studies.timing import in_precision
from dmxlib.training.decoded import decoded_loss
from dmxlib.training.muon import Muon
from dmxlib.training.optimizer import parameter_groups

pytestmark = pytest.mark.gpu
DEVICE, TOLERANCE = "cuda", 1e-3
SMALL = {
    "bsrnn": {"features": 8, "pairs_of_layers": 1, "hop": 512, "chunk_samples": 16_384},
    "hdemucs": {"width": 4, "chunk_samples": 16_384},
}


@pytest.fixture(autouse=True)
def full_precision():
    """fp32 is compared: cuDNN's convolutions are in tf32 otherwise."""
    with in_precision("fp32", DEVICE):
        yield


def assert_same(expected, found):
    """Two tensors or arrays, of the processor and of the GPU."""
    expected, found = (torch.as_tensor(value).detach().cpu() for value in (expected, found))
    assert (expected - found).abs().max() <= TOLERANCE * expected.abs().max()


@pytest.fixture
def pipelines(tiny_codec):
    """The same system on the processor and on the GPU."""
    return make_pipeline(copy.deepcopy(tiny_codec)), make_pipeline(copy.deepcopy(tiny_codec)).to(DEVICE)


def test_the_separator(pipelines, rng):
    clip = rng.uniform(-0.1, 0.1, (2, 60_000)).astype(np.float32)
    for refine in (None, "wiener"):
        voices = [
            pipeline(clip, 44_100, num_inference_steps=4, generator=seeded_generator(0), refine=refine).vocals
            for pipeline in pipelines
        ]
        assert_same(*voices)


def test_the_codec(pipelines):
    wave = torch.randn(2, 1, 320 * 64, generator=torch.Generator().manual_seed(0)) / 10
    latents = [pipeline.codec.encode(wave.to(pipeline.device)) for pipeline in pipelines]
    assert_same(*latents)
    waves = [pipeline.codec.decode(latents[0].to(pipeline.device)) for pipeline in pipelines]
    assert_same(*waves)


@pytest.mark.parametrize("name", SMALL)
def test_a_baseline(name, rng):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = baselines.load(name)(**SMALL[name]).eval()
    clip = rng.uniform(-0.1, 0.1, (2, 30_000)).astype(np.float32)
    voices = [separate(model.to(device), clip, 44_100) for device in ("cpu", DEVICE)]
    assert_same(*voices)


@pytest.mark.parametrize("name", SMALL)
def test_a_baselines_gradients(name):
    """Of one channel: of two BS-RNN's loss chooses one by the device's own generator."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = baselines.load(name)(**SMALL[name], channels=1)
        waves = torch.randn(2, 2, 1, SMALL[name]["chunk_samples"]) / 10
    losses, gradients = [], []
    for device in ("cpu", DEVICE):
        model.to(device).zero_grad()
        losses.append(model.loss(*waves.to(device), seeded_generator(0, device=device)))
        losses[-1].backward()
        learned = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        gradients.append(torch.cat([gradient.flatten().cpu() for gradient in learned]))
    assert_same(*losses)
    assert_same(*gradients)


@pytest.mark.parametrize("system", ["ldm-dmx", "bsrnn"])
def test_a_run_there_saves_what_is_loaded_here(
    system, model_folder, toy_root, tmp_path, rng, fresh_accelerate
):
    """Loader, steps, validation, checkpoint and the saved system, as the command makes them."""
    flags = {
        "system": system,
        "data_root": toy_root,
        "output_dir": tmp_path,
        "pairs": 4,
        "validation_pairs": 1,
    }
    flags |= {"hold_out_seconds": 2, "train_batch_size": 2, "max_train_steps": 2, "logging_steps": 1}
    if system == "ldm-dmx":
        flags |= {"pretrained_model_name_or_path": model_folder, "train_conditioner": True}
    else:
        flags |= SMALL[system]
    train.main([f"--{key}={value}" for key, value in flags.items()])
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert all(np.isfinite(value) for record in log for value in record.values())
    assert json.loads((tmp_path / "run.json").read_text())["device"].startswith(DEVICE)
    assert (tmp_path / "checkpoint-2" / "complete.json").is_file()
    model = load_separator(str(tmp_path / "model"))
    clip = rng.uniform(-0.1, 0.1, (2, 30_000)).astype(np.float32)
    with in_precision("fp32", DEVICE):  # a run lets a GPU multiply in tf32
        assert_same(*(separate(model.to(device), clip, 44_100) for device in ("cpu", DEVICE)))


def test_the_decoded_loss():
    waves = torch.randn(3, 2, 1, 24_000, generator=torch.Generator().manual_seed(0)) / 10
    losses, gradients = [], []
    for device in ("cpu", DEVICE):
        estimate, vocals, mixture = waves.to(device)
        estimate.requires_grad_()
        losses.append(decoded_loss(estimate, vocals, mixture, 0.5))
        losses[-1].backward()
        gradients.append(estimate.grad)
    assert_same(*losses)
    assert_same(*gradients)


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, Muon])
def test_a_step_and_one_that_is_left_out(optimizer):
    weights = []
    for device in ("cpu", DEVICE):
        generator = torch.Generator().manual_seed(0)
        parameters = [
            torch.nn.Parameter(torch.randn(shape, generator=generator).to(device)) for shape in ((4, 6), (5,))
        ]
        trained = optimizer(parameter_groups(parameters, 0.1), 0.1, fused=True)
        for broken in (0.0, 1.0, 0.0):
            for parameter in parameters:
                gradient = torch.randn(parameter.shape, generator=generator)
                parameter.grad = (gradient / (1 - broken)).to(device)
            trained.found_inf = torch.tensor(broken, device=device)
            trained.step()
        weights.append(parameters)
    for expected, found in zip(*weights, strict=True):
        assert_same(expected, found)


def test_pairs_on_the_device(toy_root):
    tracks = data.load_tracks(toy_root, "train")
    pairs = data.VocalPairs(tracks, 4, 0.5, 24_000, 1, 0, AUGMENTATIONS)
    here, there = (DevicePairs(pairs, device) for device in ("cpu", DEVICE))
    for index in range(len(pairs)):
        for key, wave in here[index].items():
            assert there[index][key].device.type == torch.device(DEVICE).type
            assert_same(wave, there[index][key])
