"""What the benchmark measures: a case, and a function for each kind of them."""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from diffusers.training_utils import EMAModel
from torch import nn

from dmxlib import audio, baselines, separate
from dmxlib.baselines.base import Baseline, new_model
from dmxlib.codec import Codec
from dmxlib.codec.load import OFFICIAL
from dmxlib.config import from_values, read_yaml
from dmxlib.latents import encode_batch
from dmxlib.pipeline import VocalSeparationPipeline
from dmxlib.refine import wiener
from dmxlib.reproduce import seeded_generator
from dmxlib.studies.timing import compile_parts, count, in_precision, timed
from dmxlib.training.decoded import DecodedStep
from dmxlib.training.separator import TrainConfig, TrainStep, new_pipeline

CONFIGS, RATE = Path(__file__).parents[1] / "configs", 44_100


@dataclass(frozen=True)
class Case:
    """What is timed: `measure` takes the case and gives {part: seconds of each repeat}, parameters."""

    measure: Callable
    system: str = "ldm-dmx"
    size: str = "mini"
    precision: str = "fp32"
    compiled: bool = False
    steps: int | None = None
    batch: int | None = None  # of a training step
    stage: int = 1
    source: str = "audio"  # of a training step: audio or cache
    seconds: float = 12.0  # of audio
    whole: bool = False  # a baseline's chunk is the clip, not what it was trained on
    repeats: int | None = None  # what the command says
    device: str = "cpu"


