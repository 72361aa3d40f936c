"""A downward expander: the vocals, turned down where they are so far under the mixture that nobody sings.

What a separator leaves of a band in a pause is weak beside the passage around, whatever the band does in that
moment; a voice seldom is.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch.nn import functional as F

# Ours, chosen on valid songs: results/ensemble. For each dB that the vocals' level, relative to the
# mixture's, lies under the first, they are turned down by SLOPE dB.
THRESHOLD_DB, SLOPE = -9.0, 2.0
HOP_SECONDS = 0.125  # the vocals' level is that of two hops, longer than a consonant
REACH = 6  # hops, 0.75 s: the loudest level so near decides, so that words keep their beginnings and ends
PASSAGE = 128  # hops, 16 s: the mixture's level is its mean so far to either side


def expand(mixture: np.ndarray, vocals: np.ndarray, rate: int, slope: float = SLOPE) -> np.ndarray:
    """Turn down `vocals` (2, samples) of `mixture` (2, samples), both at `rate` Hz, where nobody sings; the
    same shape.

    The gain is one for both channels, never above 1, and linear between points a hop apart.
    """
    parts = [part for _, part in expanded([(mixture, vocals)], rate, slope)]
    return np.concatenate(parts, axis=1)


def expanded(
    pairs: Iterable[tuple[np.ndarray, np.ndarray]], rate: int, slope: float = SLOPE
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """`expand` of a stream: pairs of mixture and vocals, each (2, any), which add up to what went in and are
    what the whole at once would give. They lag by the 17 s that a gain looks ahead."""
    hop, margin = round(HOP_SECONDS * rate), PASSAGE + REACH + 1  # hops that a gain depends on to either side
    held = np.zeros((4, 0), np.float32)  # samples that are still here, from a multiple of the hop on
    past = torch.zeros(2, 0)  # powers of the hops before them

    def part(hops: int, ready: int):
        """What is ready of so many hops that are held: the first of them."""
        nonlocal held, past
        powers = torch.cat([past, hop_powers(held[:, : hops * hop], hop)], dim=1)
        points = gain_points(powers, slope)[past.shape[1] :][: ready + 1]
        gain = torch.lerp(points[:-1, None], points[1:, None], torch.arange(hop) / hop).flatten()
        here, held = np.split(held, [ready * hop], axis=1)
        past = powers[:, : past.shape[1] + ready][:, -margin:]
        return here[:2], here[2:] * gain[: here.shape[1]].numpy()

    for pair in pairs:
        held = np.concatenate([held, np.concatenate(pair)], axis=1)
        hops = held.shape[1] // hop
        if hops > margin:
            yield part(hops, hops - margin)
    hops = -(-held.shape[1] // hop)
    yield part(hops, hops)


def hop_powers(held: np.ndarray, hop: int) -> torch.Tensor:
    """Mixture above vocals, (4, samples) -> power of each of their hops, (2, hops), the last padded."""
    hops = F.pad(torch.from_numpy(held), (0, -held.shape[1] % hop)).unflatten(1, (-1, hop))
    return torch.linalg.vector_norm(hops, dim=2).square().unflatten(0, (2, 2)).sum(dim=1)


def gain_points(powers: torch.Tensor, slope: float) -> torch.Tensor:
    """Powers of mixture and vocals, (2, hops) -> the gain at each hop's edge, (hops + 1,)."""
    powers = F.pad(powers, (1, 0)) + F.pad(powers, (0, 1))  # of the two hops around each point
    passage = F.avg_pool1d(powers[:1], 2 * PASSAGE + 1, 1, PASSAGE, count_include_pad=False)
    ratio = F.max_pool1d(powers[1:] / passage.clamp(min=1e-20), 2 * REACH + 1, 1, REACH)[0]
    return (ratio / 10 ** (THRESHOLD_DB / 10)).clamp(max=1) ** (slope / 2)
