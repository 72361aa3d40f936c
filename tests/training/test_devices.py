"""Every step learns, validates and saves on the accelerator's device: no tensor is left on the processor.

There is no GPU here. Under torch's FakeTensorMode tensors have a shape and a device and no numbers, and an
operation on tensors of two devices raises as CUDA would. The device is torch's "lazy": a backward on "cuda"
asks for the driver even under FakeTensorMode, one on "lazy" runs in the processor's own thread.
"""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from diffusers.training_utils import EMAModel
from torch._subclasses import fake_impls
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._pytree import tree_map_only

from dmxlib import baselines
from dmxlib.baselines import base, msgld
from dmxlib.codec.quantizer import QuantizedCodec
from dmxlib.latents import encode_batch
from dmxlib.pipeline import VocalSeparationPipeline
from dmxlib.reproduce import seeded_generator
from dmxlib.studies import few_steps, robustness
from dmxlib.training import checkpoints, decoded, loop, separator
from dmxlib.training import codec as codec_training
from dmxlib.training.log import Log
from dmxlib.training.optimizer import make_optimizer

DEVICE = "lazy:0"
SIZES = dict(level_channels=[8, 8], attention_from=1, fourier_channels=8, time_channels=8, chunk_frames=8)
SEANET = dict(channels=1, dimension=8, n_filters=2, ratios=[5, 8, 8], norm="time_group_norm", lstm=0)
BASELINES = {
    "hdemucs": {"width": 4, "chunk_samples": 16_384},
    "bsrnn": {"features": 8, "pairs_of_layers": 1, "hop": 512, "chunk_samples": 16_384},
    "msdm": dict(
        patch=16,
        level_channels=[8, 8],
        blocks_per_level=1,
        attention_from=1,
        fourier_channels=8,
        time_channels=8,
        chunk_samples=8192,
    ),
    "instglow": {"blocks": 1, "hidden": 4, "chunk_samples": 8192},
}


@pytest.fixture(autouse=True)
def gpu(monkeypatch):
    """A mode with a GPU without numbers; what is read of a tensor that came back to the processor is made up.

    Models are made outside of it, and moved inside.
    """
    real = torch.Generator

    def to_array(tensor):
        assert tensor.device.type == "cpu", "numpy takes no tensor of a GPU"
        return np.random.default_rng(0).random(tuple(tensor.shape), np.float32)

    def copied(tensor, memo):  # the real one of this device loses it
        return torch.nn.Parameter(tensor.detach().clone(), tensor.requires_grad)

    class Generator(real):  # CUDA's needs a GPU
        def __new__(cls, device="cpu"):
            return real()

    def istft(spectrum, *args, window, length, **settings):  # the real one reads its window
        assert spectrum.device == window.device
        return spectrum.real.mean(dim=(-2, -1))[..., None].expand(*spectrum.shape[:-2], length)

    monkeypatch.setattr(torch, "istft", istft)
    monkeypatch.setattr(torch, "Generator", Generator)
    # what cov asks of its weights
    monkeypatch.setitem(fake_impls.op_implementations_dict, torch.ops.aten.equal.default, lambda *_: True)
    monkeypatch.setattr(FakeTensor, "numpy", to_array, raising=False)
    monkeypatch.setattr(FakeTensor, "item", lambda tensor: 1.0, raising=False)
    monkeypatch.setattr(FakeTensor, "__deepcopy__", copied, raising=False)
    monkeypatch.setattr(FakeTensor, "tolist", lambda tensor: [1.0] * len(tensor), raising=False)
    monkeypatch.setattr(FakeTensor, "unique", lambda tensor: [0], raising=False)
    monkeypatch.setattr(
        sys.modules["torch.optim.optimizer"], "_get_fused_kernels_supported_devices", lambda: ["lazy"]
    )
    return FakeTensorMode(allow_non_fake_inputs=True)


def pairs(channels, samples, count=2):
    """A data set: waves on the processor, as a DataLoader gives them."""
    return [{key: torch.randn(channels, samples) for key in ("vocals", "mixture")} for _ in range(count)]


