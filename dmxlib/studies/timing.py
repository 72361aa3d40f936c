"""What the studies of speed measure with: a clock, a precision, a compiler. Devices are "cpu" or "cuda"."""

import contextlib
import time
from collections.abc import Callable

import torch
from torch import nn

from dmxlib import streaming

TF32_SINCE = (8, 0)  # Ampere


def timed(
    calls: dict[str, Callable], repeats: int, skip: int = 1, device: str = "cpu"
) -> dict[str, list[float]]:
    """{part: seconds of each of its calls}: parts take turns, and `skip` rounds are not counted."""
    times = {part: [] for part in calls}
    for _ in range(skip + repeats):
        for part, call in calls.items():
            times[part].append(_seconds(call, torch.device(device)))
    return {part: seconds[skip:] for part, seconds in times.items()}


def _seconds(call, device):
    if device.type != "cuda":
        start = time.perf_counter()
        call()
        return time.perf_counter() - start
    with torch.cuda.device(device):  # whose own clock stops when it is done, what it waited for included
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        end.synchronize()
    return start.elapsed_time(end) / 1000


@contextlib.contextmanager
def in_precision(precision: str, device: str = "cpu", search: bool = False):
    """The context that a case computes in, all of it: fp32, a GPU's tf32, or bf16 by autocast. No separator
    chooses for itself in it.

    Args:
        search: let cuDNN search for its fastest kernels.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, streaming.BFLOAT16
    matmul.allow_tf32 = cudnn.allow_tf32 = precision != "fp32"
    cudnn.benchmark, streaming.BFLOAT16 = search, False
    try:
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bf16"):
            yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, streaming.BFLOAT16 = before


def precisions(device: str = "cpu") -> list[str]:
    """Those that a device computes in, fp32 first."""
    gpu = torch.device(device).type == "cuda"
    tf32 = gpu and torch.cuda.get_device_capability(device) >= TF32_SINCE
    bf16 = torch.cuda.is_bf16_supported(including_emulation=False) if gpu else computes_bf16()
    return ["fp32", *["tf32"] * tf32, *["bf16"] * bf16]


@torch.no_grad()
def computes_bf16() -> bool:
    """Whether this processor has bf16. Without it torch's LSTM raises, and its convolutions take minutes."""
    try:
        with in_precision("bf16"):
            nn.LSTM(4, 4)(torch.zeros(1, 1, 4))
    except RuntimeError:
        return False
    return True


def compile_parts(network: nn.Module) -> None:
    """`torch.compile` of each largest part without an LSTM; a function that meets one stays as it is."""
    # a list is never called itself
    if isinstance(network, nn.ModuleList) or any(isinstance(part, nn.LSTM) for part in network.modules()):
        for part in network.children():
            compile_parts(part)
    else:
        torch._dynamo.config.recompile_limit = 64  # the parts share lines of code
        network.compile()


def count(*modules: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for module in modules for parameter in module.parameters())
