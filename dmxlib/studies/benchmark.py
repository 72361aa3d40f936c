"""How long everything takes: `python -m dmxlib.studies.benchmark [--device cuda]` writes results/speed/.

benchmark.csv has one row a measurement. Separation is of a 12-s stereo clip at 44.1 kHz, resampling, padding
and refinement included; its parts are timed beside it, on one chunk. An iterative baseline's time is that of
its first step and of each further one times their number. Two of H-Demucs' chunks cover the clip; "total, in
one chunk" spares it the second. A training step is of excerpts of white noise that are in memory already: no
reading, no augmentation. Beside a compiled one the same step is timed without, so the memory is that of both.
Songs go through the command line; those of a minute give about.json its speeds, which `--list-models` prints.
Paper sizes have random weights, which take the same time. What a device cannot compute in bf16 or tf32 is
left out, and table.md says so.

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
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from dmxlib import baselines
from dmxlib.device import find_device
from dmxlib.errors import InputError, exit_on_input_error
from dmxlib.studies.benchmark_kinds import (
    KINDS,
    Case,
    baseline,
    command_line,
    separation,
    song,
    training,
    unet,
)
from dmxlib.studies.benchmark_report import KEY, merged, read, write
from dmxlib.studies.timing import precisions
from dmxlib.weights import shipped

LIMIT_SECONDS = 600  # of a case, which compiling can exceed
SWEEP = (1, 2, 4, 10, 20, 50)  # sampling steps
STEPS = {"instglow-mini": 10, "msdm-mini": 10}  # of a song; the others have their own number of them
BATCHES = {"cpu": (1,), "cuda": (4, 8, 16, 32)}  # of a training step


def all_cases(device: str, batches=None, able=None) -> list[Case]:
    """The whole benchmark of a device, in the precisions that it is able to compute in."""
    kind = torch.device(device).type
    gpu, batches = kind == "cuda", batches or BATCHES[kind]
    plain = [(precision, False) for precision in able or precisions(device)]
    compiled = [(precision, True) for precision, _ in (plain[0], plain[-1])[: 1 + gpu]]
    sizes, paper, names = ("paper", "mini"), ["paper"], sorted(baselines.SYSTEMS.keys() - {"hdemucs"})
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
        *(Case(song, name, steps=STEPS.get(name), seconds=60, repeats=1) for name in shipped("about.json")),
        Case(song, "ldm-dmx-mini", seconds=3600, repeats=1),
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
        Case(song, "ldm-dmx-mini", seconds=1, repeats=1),
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


def asked(argv=None):
    """What the command line asks for: its options, the device in their place, and the cases.

    Raises InputError where a device or a number is none, or no case is as asked for.
    """
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
    parser.add_argument("--systems", nargs="+", metavar="NAME", help="these systems (default: all)")
    parser.add_argument(
        "--batches", nargs="+", type=int, help="of training steps (default: 1, a GPU 4 to 32)"
    )
    parser.add_argument("--quick", action="store_true", help="each kind once, small and in one process")
    options = parser.parse_args(argv)
    options.device = find_device(options.device)
    if options.device.type not in BATCHES or options.repeats < 1 or min(options.batches or [1]) < 1:
        raise InputError("--device has to be cpu or cuda, --repeats and --batches at least 1.")
    cases = quick_cases() if options.quick else all_cases(str(options.device), options.batches)
    kinds = [KINDS[name] for name in options.only]
    known = {case.system for case in cases}
    systems = options.systems or known
    if unknown := sorted({*systems} - known):
        raise InputError(f"there is no case of {', '.join(unknown)}; choose from {', '.join(sorted(known))}.")
    cases = [
        replace(case, device=str(options.device), repeats=case.repeats or options.repeats)
        for case in cases
        if case.measure in kinds and case.size in options.sizes and case.system in systems
    ]
    if not cases:
        raise InputError("no case is of these kinds, sizes and systems at once; ask for others.")
    return options, cases


@exit_on_input_error
def main(argv=None) -> None:
    """Command line."""
    options, cases = asked(argv)
    folder, table = Path(options.output_dir), []
    folder.mkdir(parents=True, exist_ok=True)
    earlier = read(folder / "benchmark.csv")
    taken = map(rows, cases) if options.quick else measured(cases)
    for new in tqdm(taken, "benchmark", len(cases), unit="case"):
        table += new
        merged(earlier, table).to_csv(folder / "benchmark.csv", index=False)  # it all takes half an hour
    write(merged(earlier, table), folder, str(options.device))


if __name__ == "__main__":
    main()