def on_gpu(dataset):
    """A batch as Accelerate hands it to a step."""
    batch = torch.utils.data.default_collate(dataset)
    return {key: tensor.to(DEVICE) for key, tensor in batch.items()}


def to_gpu(module):
    """`module.to(DEVICE)`, which does not know how to exchange parameters without numbers."""
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            moved = parameter.detach().to(DEVICE)
            setattr(part, name, torch.nn.Parameter(moved, requires_grad=parameter.requires_grad))
        for name, buffer in list(part.named_buffers(recurse=False)):
            setattr(part, name, buffer.to(DEVICE))
    return module


def check(step, batch, tmp_path, optimizer="adamw"):
    """A step of the loop: loss, gradients, clipping, the optimiser's step, the weights' average; and a
    validation with that average."""
    run = object.__new__(loop.Run)
    run.config = loop.TrainerConfig(optimizer=optimizer)
    run.accelerator = SimpleNamespace(
        clip_grad_norm_=torch.nn.utils.clip_grad_norm_, unwrap_model=lambda module: module, scaler=None
    )
    run.module, run.step, run.skipped = step, 0, torch.zeros(2, device=DEVICE)
    run.log = Log(tmp_path / "log.jsonl", writes=True)
    run.parameters = [parameter for parameter in step.parameters() if parameter.requires_grad]
    own = make_optimizer(run.parameters, run.config)
    run.optimizer = SimpleNamespace(optimizer=own)  # as Accelerate wraps it
    run.ema = EMAModel(run.parameters)
    with torch.enable_grad():
        loss = step.train()(batch, seeded_generator(0, device=DEVICE))
        loss.backward()
    gradients = [parameter.grad for parameter in run.parameters if parameter.grad is not None]
    assert {str(tensor.device) for tensor in (loss, *gradients)} == {DEVICE}
    run.update(loss.detach())
    assert run.log.unread[0][1].device == torch.device(DEVICE), "what is logged waits on the device"
    assert len(own.state) == len(gradients)
    with torch.no_grad(), run.averaged_weights() as module:
        figures, waves, _ = module.eval().validate()
    assert figures and all(isinstance(figure, float) for figure in figures.values())
    assert waves and all(isinstance(wave, np.ndarray) for wave in waves.values())


class WithoutSampler(VocalSeparationPipeline):
    """The real one reads numbers."""

    def sample(self, condition, *_, **__):
        shape = (len(condition), self.unet.config.latent_channels, condition.shape[-1])
        return torch.randn(shape, device=condition.device)


@pytest.fixture
def pipeline(gpu):
    """A tiny system on the GPU."""
    codec = QuantizedCodec(24_000, SEANET, n_q=2, bins=4).eval()
    made = separator.new_pipeline(codec, separator.TrainConfig(**SIZES))
    pipeline = WithoutSampler(**made.components, chunk_frames=SIZES["chunk_frames"])
    with gpu:
        for part in (pipeline.codec, pipeline.conditioner, pipeline.unet):
            to_gpu(part)
        yield pipeline


@pytest.mark.parametrize("stage", ["1", "2", "3", "student"])
def test_the_separator(pipeline, tmp_path, stage):
    dataset = pairs(1, pipeline.chunk_samples)
    if stage == "3":
        step = decoded.DecodedStep(pipeline, True, dataset, log_weight=0.1)
    elif stage == "student":
        config = few_steps.TrainConfig(teacher_steps=2)
        step = few_steps.DistillStep(pipeline, dataset, config)
    else:
        step = separator.TrainStep(pipeline, stage == "2", dataset)
    check(step, on_gpu(dataset), tmp_path, optimizer="muon" if stage == "1" else "adamw")


class WithoutFiles(QuantizedCodec):
    """There are no numbers to save."""

    def save_pretrained(self, folder):
        pass


