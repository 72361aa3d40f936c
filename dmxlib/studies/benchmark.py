"""How long everything takes: `python -m dmxlib.studies.benchmark` writes results/speed/.

benchmark.csv has one row a measurement. Separation is of a 12-s stereo clip at 44.1 kHz, resampling, padding
and refinement included; its parts are timed beside it, on one chunk. An iterative baseline's time is that of
its first step and of each further one times their number. Two of H-Demucs' chunks cover the clip; "total, in
one chunk" spares it the second. A training step is of one excerpt of white noise that is in memory already:
no reading, no augmentation. Paper sizes have random weights, which take the same time. `peak_mb` is the
process's: each case has its own, but with --quick. What a processor cannot compute in bf16 is left out, and
table.md says so.
"""

import argparse
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
import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from dmxlib import audio, baselines, separate
from dmxlib.baselines.base import Baseline, new_model
from dmxlib.codec import Codec
from dmxlib.codec.load import OFFICIAL
from dmxlib.config import from_values, read_yaml
from dmxlib.errors import exit_on_input_error
from dmxlib.latents import encode_batch
from dmxlib.pipeline import VocalSeparationPipeline
from dmxlib.refine import wiener
from dmxlib.reproduce import seeded_generator
from dmxlib.studies.benchmark_report import write
from dmxlib.studies.timing import compile_parts, computes_bf16, count, in_precision, timed
from dmxlib.training.decoded import DecodedStep
from dmxlib.training.separator import TrainConfig, TrainStep, new_pipeline

CONFIGS, RATE = Path(__file__).parents[1] / "configs", 44_100
LIMIT_SECONDS = 600  # of a case, which compiling can exceed
SWEEP = (1, 2, 4, 10, 20, 50)  # sampling steps


@dataclass(frozen=True)
class Case:
    """What is timed: `measure` takes the case and gives {part: seconds of each repeat}, parameters."""

    measure: Callable
    system: str = "ldm-dmx"
    size: str = "mini"
    precision: str = "fp32"
    compiled: bool = False
    steps: int | None = None
    seconds: float = 12.0  # of audio
    whole: bool = False  # a baseline's chunk is the clip, not what it was trained on
    repeats: int = 5


def all_cases(repeats: int) -> list[Case]:
    """The whole benchmark."""
    sizes, plain, half, compiled = ("paper", "mini"), ("fp32", False), ("bf16", False), ("fp32", True)
    repeated = [
        *(
            Case(separation, "ldm-dmx", size, precision, steps=steps)
            for size, precision, steps in product(sizes, ("fp32", "bf16"), SWEEP)
        ),
        # compiling takes minutes; what it gives a step shows at two numbers of them
        *(Case(separation, "ldm-dmx", "paper", *compiled, steps) for steps in (1, 10)),
        *(Case(unet, size=size) for size in sizes),
        *(
            Case(baseline, "hdemucs", "paper", *form, whole=whole)
            for whole, form in product((False, True), (plain, half, compiled))
        ),
        *(Case(baseline, name, "paper") for name in ("bsrnn", "msdm", "instglow")),
        *(Case(training, size=size) for size in sizes),
        Case(command_line),
    ]
    return [
        *(replace(case, repeats=repeats) for case in repeated),
        *(Case(training, name, "paper", repeats=1) for name in baselines.SYSTEMS),
        *(Case(song, steps=1, seconds=60 * minutes, repeats=1) for minutes in (1, 60)),
    ]


def quick_cases() -> list[Case]:
    """Each kind once, small and short."""
    return [
        Case(separation, steps=1, seconds=1, repeats=2),
        Case(unet, repeats=1),
        *(Case(baseline, name, seconds=0.5, repeats=1) for name in ("hdemucs", "instglow")),
        *(Case(training, name, repeats=1) for name in ("ldm-dmx", "instglow")),
        Case(song, steps=1, seconds=1, repeats=1),
        Case(command_line, repeats=1),
    ]


def rows(case: Case) -> list[dict]:
    """Take a case's measurements: the rows of benchmark.csv."""
    torch.manual_seed(0)
    times, parameters = case.measure(case)
    peak = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    row = {name: getattr(case, name) for name in ("system", "size", "precision", "compiled", "steps")}
    return [
        {
            **row,
            "part": part,
            "seconds_median": np.median(seconds),
            "seconds_std": np.std(seconds),
            "peak_mb": peak,
            "parameters": parameters,
        }
        for part, seconds in times.items()
    ]


def limited(case: Case, seconds: int = LIMIT_SECONDS) -> list[dict]:
    """`rows`, in a process of its own: after so many seconds it ends, with all the processes it started."""
    os.setpgrp()
    signal.signal(signal.SIGALRM, lambda *_: os.killpg(0, signal.SIGKILL))
    signal.alarm(seconds)
    return rows(case)


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
    pipeline, clip = ldm_dmx(case.size), noise(case)
    if case.compiled:
        compile_parts(pipeline.unet)
    total = partial(pipeline, clip, RATE, num_inference_steps=case.steps, refine="wiener")
    chunk, bandwidth = torch.randn(1, pipeline.codec.channels, pipeline.chunk_samples) / 10, RATE / 4
    with in_precision(case.precision):
        times = timed({"warm-up": total}, repeats=1, skip=0)
        condition = pipeline.conditioner(chunk)
        latents = pipeline.sample(condition, case.steps)
        parts = {
            "total": total,
            "conditioner": lambda: pipeline.conditioner(chunk),
            "unet": lambda: pipeline.sample(condition, case.steps),
            "decoder": lambda: pipeline.decode(latents, chunk),
            "refinement": lambda: wiener(clip, clip, RATE, bandwidth),
        }
        times |= timed(parts, case.repeats)
    return times, count(pipeline.unet, pipeline.conditioner)


