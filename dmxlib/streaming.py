"""`Separator`, the base of every trained system: audio of any length in, its vocals out."""

import contextlib
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np
import torch
from diffusers.utils import BaseOutput

from dmxlib import audio
from dmxlib.errors import InputError
from dmxlib.refine import wiener

# Whether this processor has instructions for bfloat16. Without them its products take longer, not less; an
# older torch does not tell.
BFLOAT16 = getattr(torch.cpu, "get_capabilities", dict)().get("avx512_bf16", False)


@dataclass
class SeparationOutput(BaseOutput):
    """`vocals`: float32 (2, samples) at the input's rate."""

    vocals: np.ndarray


def check_target(target: str) -> None:
    """Raise InputError where it is no name for a stem: files are named by it."""
    if not re.fullmatch(r"[\w-]+", target):
        raise InputError(f"target is '{target}'; choose a stem's name, of letters and digits.")


def bfloat16(device) -> contextlib.AbstractContextManager:
    """A context for what bears it, the change 40 dB or more under the vocals: a processor that has bfloat16
    multiplies in it, any other device is left as it is."""
    able = BFLOAT16 and torch.device(device).type == "cpu"
    return torch.autocast("cpu", torch.bfloat16) if able else contextlib.nullcontext()


class Separator:
    """Long audio through a model of one chunk length: each chunk goes to the model's rate and channels and
    back, and is cross-faded with the next.

    A system offers `generate`, and as properties or attributes `device`, `sampling_rate` in Hz, `channels`,
    `chunk_samples` at that rate, and `num_inference_steps`, its own number of them.
    """

    batch_size = 1  # chunks computed at once: two of a large network take longer than one after the other
    refinement: str | None = None  # the command line's, where it is told none
    target = "vocals"  # what is taken out; everything here says vocals for it

    def generate(self, mixture, num_inference_steps=None, generator=None) -> torch.Tensor:
        """The vocals of mixture chunks, both (batch, channels, chunk_samples) at the model's rate."""
        raise NotImplementedError

    def check_steps(self, num_inference_steps: int) -> None:
        """Raise InputError for a number of steps that the system cannot take."""
        if num_inference_steps < 1:
            raise InputError(f"the number of steps is {num_inference_steps}; choose 1 or more.")

    def __call__(self, audio, sampling_rate: int, **settings) -> SeparationOutput:
        """Separate an array (samples,) or (channels, samples) at `sampling_rate` Hz; settings as in `stream`.

        Raises InputError for an array that is empty or not finite.
        """
        mixture = np.atleast_2d(np.asarray(audio, dtype=np.float32))
        if mixture.ndim != 2 or not mixture.size or not np.isfinite(mixture).all():
            raise InputError(
                "the mixture is empty, not (channels, samples), or holds NaN or infinite samples."
            )
        parts = [vocals for _, vocals in self.stream([mixture], sampling_rate, **settings)]
        return SeparationOutput(vocals=np.concatenate(parts, axis=1))

    def stream(
        self,
        blocks: Iterable[np.ndarray],
        sampling_rate: int,
        num_inference_steps: int | None = None,
        generator: torch.Generator | None = None,
        overlap: float = audio.OVERLAP,
        batch_size: int | None = None,
        refine: str | None = None,
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Separate a stream of (channels, any) blocks in flat memory: pairs of mixture and vocals, each
        (2, any), which add up to the input's length.

        Args:
            num_inference_steps: sampling steps; None takes the system's own number.
            generator: a CPU generator of all noise; None takes torch's global one.
            overlap: share of a chunk that it is cross-faded over with the next, 0 to 0.5.
            batch_size: chunks computed at once; None takes the system's own number.
            refine: None gives the vocals as generated, "wiener" the mixture's STFT under their soft mask.

        Raises InputError, at once, for a setting that is not one of these.
        """
        if not 0 <= overlap <= 0.5:
            raise InputError(f"overlap is {overlap}; choose a share from 0 to 0.5.")
        if batch_size is not None and batch_size < 1:
            raise InputError(f"batch_size is {batch_size}; choose 1 or more.")
        if refine not in (None, "wiener"):
            raise InputError(f"refinement '{refine}' is unknown; choose 'wiener' or none.")
        steps = self.num_inference_steps if num_inference_steps is None else num_inference_steps
        self.check_steps(steps)
        separate = partial(
            self.separate_chunks,
            rate=sampling_rate,
            steps=steps,
            generator=generator,
            batch_size=batch_size or self.batch_size,
            refine=refine,
        )
        length = math.ceil(self.chunk_samples * sampling_rate / self.sampling_rate)
        parts = audio.in_chunks(separate, map(audio.stereo, blocks), length, overlap)
        return ((part[:2], part[2:]) for part in parts)

    def separate_chunks(self, mixtures, rate, steps, generator, batch_size, refine) -> Iterator[np.ndarray]:
        """Stream of mixture chunks (2, length) at `rate` Hz -> (4, length), each above its vocals."""
        while batch := list(islice(mixtures, batch_size)):
            waves = [audio.to_model(chunk, rate, self.sampling_rate, self.channels) for chunk in batch]
            waves = np.stack([audio.fit(wave, self.chunk_samples) for wave in waves])
            waves = self.generate_within_memory(torch.from_numpy(waves), steps, generator).numpy()
            for mixture, vocals in zip(batch, waves, strict=True):
                vocals = audio.from_model(vocals, self.sampling_rate, rate, mixture.shape[1])
                if refine:
                    vocals = wiener(mixture, vocals, rate, self.sampling_rate / 2)
                yield np.concatenate([mixture, vocals])

    def generate_within_memory(self, mixture, steps, generator) -> torch.Tensor:
        """`generate` on the device, in float32 back from it; of half as many chunks at once where its memory
        does not hold them all, with the same noise."""
        state = generator.get_state() if generator else torch.get_rng_state()
        try:
            return self.generate(mixture.to(self.device), steps, generator).float().cpu()
        except RuntimeError as error:  # of a GPU, or torch's allocator's on a processor
            if "memory" not in str(error) or len(mixture) == 1:
                raise
        (generator or torch.default_generator).set_state(state)
        halves = mixture.split((len(mixture) + 1) // 2)
        return torch.cat([self.generate_within_memory(half, steps, generator) for half in halves])
