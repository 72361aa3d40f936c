"""SIGTERM: schedulers send it before they take a machine away."""

import contextlib
import signal
import sys

import torch
from accelerate import Accelerator


class Stop:
    """Whether a run was told to stop, and its end."""

    def __init__(self, accelerator: Accelerator, interval: int):
        """
        Args:
            interval: optimiser steps after which several processes ask each other.
        """
        self.accelerator, self.interval, self.told = accelerator, interval, False

    @contextlib.contextmanager
    def heard(self):
        """SIGTERM only sets `told`, while the body runs."""

        def tell(*_):
            self.told = True

        before = signal.signal(signal.SIGTERM, tell)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def wanted(self, step: int) -> bool:
        """Whether a process was told to stop. Several ask each other, at steps that wait for the device."""
        if self.accelerator.num_processes == 1:
            return self.told
        if step % self.interval:
            return False
        told = torch.tensor(float(self.told), device=self.accelerator.device)
        return bool(self.accelerator.reduce(told, "sum"))

    def leave(self, step: int) -> None:
        """End the process as SIGTERM does."""
        if self.accelerator.is_main_process:
            print(f"told to stop at step {step}; --resume_from_checkpoint latest goes on.", file=sys.stderr)
        self.accelerator.end_training()
        sys.exit(128 + signal.SIGTERM)
