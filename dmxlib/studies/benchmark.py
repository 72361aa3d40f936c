"""How long everything takes: `python -m dmxlib.studies.benchmark` writes results/benchmark/.

- benchmark.csv: one row a measurement. Separation is of a 12-s stereo clip at 44.1 kHz, resampling, padding
  and refinement included; an iterative baseline's time is that of its first step and of each further one
  times their number. Two of H-Demucs' chunks cover the clip; "total, in one chunk" spares it the second.
  Paper sizes have random weights, which take the same time. `peak_mb` is the process's: each case has its
  own, but with --quick.
- codec_steps.csv: EnCodec-48k's encoder and decoder by the package and by `fast_codec`, each beside what this
  machine's rates predict: operations over that of a matrix product of their precision, bytes over that of a
  copy.
"""

import argparse
import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

import dmxlib.streaming
from dmxlib import audio, baselines, plots, separate
from dmxlib.baselines.base import Baseline, new_model
from dmxlib.codec import Codec
from dmxlib.codec import fast as fast_codec
from dmxlib.codec.load import OFFICIAL
from dmxlib.config import from_values, read_yaml
from dmxlib.errors import exit_on_input_error
from dmxlib.latents import encode_batch
from dmxlib.pipeline import VocalSeparationPipeline
from dmxlib.reproduce import facts, seeded_generator
from dmxlib.summary import markdown
from dmxlib.training.decoded import DecodedStep
from dmxlib.training.separator import TrainConfig, TrainStep, new_pipeline

CONFIGS, RATE = Path(__file__).parents[1] / "configs", 44_100
LIMIT_SECONDS = 600  # of a case, which compiling can exceed
STEPS = (1, 2, 4, 10, 20, 50)


@dataclass(frozen=True)
class Case:
    """What is timed, by the function `measure`; it gives {part: seconds of each repeat}, parameters."""

    measure: str
    system: str = "ldm-dmx"
    size: str = "mini"
    precision: str = "fp32"
    compiled: bool = False
    steps: int | None = None
    seconds: float = 12.0  # of audio
    whole: bool = False  # a baseline's chunk is the clip, not what it was trained on
    processes: int = 1
    repeats: int = 5


def all_cases(repeats: int) -> list[Case]:
    """The whole benchmark."""
    plain, half, compiled = forms = [("fp32", False), ("bf16", False), ("fp32", True)]
    return [
        *(
            Case("separation", "ldm-dmx", size, *form, steps, repeats=repeats)
            for size in ("paper", "mini")
            for form in (plain, half)
            for steps in STEPS
        ),
        # compiling takes minutes; what it gives a step shows at two numbers of them
        *(Case("separation", "ldm-dmx", "paper", *compiled, steps, repeats=repeats) for steps in (1, 10)),
        *(
            Case("separation_by_package", "ldm-dmx", size, *plain, steps, repeats=repeats)
            for size in ("paper", "mini")
            for steps in (1, 10)
        ),
        *(Case("unet", "ldm-dmx", size, repeats=repeats) for size in ("paper", "mini")),
        *(
            Case("baseline", "hdemucs", "paper", *form, whole=whole, repeats=repeats)
            for whole in (False, True)
            for form in forms
        ),
        *(Case("baseline", name, "paper", repeats=repeats) for name in ("bsrnn", "msdm", "instglow")),
        Case("codec", "encodec-48khz", "paper", seconds=2048 / 150, repeats=repeats),  # the clip, padded
        *(Case("training", size=size, repeats=repeats) for size in ("paper", "mini")),
        *(Case("baseline_training", name, "paper", repeats=1) for name in baselines.SYSTEMS),
        Case("training", processes=2, repeats=repeats),
        *(Case("song", steps=1, seconds=60 * minutes, repeats=1) for minutes in (1, 60)),
        Case("command_line", repeats=repeats),
    ]


