"""How long everything takes: `python -m dmxlib.studies.benchmark [--device cuda]` writes results/speed/.

benchmark.csv has one row a measurement. Separation is of a 12-s stereo clip at 44.1 kHz, resampling, padding
and refinement included; its parts are timed beside it, on one chunk. An iterative baseline's time is that of
its first step and of each further one times their number. Two of H-Demucs' chunks cover the clip; "total, in
one chunk" spares it the second. A training step is of excerpts of white noise that are in memory already: no
reading, no augmentation. Paper sizes have random weights, which take the same time. What a device cannot
compute in bf16 or tf32 is left out, and table.md says so.

`peak_mb` is the process's, each case having its own on a processor, but with --quick; `gpu_peak_mb` what
torch held of the GPU, at most. A GPU's own clock is read, after a call that is not counted. As the commands
have it, cuDNN searches for kernels in training alone: a song is too short for it.
"""

import argparse
import contextlib
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
from diffusers.training_utils import EMAModel
from torch import nn
from tqdm import tqdm

from dmxlib import audio, baselines, separate
from dmxlib.baselines.base import Baseline, new_model
from dmxlib.codec import Codec
from dmxlib.codec.load import OFFICIAL
from dmxlib.config import from_values, read_yaml
from dmxlib.device import find_device
from dmxlib.errors import InputError, exit_on_input_error
from dmxlib.latents import encode_batch
from dmxlib.pipeline import VocalSeparationPipeline
from dmxlib.refine import wiener
from dmxlib.reproduce import seeded_generator
from dmxlib.studies.benchmark_report import KEY, merged, read, write
from dmxlib.studies.timing import compile_parts, count, in_precision, precisions, timed
from dmxlib.training.decoded import DecodedStep
from dmxlib.training.separator import TrainConfig, TrainStep, new_pipeline

CONFIGS, RATE = Path(__file__).parents[1] / "configs", 44_100
LIMIT_SECONDS = 600  # of a case, which compiling can exceed
SWEEP = (1, 2, 4, 10, 20, 50)  # sampling steps
BATCHES = {"cpu": (1,), "cuda": (4, 8, 16, 32)}  # of a training step


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


def all_cases(device: str, batches=None) -> list[Case]:
    """The whole benchmark of a device."""
    kind = torch.device(device).type
    gpu, batches = kind == "cuda", batches or BATCHES[kind]
    plain = [(precision, False) for precision in precisions(device)]
    compiled = [(precision, True) for precision, _ in (plain[0], plain[-1])[: 1 + gpu]]
    sizes, paper, names = ("paper", "mini"), ["paper"], ("bsrnn", "instglow", "msgld", "msdm")
    cases = [
        *(Case(separation, steps=steps, **form) for form in forms(sizes, plain) for steps in SWEEP),
        *(Case(unet, **form) for form in forms(sizes, plain)),
        *(Case(baseline, "hdemucs", whole=w, **form) for form in forms(paper, plain) for w in (False, True)),
        *(
            Case(baseline, name, **form)
            for name in names
            for form in forms(paper, plain if gpu else plain[:1])
        ),
        *(Case(baseline, name) for name in baselines.SYSTEMS if gpu),
        # every batch in the last of the precisions, one in the others
        *(
            Case(training, batch=batch, stage=stage, source=source, **form)
            for form in forms(sizes, plain)
            for stage, source in (*product((1, 2), ("audio", "cache")), (3, "audio"))
            for batch in (batches if form["precision"] == plain[-1][0] and stage < 3 else batches[:1])
        ),
        *(Case(training, name, "paper", batch=1, repeats=1) for name in baselines.SYSTEMS),
        *(Case(song, steps=1, seconds=60 * minutes, repeats=1) for minutes in (1, 60)),
        *([] if gpu else [Case(command_line)]),
        # compiling takes minutes; what it gives a step shows at two numbers of them
        *(Case(separation, steps=steps, **form) for form in forms(paper, compiled) for steps in (1, 10)),
        *(
            Case(baseline, "hdemucs", whole=w, **form)
            for form in forms(paper, compiled)
            for w in (False, True)
        ),
        *(Case(training, batch=batches[0], source="cache", **form) for form in forms(sizes, compiled)),
    ]
    return cases


def forms(sizes, precisions) -> list[dict]:
    """Sizes, and pairs of precision and whether it is compiled, in all combinations, as Case takes them."""
    return [
        {"size": size, "precision": precision, "compiled": compiled}
        for size, (precision, compiled) in product(sizes, precisions)
    ]


def quick_cases() -> list[Case]:
    """Each kind once, small and short."""
    return [
        Case(separation, steps=1, seconds=1, repeats=2),
        Case(unet, repeats=1),
        *(Case(baseline, name, seconds=0.5, repeats=1) for name in ("hdemucs", "instglow")),
        *(
            Case(training, batch=2, stage=stage, source=source, repeats=1)
            for stage, source in ((1, "audio"), (1, "cache"), (2, "cache"), (3, "audio"))
        ),
        Case(training, "instglow", batch=1, repeats=1),
        Case(song, steps=1, seconds=1, repeats=1),
        Case(command_line, repeats=1),
    ]


