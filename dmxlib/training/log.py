"""A run's log.jsonl: a line for each step, and one for each validation."""

import json
import time
from pathlib import Path

import torch

from dmxlib.errors import InputError
from dmxlib.reproduce import whole

MAX_SKIPPED = 20  # non-finite steps in a row that end a run: bf16 gives one in 150, a diverged model all


class Log:
    """Writes log.jsonl. Figures of steps wait on the device until they are read."""

    def __init__(self, path: Path, writes: bool):
        """
        Args:
            writes: whether this process does; the main one alone.
        """
        self.path, self.writes = path, writes
        self.unread = []

    def write(self, step: int, values: dict) -> None:
        """Append a line, if there is something to say."""
        if self.writes and values:
            record = {"step": step, "time": round(time.time(), 2), **values}
            with open(self.path, "a") as file:
                file.write(json.dumps(record) + "\n")

    def add(self, step: int, rate: float, figures: torch.Tensor) -> None:
        """Remember an optimiser step, without waiting for the device.

        Args:
            rate: its learning rate.
            figures: (4,): loss, norm of the gradients, steps skipped so far, and the last of them in a row.
        """
        self.unread.append(({"step": step, "time": round(time.time(), 2), "lr": rate}, figures))

    def read(self) -> tuple[float, int]:
        """Write the steps that were not read yet; wait for the device.

        Returns (the last loss, how many steps were skipped in all).

        Raises InputError where too many steps in a row were skipped.
        """
        records, figures = zip(*self.unread, strict=True)
        self.unread = []
        for record, (loss, grad_norm, skipped, in_a_row) in zip(
            records, torch.stack(figures).tolist(), strict=True
        ):
            values = {**record, "loss": loss, "grad_norm": grad_norm, "skipped": int(skipped)}
            self.write(record["step"], values)
            if in_a_row >= MAX_SKIPPED:
                raise InputError(
                    f"{MAX_SKIPPED} steps in a row gave a loss or gradient that is not finite; lower "
                    "learning_rate or set mixed_precision to no, and resume from the last one in "
                    f"{self.path.parent}."
                )
        return loss, int(skipped)

    def begin(self, step: int) -> None:
        """Keep what an earlier process wrote up to this step: none of it at step 0.

        A kill may have cut the last line short, or left steps behind that will be run again.
        """
        lines = self.path.read_text().splitlines(keepends=True) if step and self.path.exists() else []
        complete = (line for line in lines if line.endswith("\n"))
        kept = "".join(line for line in complete if json.loads(line)["step"] <= step)
        with whole(self.path) as part:
            part.write_text(kept)
