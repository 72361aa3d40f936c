"""What the studies of speed measure with: a clock, a precision, a compiler."""

import time
from collections.abc import Callable

import torch
from torch import nn

from dmxlib import streaming


def timed(calls: dict[str, Callable], repeats: int, skip: int = 1) -> dict[str, list[float]]:
    """{part: seconds of each of its calls}: parts take turns, and `skip` rounds are not counted."""
    times = {part: [] for part in calls}
    for _ in range(skip + repeats):
        for part, call in calls.items():
            start = time.perf_counter()
            call()
            times[part].append(time.perf_counter() - start)
    return {part: seconds[skip:] for part, seconds in times.items()}


def in_precision(precision: str):
    """The context that a case computes in, all of it: from now on no separator chooses for itself."""
    streaming.BFLOAT16 = False
    return torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")


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