@torch.no_grad()
def unet(case: Case):
    """A sampling step of one chunk in several ways."""
    pipeline = ldm_dmx(case.size)
    network, length = pipeline.unet, pipeline.config.chunk_frames
    latents = torch.randn(1, network.config.latent_channels, length)
    condition = torch.randn(1, network.config.condition_channels, length)

    halves = network.mixture_halves(condition, length)

    def in_bf16():
        with in_precision("bf16"):
            network(latents, 500, halves)

    calls = {
        "step: mixture merged anew": partial(network, latents, 500, condition),
        "step: mixture's half once a chunk": partial(network, latents, 500, halves),
    }
    if computes_bf16():
        calls["step: the same in bf16"] = in_bf16
    return timed(calls, case.repeats), count(network)


def new_baseline(case: Case) -> Baseline:
    """Another system of the case's size, with random weights."""
    module, config = baselines.module(case.system), read_yaml(CONFIGS / f"{case.size}_{case.system}.yaml")
    if case.whole:
        config["chunk_samples"] = round(case.seconds * RATE)
    return new_model(baselines.load(case.system), from_values(module.TrainConfig, config))


def baseline(case: Case, clock=timed):
    """Another system from the clip to its vocals: its first step, and each further one times their number."""
    model, clip = new_baseline(case).eval(), noise(case)
    if case.compiled:
        compile_parts(model.network)
    iterations = model.num_inference_steps
    counts = (1, 2) if iterations > 1 else (1,)
    calls = {steps: partial(model.separate, clip, RATE, steps=steps, quiet=True) for steps in counts}
    with in_precision(case.precision):
        times = clock(calls, case.repeats)
    further = np.subtract(times[2], times[1]) if iterations > 1 else 0.0
    total = np.add(times[1], (iterations - 1) * further)
    return {"total, in one chunk" if case.whole else "total": total}, count(model)


def training(case: Case):
    """An optimiser step on one excerpt; of LDM-dmx in each stage, from waves and from the cache."""
    if case.system != "ldm-dmx":
        model = new_baseline(case).train()
        pair = torch.randn(2, 1, model.config.channels, model.config.chunk_samples) / 10
        step = optimizer_step(model, lambda: model.loss(*pair, seeded_generator(0)))
        return timed({"training step from audio": step}, case.repeats), count(model)
    times = {}
    for stage, source in (*product((1, 2), ("audio", "cache")), (3, "audio")):
        pipeline = ldm_dmx(case.size)
        chunk = torch.randn(1, pipeline.codec.channels, pipeline.chunk_samples)
        batch = {"vocals": chunk, "mixture": chunk}
        if source == "cache":  # with the keys that CachedPairs reads
            batch = encode_batch(pipeline.codec, batch)
            del batch["condition" if stage == 2 else "mixture"]
        if stage == 3:
            module = DecodedStep(pipeline, train_conditioner=False, validation=[], log_weight=0.5)
        else:
            module = TrainStep(pipeline, train_conditioner=stage == 2, validation=[])
        step = optimizer_step(module, lambda m=module, b=batch: m(b, seeded_generator(0)))
        times |= timed({f"stage {stage}, training step from {source}": step}, case.repeats)
    return times, count(pipeline.unet, pipeline.conditioner)


def optimizer_step(module: nn.Module, loss: Callable) -> Callable:
    """A function that takes one step on `loss()`."""
    optimizer = torch.optim.AdamW(module.parameters())

    def step():
        loss().backward()
        optimizer.step()
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
        call = partial(separate.main, [str(path), "-o", folder, "--steps", str(case.steps)])
        times = timed({f"song of {case.seconds:g} s": call}, repeats=1, skip=0)
    pipeline = ldm_dmx(case.size)
    return times, count(pipeline.unet, pipeline.conditioner)


def command_line(case: Case):
    """What a user waits for before anything happens."""
    commands = {"--help": ["-m", "dmxlib.separate", "--help"], "import": ["-c", "import dmxlib.pipeline"]}
    calls = {
        part: partial(subprocess.check_output, [sys.executable, *words]) for part, words in commands.items()
    }
    return timed(calls, case.repeats), None


@exit_on_input_error
def main(argv=None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m dmxlib.studies.benchmark", description="Time everything; see results/README.md."
    )
    parser.add_argument("--output_dir", default="results/speed", help="folder to write to")
    parser.add_argument("--repeats", type=int, default=5, help="timed calls, after one that is not counted")
    parser.add_argument("--quick", action="store_true", help="each kind once, small and in one process")
    options = parser.parse_args(argv)
    cases = quick_cases() if options.quick else all_cases(options.repeats)
    cases = [case for case in cases if case.precision == "fp32" or computes_bf16()]
    table, folder = [], Path(options.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    for case in tqdm(cases, desc="benchmark", unit="case"):
        if options.quick:
            table += rows(case)
        else:
            try:  # a new process for each: its peak of memory is the case's own
                with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                    table += pool.submit(limited, case).result()
            except Exception as error:  # of a compiler, for want of memory or time; others go on
                tqdm.write(f"failed: {case}: {type(error).__name__}: {error}".split("\n")[0])
        pd.DataFrame(table).to_csv(folder / "benchmark.csv", index=False)  # it all takes half an hour
    write(pd.DataFrame(table), folder)


if __name__ == "__main__":
    main()
