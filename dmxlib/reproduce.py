"""What makes a result repeatable: generators that follow from integers, its facts, files written whole."""

import contextlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch


def seeded_generator(*key: int, device="cpu") -> torch.Generator:
    """A generator that follows from a tuple of integers alone, such as (seed, epoch, index)."""
    seed = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(seed >> np.uint64(1)))


def uniform(generator: torch.Generator, low: float, high: float) -> float:
    """A number from [low, high)."""
    return low + (high - low) * torch.rand((), generator=generator).item()


def choice(items: Sequence, generator: torch.Generator):
    """One of the items, each with equal probability."""
    return items[int(torch.randint(len(items), (), generator=generator))]


def coin(generator: torch.Generator) -> bool:
    """True half of the time."""
    return uniform(generator, 0, 1) < 0.5


def facts(command: str | None = None, **more) -> dict:
    """What is kept beside every result: command (None: this process's own), commit, machine, time, and what
    else there is to say."""
    return {
        "command": command or shlex.join(["python", *sys.orig_argv[1:]]),
        "commit": git_commit(),
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        "date": time.strftime("%Y-%m-%dT%H:%M:%S"),
        **more,
    }


def git_commit(folder: Path = Path(__file__).parent) -> str:
    """The commit of the checkout a folder lies in, with "-dirty" where the folder differs from it, whatever
    results do while they are made; "unknown" elsewhere."""
    git = ["git", "-C", str(folder)]
    describe = [*git, "describe", "--always", "--abbrev=12"]
    try:
        commit = subprocess.run(describe, capture_output=True, text=True, check=True).stdout.strip()
        same = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "."], check=False).returncode == 0
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit if same else f"{commit}-dirty"


@contextlib.contextmanager
def whole(path) -> Iterator[Path]:
    """A file or folder is never half written: `with whole(path) as part` gives a hidden path beside it to
    write to, which takes the name when the body is done, and is removed where the body fails."""
    path = Path(path)
    part = path.with_name(f".{path.stem}.part{os.getpid()}{path.suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield part
        os.replace(part, path)
    finally:
        if part.is_dir():
            shutil.rmtree(part)
        with contextlib.suppress(OSError):  # already renamed, or never made
            part.unlink()
