"""Where it is computed: a device by its name, and what a GPU computes faster than exactly."""

import contextlib
import os
import re

import torch

from dmxlib.errors import InputError


def find_device(name: str | None = None) -> torch.device:
    """cpu, cuda, cuda:N or mps; None takes cuda where there is one, and cpu elsewhere.

    Raises InputError for another name, and for what this machine or its torch lacks.
    """
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", name):
        raise InputError(f"device {name} is unknown; choose cpu, cuda, cuda:N or mps.")
    kind, _, index = name.partition(":")
    if kind == "cuda" and not torch.backends.cuda.is_built():
        raise InputError(f"device {name} needs a torch with CUDA, which this one is not; choose cpu.")
    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError(
            f"device {name} needs an NVIDIA GPU and its driver, which were not found; choose cpu."
        )
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        last = torch.cuda.device_count() - 1
        raise InputError(f"device {name} is not there; the GPUs of this machine end with cuda:{last}.")
    if kind == "mps" and not torch.backends.mps.is_built():
        raise InputError("device mps needs a Mac and torch as made for it; choose cpu.")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise InputError("device mps needs an Apple GPU and macOS 14 or newer; choose cpu.")
    return torch.device(name)


def cores() -> int:
    """Those that this process may use: a scheduler or a container leaves it a share of the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def lstm_precision() -> contextlib.AbstractContextManager:
    """A context for an LSTM of float32: as autocast has it, but float32 on a processor without AVX-512.
    oneDNN has none in bfloat16 there, and raises."""
    able = "AVX512" in torch.backends.cpu.get_cpu_capability()
    return contextlib.nullcontext() if able else torch.autocast("cpu", enabled=False)


def prefer_speed() -> None:
    """Let a GPU multiply in tf32, and cuDNN search for its fastest kernel of each shape: for work on excerpts
    of one length. Nothing changes where deterministic algorithms were asked for."""
    if not torch.are_deterministic_algorithms_enabled():
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cuda.matmul.allow_tf32 = True