def ldm_dmx(size: str) -> VocalSeparationPipeline:
    """The system that ships, or the paper's with random weights."""
    if size == "mini":
        pipeline = VocalSeparationPipeline.from_pretrained("ldm-dmx-mini")
    else:
        config = from_values(TrainConfig, read_yaml(CONFIGS / "paper_stage1.yaml"))
        pipeline = new_pipeline(Codec.from_config(OFFICIAL["48khz"]), config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def noise(case: Case) -> np.ndarray:
    """The clip: (2, samples)."""
    return torch.randn(2, round(case.seconds * RATE)).numpy() / 10


@torch.no_grad()
def separation(case: Case):
    """LDM-dmx from the clip to its vocals, and the parts of that; the first call is "warm-up"."""
    pipeline, clip = ldm_dmx(case.size).to(case.device), noise(case)
    if case.compiled:
        compile_parts(pipeline.unet)
    total = partial(pipeline, clip, RATE, num_inference_steps=case.steps, refine="wiener")
    chunk = torch.randn(1, pipeline.codec.channels, pipeline.chunk_samples).to(case.device) / 10
    with in_precision(case.precision, case.device):
        times = timed({"warm-up": total}, repeats=1, skip=0, device=case.device)
        condition = pipeline.conditioner(chunk)
        latents = pipeline.sample(condition, case.steps)
        parts = {
            "total": total,
            "conditioner": lambda: pipeline.conditioner(chunk),
            "unet": lambda: pipeline.sample(condition, case.steps),
            "decoder": lambda: pipeline.decode(latents, chunk),
            "refinement": lambda: wiener(clip, clip, RATE, RATE / 4),
        }
        times |= timed(parts, case.repeats, device=case.device)
    return times, count(pipeline.unet, pipeline.conditioner)


@torch.no_grad()
def unet(case: Case):
    """A sampling step of one chunk in two ways."""
    pipeline = ldm_dmx(case.size).to(case.device)
    network, length = pipeline.unet, pipeline.config.chunk_frames
    latents = torch.randn(1, network.config.latent_channels, length).to(case.device)
    condition = torch.randn(1, network.config.condition_channels, length).to(case.device)
    with in_precision(case.precision, case.device):
        halves = network.mixture_halves(condition, length)
        calls = {
            "step: mixture merged anew": partial(network, latents, 500, condition),
            "step: mixture's half once a chunk": partial(network, latents, 500, halves),
        }
        return timed(calls, case.repeats, device=case.device), count(network)


def new_baseline(case: Case) -> Baseline:
    """Another system of the case's size on its device, with random weights; so has a codec that it needs."""
    module, config = baselines.module(case.system), read_yaml(CONFIGS / f"{case.size}_{case.system}.yaml")
    if case.whole:
        config["chunk_samples"] = round(case.seconds * RATE)
    with tempfile.TemporaryDirectory() as folder:
        if case.size == "paper" and "codec" in config:
            config["codec"] = folder
            Codec.from_config(OFFICIAL["48khz"]).save_pretrained(folder)
        model = new_model(baselines.load(case.system), from_values(module.TrainConfig, config))
        model.to(case.device)
        getattr(model, "codec", None)  # read while the folder is there
    return model


def baseline(case: Case, clock=timed):
    """Another system from the clip to its vocals: its first step, and each further one times their number."""
    model, clip = new_baseline(case).eval(), noise(case)
    if case.compiled:
        compile_parts(model.network)
    iterations = model.num_inference_steps
    counts = (1, 2) if iterations > 1 else (1,)
    calls = {steps: partial(model, clip, RATE, num_inference_steps=steps) for steps in counts}
    with in_precision(case.precision, case.device):
        times = clock(calls, case.repeats, device=case.device)
    further = np.subtract(times[2], times[1]) if iterations > 1 else 0.0
    total = np.add(times[1], (iterations - 1) * further)
    return {"total, in one chunk" if case.whole else "total": total}, count(model)


def training(case: Case):
    """An optimiser step on a batch of excerpts; of LDM-dmx in one stage, from waves or from the cache. With a
    compiled U-Net the first is "warm-up", and the same step without takes turns with the others."""
    if case.system == "ldm-dmx":
        module, batch = ldm_dmx_training(case)
        parts = (module.pipeline.unet, module.pipeline.conditioner)
        part, loss = f"stage {case.stage}, training step from {case.source}", partial(module, batch)
    else:
        module, part = new_baseline(case).train(), "training step from audio"
        parts = (module,)
        shape = (2, case.batch, module.config.channels, module.config.chunk_samples)
        loss = partial(module.loss, *torch.randn(shape).to(case.device) / 10)
    generator = seeded_generator(0, device=case.device)
    with in_precision(case.precision, case.device, search=True):
        step = optimizer_step(module, lambda: loss(generator))
        times, calls = {}, {part: step}
        if case.compiled:
            times = timed({"warm-up": step}, repeats=1, skip=0, device=case.device)
            calls[f"{part}, not compiled"] = torch.compiler.set_stance("force_eager")(step)
        times |= timed(calls, case.repeats, device=case.device)
    return times, count(*parts)


def ldm_dmx_training(case: Case) -> tuple[nn.Module, dict]:
    """A stage's module, and a batch for it."""
    pipeline = ldm_dmx(case.size).to(case.device)
    if case.compiled:
        pipeline.unet.compile()
    chunk = torch.randn(case.batch, pipeline.codec.channels, pipeline.chunk_samples)
    batch = {"vocals": chunk, "mixture": chunk}
    if case.source == "cache":  # with the keys that CachedPairs reads
        batch = encode_batch(pipeline.codec, batch)
        del batch["condition" if case.stage == 2 else "mixture"]
    batch = {key: value.to(case.device) for key, value in batch.items()}
    if case.stage == 3:
        return DecodedStep(pipeline, train_conditioner=False, validation=[], log_weight=0.5), batch
    return TrainStep(pipeline, train_conditioner=case.stage == 2, validation=[]), batch


def optimizer_step(module: nn.Module, loss: Callable) -> Callable:
    """A function that takes one step on `loss()`, as the training loop does."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer, average = torch.optim.AdamW(parameters, fused=True), EMAModel(parameters, foreach=True)

    def step():
        loss().backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        average.step(parameters)
        optimizer.zero_grad()

    return step


def song(case: Case):
    """The command line on a song of noise, from file to files; `case.system` is a model that ships."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "song.wav"
        with audio.open_for_writing(path, RATE) as file:
            for start in range(0, round(case.seconds), 10):
                block = min(10, case.seconds - start)
                audio.write_block(file, torch.randn(2, round(block * RATE)).numpy() / 10)
        argv = [str(path), "-n", case.system, "-o", folder, "-d", case.device]
        argv += ["--steps", str(case.steps)] if case.steps else []
        call = partial(separate.main, argv)
        return timed({f"song of {case.seconds:g} s": call}, repeats=1, skip=0, device=case.device), None


def command_line(case: Case):
    """What a user waits for before anything happens."""
    commands = {"--help": ["-m", "dmxlib.separate", "--help"], "import": ["-c", "import dmxlib.pipeline"]}
    calls = {
        part: partial(subprocess.check_output, [sys.executable, *words]) for part, words in commands.items()
    }
    return timed(calls, case.repeats), None


KINDS = {kind.__name__: kind for kind in (separation, unet, baseline, training, song, command_line)}