@pytest.mark.parametrize("adversarial_weight", [0.0, 1.0])
def test_the_codec(gpu, tmp_path, adversarial_weight):
    config = codec_training.CodecTrainConfig(adversarial_weight=adversarial_weight)
    codec, dataset = WithoutFiles(24_000, SEANET, n_q=2, bins=4), pairs(1, 320 * 8, 4)
    step = codec_training.CodecStep(codec, dataset, dataset, dataset, config)
    with gpu, torch.no_grad():
        check(to_gpu(step), on_gpu(dataset), tmp_path)
        step.save(tmp_path)
    assert (tmp_path / "quantizer.json").is_file()


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline(gpu, tmp_path, monkeypatch, name):
    monkeypatch.setattr(base, "PREVIEW_STEPS", 1)
    model = baselines.load(name)(**BASELINES[name])
    dataset = pairs(model.config.channels, model.config.chunk_samples)
    with gpu:
        check(base.TrainStep(to_gpu(model), dataset), on_gpu(dataset), tmp_path)


def test_msgld(pipeline, tmp_path, monkeypatch):
    """On a codec that is no part of what learns."""
    monkeypatch.setattr(base, "PREVIEW_STEPS", 2)
    monkeypatch.setattr(DDIMScheduler, "step", one_step)
    sizes = {key: size for key, size in SIZES.items() if key != "chunk_frames"}
    model = msgld.MSGLD("none", **sizes, blocks_per_level=1, latent_channels=8, chunk_samples=320 * 8)
    model.__dict__["_codec"] = pipeline.codec.requires_grad_(False)
    dataset = pairs(1, model.config.chunk_samples)
    check(base.TrainStep(to_gpu(model), dataset), on_gpu(dataset), tmp_path)


def one_step(scheduler, v, timestep, sample):  # the real one reads the timestep
    assert v.device == sample.device == timestep.device
    return SimpleNamespace(prev_sample=sample - v)


def test_what_was_saved_on_the_device_goes_back_onto_it(gpu, tmp_path, monkeypatch):
    """Read onto the processor, a checkpoint's parts are on the device in another run, whose next step works.

    No bytes are written: this cannot show that safetensors and `torch.save` take a GPU's tensors, nor that
    the numbers come back the same, for there are none.
    """
    files = {}

    def write(content, path):
        files[path.name] = tree_map_only(torch.Tensor, lambda tensor: tensor.detach().cpu(), content)

    def read(path, map_location="cpu", weights_only=True):
        assert map_location == "cpu" and weights_only
        return files[path.name]

    for place, saves, loads in ((checkpoints, "save_file", "load_file"), (torch, "save", "load")):
        monkeypatch.setattr(place, saves, write)
        monkeypatch.setattr(place, loads, read)
    monkeypatch.setattr(FakeTensor, "__bool__", lambda tensor: True)  # each weight is finite

    def new_run():
        run = object.__new__(loop.Run)
        run.config, run.folder, run.step = loop.TrainerConfig(), tmp_path, 0
        run.accelerator = SimpleNamespace(
            device=torch.device(DEVICE),
            is_main_process=True,
            unwrap_model=lambda module: module,
            wait_for_everyone=lambda: None,
        )
        run.module = to_gpu(torch.nn.Conv1d(1, 1, 3))
        run.parameters, run.skipped = [*run.module.parameters()], torch.zeros(2, device=DEVICE)
        run.optimizer, run.ema = make_optimizer(run.parameters, run.config), EMAModel(run.parameters)
        return run

    def learn(run):
        for parameter in run.parameters:
            parameter.grad = torch.randn_like(parameter)
        run.optimizer.step()
        run.ema.step(run.parameters)
        run.step += 1

    def parts(run):
        state = [value for values in run.optimizer.state.values() for value in values.values()]
        return [*run.module.state_dict().values(), *run.ema.shadow_params, *state]

    with gpu, torch.no_grad():
        first, second = new_run(), new_run()
        learn(first)
        first.save_checkpoint(0, {})
        second.load_checkpoint(checkpoints.find_checkpoint("latest", tmp_path))
        assert second.step == 1
        assert [part.device for part in parts(second)] == [part.device for part in parts(first)]
        assert {part.device.type for part in parts(second)} == {"lazy"}
        learn(second)


