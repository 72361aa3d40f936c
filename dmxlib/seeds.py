"""Generators that follow from integers, and single draws from them."""

from collections.abc import Sequence

import numpy as np
import torch


def seeded_generator(*key: int, device="cpu") -> torch.Generator:
    """A generator that follows from a tuple of integers alone, such as (seed, epoch, index)."""
    seed = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(seed >> np.uint64(1)))


def uniform(generator: torch.Generator, low: float, high: float) -> float:
    """One draw from [low, high)."""
    return low + (high - low) * torch.rand((), generator=generator).item()


def choice(items: Sequence, generator: torch.Generator):
    """One of the items, each with equal probability."""
    return items[int(torch.randint(len(items), (), generator=generator))]


def coin(generator: torch.Generator) -> bool:
    """True half of the time."""
    return uniform(generator, 0, 1) < 0.5
