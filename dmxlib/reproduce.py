"""What makes a result repeatable: generators that follow from integers, its facts, files written whole.

torch is imported when it is needed: a command that refuses its arguments does so at once.
"""

import contextlib
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from glob import escape
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dmxlib.errors import InputError, unwritable

if TYPE_CHECKING:
    import torch
try:
    import fcntl
except ImportError:  # Windows: nobody is refused
    fcntl = None


def seeded_generator(*key: int, device="cpu") -> "torch.Generator":
    """A generator that follows from a tuple of integers alone, such as (seed, epoch, index)."""
    import torch

    seed = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(seed >> np.uint64(1)))


def uniform(generator: "torch.Generator", low: float, high: float) -> float:
    """A number from [low, high)."""
    import torch

    return low + (high - low) * torch.rand((), generator=generator).item()


def choice(items: Sequence, generator: "torch.Generator"):
    """One of the items, each with equal probability."""
    import torch

    return items[int(torch.randint(len(items), (), generator=generator))]


def coin(generator: "torch.Generator") -> bool:
    """True half of the time."""
    return uniform(generator, 0, 1) < 0.5


def facts(command: str | None = None, **more) -> dict:
    """What is kept beside every result: command (None: this process's own), commit, machine, time, and what
    else there is to say."""
    import torch

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
def whole(path, size: float | None = None) -> Iterator[Path]:
    """A file or folder is never half written: `with whole(path) as part` gives a hidden path beside it to
    write to, which takes the name when the body is done, and is removed where the body fails.

    Args:
        size: in bytes, that a full disk is told to need.

    Raises InputError where the system refuses to write; other errors of the body keep their type.
    """
    path = Path(path)
    with _part(path, path, size) as part:
        yield part
        with _refusals(path, size):
            os.replace(part, path)


@contextlib.contextmanager
def together(folder) -> Iterator[Path]:
    """Files that belong together: `with together(folder) as part` gives a hidden folder in it to write them
    to, which take their places, one right after the other, when the body is done. Raises as `whole` does."""
    folder = Path(folder)
    with _part(folder / "files", folder) as part:
        with _refusals(folder):
            part.mkdir()
        yield part
        with _refusals(folder):
            for path in part.iterdir():
                os.replace(path, folder / path.name)


@contextlib.contextmanager
def _part(path: Path, name: Path, size: float | None = None) -> Iterator[Path]:
    """A hidden path beside `path`, that nothing is left of in the end; a refusal names `name`."""
    part = path.with_name(f".{path.stem}.part{os.getpid()}{path.suffix}")
    try:
        with _refusals(name, size):
            path.parent.mkdir(parents=True, exist_ok=True)
            remove_parts_of_the_killed(path)
        try:
            yield part
        except InputError as error:
            if str(part) not in str(error):
                raise
            # a file in the folder, which the user knows by its name to come
            raise InputError(str(error).replace(str(part), str(name))) from error
        except Exception:
            with _refusals(name, size):  # libraries hide them: "System error", "unexpected pos"
                _try_to_write(part)
            raise
    finally:
        _remove(part)


@contextlib.contextmanager
def _refusals(path, size=None):
    try:
        yield
    except OSError as error:
        raise unwritable(path, error, size) from error


def _try_to_write(part: Path) -> None:
    """Let the system say why nothing more can be written to a file or folder."""
    with open(part / "more" if part.is_dir() else part, "ab") as file:
        file.write(bytes(2**20))


def remove_parts_of_the_killed(path: Path) -> None:
    """Remove what processes that are no more left half written of a file or folder."""
    for part in path.parent.glob(f".{escape(path.stem)}.part*{escape(path.suffix)}"):
        process = part.name.removeprefix(f".{path.stem}.part").removesuffix(path.suffix)
        if process.isdecimal() and not _runs(int(process)):
            _remove(part)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        pass
    return True


def _remove(part: Path) -> None:
    if os.path.isdir(part):  # a name that is too long is none
        shutil.rmtree(part)
    with contextlib.suppress(OSError):  # already renamed, or never made
        part.unlink()


@contextlib.contextmanager
def alone(folder, main: bool = True, wait: bool = False) -> Iterator[None]:
    """A folder is one command's at a time; a killed process leaves no lock behind.

    Args:
        main: False in the other processes of one launch, which share what the main one holds.
        wait: for another process to let go of the folder, instead of refusing.

    Raises InputError where another process has it.
    """
    if not main or fcntl is None:
        yield
        return
    with _refusals(folder):
        Path(folder).mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    _held.add(descriptor)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise InputError(
                f"{folder} is written to by another process; wait for it or choose another folder."
            ) from error
        except OSError:  # a file system without locks
            pass
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # not empty
                os.rmdir(folder)
    finally:
        _held.discard(descriptor)
        os.close(descriptor)


def ignore_signals(worker: int) -> None:
    """For a DataLoader's workers: Ctrl-C and a scheduler's SIGTERM go to all of a job's processes, and the
    one that has the workers ends them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def batches(loader) -> Iterator:
    """The batches of a DataLoader. A Ctrl-C waits for the first, a second one does not: workers that are
    being made do not ignore it yet and print a traceback each, and so does what is to end them."""
    waiting, handler = [], signal.getsignal(signal.SIGINT)

    def wait(*_):
        waiting.append(True)
        signal.signal(signal.SIGINT, handler)

    signal.signal(signal.SIGINT, wait)
    try:
        rest = iter(loader)
        first = [*islice(rest, 1)]
    finally:
        signal.signal(signal.SIGINT, handler)
    if waiting:
        signal.raise_signal(signal.SIGINT)
    return chain(first, rest)


_held = set()  # descriptors of `alone`


def _let_go():
    """A worker that outlives its killed parent for seconds does not keep the folder from the next run."""
    for descriptor in _held:
        os.close(descriptor)


if fcntl:
    os.register_at_fork(after_in_child=_let_go)