def rows(case: Case) -> list[dict]:
    """Take a case's measurements: the rows of benchmark.csv."""
    torch.manual_seed(0)
    gpu = torch.device(case.device).type == "cuda"
    if gpu:
        torch.cuda.reset_peak_memory_stats(case.device)
    times, parameters = case.measure(case)
    peak = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    gpu_peak = round(torch.cuda.max_memory_allocated(case.device) / 2**20) if gpu else None
    row = {name: getattr(case, name) for name in KEY[:-1]}
    return [
        {
            **row,
            "part": part,
            "seconds_median": np.median(seconds),
            "seconds_std": np.std(seconds),
            "peak_mb": peak,
            "gpu_peak_mb": gpu_peak,
            "parameters": parameters,
        }
        for part, seconds in times.items()
    ]


def limited(case: Case, seconds: int = LIMIT_SECONDS) -> list[dict]:
    """`rows`, in a process of its own: after so many seconds it ends, with all the processes it started."""
    with contextlib.suppress(PermissionError):  # it leads its group already
        os.setpgrp()
    signal.signal(signal.SIGALRM, lambda *_: os.killpg(0, signal.SIGKILL))
    signal.alarm(seconds)
    try:
        return rows(case)
    finally:
        signal.alarm(0)


def measured(cases: list[Case]):
    """The rows of each case, in a new process: its peak of memory is the case's own, and a case that fails
    leaves the others alone. Cases of a GPU follow each other in one process, since its start takes longer
    than most of them."""
    spawn, pool = multiprocessing.get_context("spawn"), None
    for case in cases:
        pool = pool or ProcessPoolExecutor(1, spawn)
        kept = torch.device(case.device).type == "cuda"
        try:
            yield pool.submit(limited, case).result()
        except Exception as error:  # of a compiler, for want of memory or time
            kept = False
            tqdm.write(f"failed: {case}: {type(error).__name__}: {error}".split("\n")[0])
            yield []
        if not kept:
            pool.shutdown()
            pool = None
    if pool:
        pool.shutdown()


# -- what is measured ----------------------------------------------------------------------------------------


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
    calls = {steps: partial(model.separate, clip, RATE, steps=steps, quiet=True) for steps in counts}
    with in_precision(case.precision, case.device):
        times = clock(calls, case.repeats, device=case.device)
    further = np.subtract(times[2], times[1]) if iterations > 1 else 0.0
    total = np.add(times[1], (iterations - 1) * further)
    return {"total, in one chunk" if case.whole else "total": total}, count(model)


def training(case: Case):
    """An optimiser step on a batch of excerpts; of LDM-dmx in one stage, from waves or from the cache."""
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
        times = timed({part: step}, case.repeats, device=case.device)
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
    """The command line on a song of noise, from file to files."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "song.wav"
        with audio.open_for_writing(path, RATE) as file:
            for start in range(0, round(case.seconds), 10):
                block = min(10, case.seconds - start)
                audio.write_block(file, torch.randn(2, round(block * RATE)).numpy() / 10)
        argv = [str(path), "-n", "ldm-dmx-mini", "-o", folder, "--steps", str(case.steps), "-d", case.device]
        call = partial(separate.main, argv)
        times = timed({f"song of {case.seconds:g} s": call}, repeats=1, skip=0, device=case.device)
    pipeline = ldm_dmx(case.size)
    return times, count(pipeline.unet, pipeline.conditioner)


def command_line(case: Case):
    """What a user waits for before anything happens."""
    commands = {"--help": ["-m", "dmxlib.separate", "--help"], "import": ["-c", "import dmxlib.pipeline"]}
    calls = {
        part: partial(subprocess.check_output, [sys.executable, *words]) for part, words in commands.items()
    }
    return timed(calls, case.repeats), None


KINDS = {kind.__name__: kind for kind in (separation, unet, baseline, training, song, command_line)}


@exit_on_input_error
def main(argv=None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m dmxlib.studies.benchmark", description="Time everything; see results/README.md."
    )
    parser.add_argument(
        "--output_dir",
        default="results/speed",
        help="folder to write to; rows of other cases that are there stay",
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--repeats", type=int, default=5, help="timed calls, after one that is not counted")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=[*KINDS], help="these kinds of cases")
    parser.add_argument(
        "--sizes", nargs="+", choices=("paper", "mini"), default=["paper", "mini"], help="these sizes"
    )
    parser.add_argument(
        "--batches", nargs="+", type=int, help="of training steps (default: 1, a GPU 4 to 32)"
    )
    parser.add_argument("--quick", action="store_true", help="each kind once, small and in one process")
    options = parser.parse_args(argv)
    device = find_device(options.device)
    if device.type not in BATCHES or options.repeats < 1 or min(options.batches or [1]) < 1:
        raise InputError("--device has to be cpu or cuda, --repeats and --batches at least 1.")
    cases = quick_cases() if options.quick else all_cases(str(device), options.batches)
    kinds = [KINDS[name] for name in options.only]
    cases = [
        replace(case, device=str(device), repeats=case.repeats or options.repeats)
        for case in cases
        if case.measure in kinds and case.size in options.sizes
    ]
    folder, table = Path(options.output_dir), []
    folder.mkdir(parents=True, exist_ok=True)
    earlier = read(folder / "benchmark.csv")
    taken = map(rows, cases) if options.quick else measured(cases)
    for new in tqdm(taken, "benchmark", len(cases), unit="case"):
        table += new
        merged(earlier, table).to_csv(folder / "benchmark.csv", index=False)  # it all takes half an hour
    write(merged(earlier, table), folder, str(device))


if __name__ == "__main__":
    main()