def quick_cases() -> list[Case]:
    """Each kind once, small and short."""
    return [
        Case("separation", steps=1, seconds=1, repeats=2),
        Case("separation_by_package", steps=1, seconds=1, repeats=1),
        Case("unet", repeats=1),
        *(Case("baseline", name, seconds=0.5, repeats=1) for name in ("hdemucs", "instglow")),
        Case("baseline_training", "instglow", repeats=1),
        Case("codec", "encodec-48khz", "paper", seconds=0.1, repeats=1),
        Case("training", repeats=1),
        Case("song", steps=1, seconds=1, repeats=1),
        Case("command_line", repeats=1),
    ]


def rows(case: Case) -> list[dict]:
    """Take a case's measurements: the rows of benchmark.csv."""
    torch.manual_seed(0)
    times, parameters = globals()[case.measure](case)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    row = {name: getattr(case, name) for name in ("system", "size", "precision", "compiled", "steps")}
    return [
        {
            **row,
            "part": part,
            "seconds_median": np.median(seconds),
            "seconds_std": np.std(seconds),
            "peak_mb": round(peak),
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


def clock(function, times: list):
    """The function, which from now on notes how long each call takes."""

    def clocked(*args, **kwargs):
        start = time.perf_counter()
        result = function(*args, **kwargs)
        times.append(time.perf_counter() - start)
        return result

    return clocked


def repeat(function, repeats: int) -> list[float]:
    """Seconds of each call, after one that is not counted."""
    times = []
    for _ in range(repeats + 1):
        clock(function, times)()
    return times[1:]


def count(*modules: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


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


def compile_parts(network: nn.Module) -> None:
    """`torch.compile` of each largest part without an LSTM; a function that meets one stays as it is."""
    # a list is never called itself
    if isinstance(network, nn.ModuleList) or any(isinstance(part, nn.LSTM) for part in network.modules()):
        for part in network.children():
            compile_parts(part)
    else:
        torch._dynamo.config.recompile_limit = 64  # the parts share lines of code
        network.compile()


def noise(case: Case) -> np.ndarray:
    """The clip: (2, frames)."""
    return torch.randn(2, round(case.seconds * RATE)).numpy() / 10


def separation(case: Case):
    """LDM-dmx from the clip to its vocals, and the parts of that; the first call is "warm-up"."""
    pipeline, clip = ldm_dmx(case.size), noise(case)
    if case.compiled:
        compile_parts(pipeline.unet)
    places = {
        "conditioner": (pipeline.conditioner, "forward"),
        "unet": (pipeline, "sample"),
        "decoder": (pipeline, "decode"),
        "refinement": (dmxlib.streaming, "wiener"),
    }
    runs = []
    for _ in range(case.repeats + 1):
        times = {part: [] for part in ("total", *places)}
        with ExitStack() as stack, torch.autocast("cpu", torch.bfloat16, enabled=case.precision == "bf16"):
            for part, (owner, name) in places.items():
                clocked = clock(getattr(owner, name), times[part])
                stack.enter_context(mock.patch.object(owner, name, clocked))
            clock(pipeline, times["total"])(clip, RATE, num_inference_steps=case.steps, refine="wiener")
        runs.append({part: sum(seconds) for part, seconds in times.items()})
    warm_up, *runs = runs
    times = {part: [run[part] for run in runs] for part in warm_up}
    return {**times, "warm-up": [warm_up["total"]]}, count(pipeline.unet, pipeline.conditioner)


def separation_by_package(case: Case):
    """The same with EnCodec's own forward: what it was before `fast_codec`."""
    with mock.patch.object(fast_codec, "forward", nn.Module.__call__):
        times, parameters = separation(case)
    return {f"{part}, the package's codec": seconds for part, seconds in times.items()}, parameters


@torch.no_grad()
def unet(case: Case):
    """A sampling step of one chunk in three ways, which take turns; the first call is not counted."""
    pipeline, times = ldm_dmx(case.size), {}
    sizes, frames = pipeline.unet.config, pipeline.config.chunk_frames
    latents = torch.randn(1, sizes.latent_channels, frames)
    condition = torch.randn(1, sizes.condition_channels, frames)
    for _ in range(case.repeats + 1):
        for way, once, half in (
            ("mixture merged anew", False, False),
            ("mixture's half once a chunk", True, False),
            ("the same in bf16", True, True),
        ):
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                given = pipeline.unet.mixture_halves(condition, frames) if once else condition
                clock(pipeline.unet, times.setdefault(f"step: {way}", []))(latents, 500, given)
    return {part: seconds[1:] for part, seconds in times.items()}, count(pipeline.unet)


def new_baseline(case: Case) -> Baseline:
    """Another system of the case's size, with random weights."""
    module, config = baselines.module(case.system), read_yaml(CONFIGS / f"{case.size}_{case.system}.yaml")
    if case.whole:
        config["chunk_samples"] = round(case.seconds * RATE)
    return new_model(baselines.load(case.system), from_values(module.TrainConfig, config))


def baseline(case: Case):
    """Another system from the clip to its vocals: its first step, and each further one times their number."""
    model, clip = new_baseline(case).eval(), noise(case)
    if case.compiled:
        compile_parts(model.network)
    with torch.autocast("cpu", torch.bfloat16, enabled=case.precision == "bf16"):

        def seconds(steps):
            return repeat(lambda: model.separate(clip, RATE, steps=steps, quiet=True), case.repeats)

        total = first = seconds(1)
        if model.STEPS > 1:
            pairs = zip(first, seconds(2), strict=True)
            total = [one + (model.STEPS - 1) * (two - one) for one, two in pairs]
    return {"total, in one chunk" if case.whole else "total": total}, count(model)


def baseline_training(case: Case):
    """An optimiser step of another system on one excerpt of its own length, from waves."""
    model = new_baseline(case).train()
    pair = torch.randn(2, 1, model.config.channels, model.config.chunk_samples) / 10
    times = optimizer_steps(model, lambda: model.loss(*pair, seeded_generator(0)), case.repeats)
    return {"step from audio, processes: 1": times}, count(model)


CONVOLUTIONS = (nn.Conv1d, nn.ConvTranspose1d)
PASSES = (*CONVOLUTIONS, nn.ELU)
WAYS = {  # of the codec: how, in what tiles, the modules that each pass over input and output, precision
    "package": (nn.Module.__call__, fast_codec.TILE, (*PASSES, nn.GroupNorm), torch.float32),
    "products, norms where they are read": (fast_codec.forward, 2**62, PASSES, torch.float32),
    "the same in tiles": (fast_codec.forward, fast_codec.TILE, CONVOLUTIONS, torch.float32),
    "the same in bf16": (fast_codec.forward, fast_codec.TILE, CONVOLUTIONS, torch.bfloat16),
}


@torch.no_grad()
def codec(case: Case):
    """The encoder and the decoder, each in all ways, which take turns; the first call is not counted."""
    times, codec = {}, Codec.from_config(OFFICIAL["48khz"]).eval()
    x = torch.randn(1, codec.channels, round(case.seconds * codec.config.sampling_rate))
    for name, seanet in (("encoder", codec.encoder), ("decoder", codec.decoder)):
        for _ in range(case.repeats + 1):
            for way, (forward, tile, _, dtype) in WAYS.items():
                half = torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16)
                with half, mock.patch.object(fast_codec, "TILE", tile):
                    result = clock(forward, times.setdefault(f"{name}: {way}", []))(seanet, x)
        x = result
    return {part: seconds[1:] for part, seconds in times.items()}, count(codec)


def training(case: Case):
    """An optimiser step of each stage on one excerpt a process, from waves and from what the cache keeps."""
    times = {}
    with tempfile.TemporaryDirectory() as folder:
        for stage, source in (*product((1, 2), ("audio", "cache")), (3, "audio")):
            arguments = (case, stage, source, Path(folder) / f"{stage}-{source}")
            if case.processes == 1:
                train_steps(0, *arguments)
            else:
                torch.multiprocessing.spawn(train_steps, arguments, case.processes)
            part = f"stage {stage} step from {source}, processes: {case.processes}"
            times[part] = json.loads(arguments[-1].with_suffix(".json").read_text())
    pipeline = ldm_dmx(case.size)
    return times, count(pipeline.unet, pipeline.conditioner)


def train_steps(rank: int, case: Case, stage: int, source: str, path: Path) -> None:
    """Time the steps of one of several processes, which share the cores."""
    pipeline = ldm_dmx(case.size)
    chunk = torch.randn(1, pipeline.codec.channels, pipeline.chunk_samples)
    batch = {"vocals": chunk, "mixture": chunk}
    if source == "cache":  # with the keys that CachedPairs reads
        batch = encode_batch(pipeline.codec, batch)
        del batch["condition" if stage == 2 else "mixture"]
    if stage == 3:
        step = DecodedStep(pipeline, train_conditioner=False, validation=[], log_weight=0.5)
    else:
        step = TrainStep(pipeline, train_conditioner=stage == 2, validation=[])
    if case.processes > 1:
        torch.set_num_threads(max(1, os.cpu_count() // case.processes))
        torch.distributed.init_process_group("gloo", f"file://{path}", None, case.processes, rank)
        step = DistributedDataParallel(step)
    times = optimizer_steps(step, lambda: step(batch, seeded_generator(0)), case.repeats)
    if rank == 0:
        path.with_suffix(".json").write_text(json.dumps(times))


def optimizer_steps(module: nn.Module, loss, repeats: int) -> list[float]:
    """Seconds of steps on `loss()`."""
    optimizer = torch.optim.AdamW(module.parameters())

    def run():
        loss().backward()
        optimizer.step()
        optimizer.zero_grad()

    return repeat(run, repeats)


def song(case: Case):
    """The command line on a song of noise, from file to files."""
    times = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "song.wav"
        with audio.open_for_writing(path, RATE) as file:
            for start in range(0, round(case.seconds), 10):
                block = min(10, case.seconds - start)
                audio.write_block(file, torch.randn(2, round(block * RATE)).numpy() / 10)
        clock(separate.main, times)([str(path), "-o", folder, "--steps", str(case.steps)])
    pipeline = ldm_dmx(case.size)
    return {f"song of {case.seconds:g} s": times}, count(pipeline.unet, pipeline.conditioner)


def command_line(case: Case):
    """What a user waits for before anything happens."""
    commands = {"--help": ["-m", "dmxlib.separate", "--help"], "import": ["-c", "import dmxlib.pipeline"]}
    return {
        part: repeat(lambda c=command: subprocess.check_output([sys.executable, *c]), case.repeats)
        for part, command in commands.items()
    }, None


# -- what is written -----------------------------------------------------------------------------------------


@torch.no_grad()
def codec_steps(table: pd.DataFrame, clip_seconds: float) -> pd.DataFrame:
    """Of each way of the codec what this machine's rates predict, and what was measured."""
    big, rates = torch.randn(2**25), {}
    for dtype in {dtype for *_, dtype in WAYS.values()}:
        a = torch.randn(2048, 2048).to(dtype)
        rates[dtype] = 2 * len(a) ** 3 / min(repeat(lambda a=a: a @ a, 5))
    bandwidth = 2 * big.nbytes / min(repeat(big.clone, 5))
    codec, lines = Codec.from_config(OFFICIAL["48khz"]).eval(), []
    x = torch.randn(1, codec.channels, round(clip_seconds * codec.config.sampling_rate))
    for name, seanet in (("encoder", codec.encoder), ("decoder", codec.decoder)):
        operations, passes, x = work(seanet, x)
        for way, (_, _, kinds, dtype) in WAYS.items():
            moved = sum(size for module, size in passes if isinstance(module, kinds)) * dtype.itemsize / 4
            measured = table.loc[table.part == f"{name}: {way}", "seconds_median"].item()
            lines.append([name, way, operations / rates[dtype], moved / bandwidth, measured])
    columns = ["part", "step", "operations_seconds", "bytes_seconds", "measured_seconds"]
    steps = pd.DataFrame(lines, columns=columns)
    steps.insert(4, "predicted_seconds", steps.operations_seconds + steps.bytes_seconds)
    steps["times_as_fast"] = (
        steps.groupby("part").measured_seconds.transform("first") / steps.measured_seconds
    )
    return steps


def work(seanet: nn.Module, x: torch.Tensor):
    """Operations, the bytes that each module reads and writes [(module, bytes)], and the output."""
    passes, recurrent = [], []

    def note(module, inputs, output):
        if isinstance(module, nn.LSTM):  # which the counter does not know: two operations a weight and frame
            recurrent.append(2 * count(module) * len(inputs[0]))
        elif isinstance(output, torch.Tensor):
            passes.append((module, inputs[0].nbytes + output.nbytes))

    for module in seanet.modules():
        module.register_forward_hook(note)
    with FlopCounterMode(display=False) as counter:
        output = seanet(x)
    return counter.get_total_flops() + sum(recurrent), passes, output


def ratios(table: pd.DataFrame) -> pd.DataFrame:
    """LDM-dmx at paper size by H-Demucs, at one precision and compile state: each in its own chunks, and
    H-Demucs in a single one; MSDM by LDM-dmx."""
    paper = table[table["size"] == "paper"]
    totals = paper[paper.part == "total"]
    ours = totals[totals.system == "ldm-dmx"]
    form = ["precision", "compiled"]
    msdm = totals.loc[totals.system == "msdm", "seconds_median"].median()
    beside = ours[[*form, "steps", "seconds_median"]].copy()
    for part, title in (("total", "hdemucs"), ("total, in one chunk", "hdemucs in one chunk")):
        hdemucs = paper[(paper.system == "hdemucs") & (paper.part == part)].set_index(form).seconds_median
        beside[f"ldm-dmx / {title}"] = beside.seconds_median / [
            hdemucs.get(key, np.nan) for key in beside[form].itertuples(index=False, name=None)
        ]
    beside["msdm / ldm-dmx"] = msdm / beside.seconds_median
    return beside


def three_figures(table: pd.DataFrame) -> str:
    """A table in markdown with three figures a number."""
    return markdown(table, (map(_cell, line) for line in table.itertuples(index=False)))


def _cell(value):
    if not isinstance(value, float):
        return str(value)
    return "" if pd.isna(value) else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def write(table: pd.DataFrame, folder: Path, clip_seconds: float) -> None:
    """The files that the docstring names, table.md, steps.png and run.json."""
    steps = codec_steps(table, clip_seconds)
    steps.to_csv(folder / "codec_steps.csv", index=False)
    command = f"`python -m dmxlib.studies.benchmark`, {torch.get_num_threads()} threads\n\n"
    text = command + "\n".join(map(three_figures, (ratios(table), table, steps)))
    (folder / "table.md").write_text(text)
    draw(table[table.part == "total"]).savefig(folder / "steps.png", dpi=110)
    (folder / "run.json").write_text(json.dumps(facts(), indent=2) + "\n")
    print(text)


def draw(totals: pd.DataFrame):
    """Seconds a clip over LDM-dmx's sampling steps; the other systems are level lines."""
    curves = {}
    for (system, size, precision, compiled), group in totals.groupby(list(totals.columns[:4])):
        steps, seconds = group.steps, group.seconds_median
        if system != "ldm-dmx":
            steps, seconds = STEPS, [seconds.item()] * len(STEPS)
        curves[f"{system}, {size}, {precision}{', compiled' if compiled else ''}"] = (steps, seconds)
    curves = dict(sorted(curves.items(), key=lambda item: -max(item[1][1])))  # as they lie in the diagram
    figure = plots.lines(curves, "sampling steps", "seconds a clip", xscale="log", yscale="log")
    figure.axes[0].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


@exit_on_input_error
def main(argv=None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m dmxlib.studies.benchmark", description="Time everything; see results/README.md."
    )
    parser.add_argument("--output_dir", default="results/benchmark", help="folder to write to")
    parser.add_argument("--repeats", type=int, default=5, help="timed calls, after one that is not counted")
    parser.add_argument("--quick", action="store_true", help="each kind once, small and in one process")
    options = parser.parse_args(argv)
    cases = quick_cases() if options.quick else all_cases(options.repeats)
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
    seconds = next(case.seconds for case in cases if case.measure == "codec")
    write(pd.DataFrame(table), folder, seconds)


if __name__ == "__main__":
    main()