def test_batches_are_pinned_and_workers_stay(gpu, fresh_accelerate, tmp_path):
    """What the loader needs to fill a GPU's next batch while it learns from this one."""
    config = loop.TrainerConfig(dataloader_num_workers=1, output_dir=str(tmp_path))
    assert loop.make_accelerator(config).dataloader_config.non_blocking
    for device in ("cuda", "cpu"):
        accelerator = SimpleNamespace(
            device=torch.device(device), is_main_process=False, num_processes=1, prepare=lambda *parts: parts
        )
        with gpu:
            loader = loop.Run(torch.nn.Conv1d(1, 1, 1), range(100), config, accelerator).loader
        assert loader.persistent_workers and loader.pin_memory == (device == "cuda")


class Waiting(Exception):
    """A number of the device was asked for."""


@pytest.fixture
def no_waits(monkeypatch):
    """From this call on, what a number of a GPU is asked for is not known without waiting."""

    def wait(*_):
        raise Waiting

    def begin():
        for name in ("item", "tolist", "numpy", "__bool__", "__float__", "__int__", "cpu"):
            monkeypatch.setattr(FakeTensor, name, wait, raising=False)

    return begin


@pytest.mark.parametrize("source, stage", [("cache", 1), ("audio", 1), ("cache", 2), ("audio", 2)])
def test_no_loss_waits_for_the_device(pipeline, no_waits, source, stage):
    batch = on_gpu(pairs(1, pipeline.chunk_samples))
    if source == "cache":
        batch = encode_batch(pipeline.codec, batch)
        del batch["condition" if stage == 2 else "mixture"]
        batch = {key: tensor.to(DEVICE) for key, tensor in batch.items()}
    step = separator.TrainStep(pipeline, stage == 2, [])
    no_waits()
    with torch.enable_grad():
        loss = step.train()(batch, seeded_generator(0, device=DEVICE))
        loss.backward()
    with pytest.raises(Waiting):
        float(loss)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_no_step_waits_for_the_device(gpu, fresh_accelerate, no_waits, optimizer):
    no_waits()
    config = loop.TrainerConfig(optimizer=optimizer)
    accelerator = loop.make_accelerator(config)
    accelerator.device_placement = False
    with gpu:
        module = to_gpu(torch.nn.Sequential(torch.nn.Conv1d(1, 4, 3), torch.nn.Conv1d(4, 1, 3)))
        run = loop.Run(module, range(100), config, accelerator)
        run.skipped = run.skipped.to(DEVICE)
        for _ in range(2):
            for parameter in module.parameters():
                parameter.grad = torch.randn_like(parameter)
            run.update(torch.ones((), device=DEVICE))
        with pytest.raises(Waiting):
            run.log.read()


def test_the_latent_cache(pipeline):
    """Waves come from the loader, and what is written comes back."""
    batch = torch.utils.data.default_collate(pairs(1, pipeline.chunk_samples))
    encoded = encode_batch(pipeline.codec, batch)
    assert {tensor.device.type for tensor in encoded.values()} == {"cpu"}


@torch.no_grad()
def test_the_noise_study(pipeline):
    """Every place that noise is added at, one stream and segments."""
    codec = robustness.raw(pipeline.codec)
    waves = [torch.randn(1, 1, 320 * 8).to(DEVICE)]
    made = [*robustness.noise_estimates(codec, waves, (0,), (0.0, 0.1))]
    assert {row["experiment"] for row, _ in made} == {*robustness.TITLES}
    made += robustness.stream_estimates(codec, waves)
    assert {estimate.shape for _, estimate in made} == {(1, 320 * 8)}


def test_a_tensor_on_the_processor_is_noticed(pipeline):
    dataset = pairs(1, pipeline.chunk_samples)
    step, batch = separator.TrainStep(pipeline, True, dataset), on_gpu(dataset)
    for key in batch:
        with pytest.raises(RuntimeError, match="device"):
            step({**batch, key: batch[key].cpu()}, seeded_generator(0, device=DEVICE))
