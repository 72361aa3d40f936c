"""A downward expander: the vocals, turned down where they are so far under the mixture that nobody sings.

What a separator leaves of a band in a pause is weak beside the passage around, whatever the band does in that
moment; a voice seldom is.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch.nn import functional as F

# Ours, chosen on valid songs: pretrained/ldm-dmx-guided-mini. For each dB that the vocals' level, relative to
# the mixture's, lies under the first, they are turned down by SLOPE dB.
THRESHOLD_DB, SLOPE = -9.0, 0.5
HOP_SECONDS = 0.125  # the vocals' level is that of two hops, longer than a consonant
REACH = 6  # hops, 0.75 s: the loudest level so near decides, so that words keep their beginnings and ends
PASSAGE = 128  # hops, 16 s: the mixture's level is its mean so far to either side


def expand(mixture: np.ndarray, vocals: np.ndarray, rate: int) -> np.ndarray:
    """Turn down `vocals` (2, samples) of `mixture` (2, samples), both at `rate` Hz, where nobody sings; the
    same shape.

    The gain is one for both channels, never above 1, and linear between points a hop apart.
    """
    hop, samples = round(HOP_SECONDS * rate), vocals.shape[1]
    powers = (torch.from_numpy(wave).square().sum(dim=0, keepdim=True) for wave in (vocals, mixture))
    # at each multiple of the hop up to the one past the end
    voice, whole = (F.avg_pool1d(F.pad(power, (hop, 2 * hop)), 2 * hop, hop) for power in powers)
    passage = F.avg_pool1d(whole, 2 * PASSAGE + 1, 1, PASSAGE, count_include_pad=False)
    ratio = F.max_pool1d(voice / passage.clamp(min=1e-20), 2 * REACH + 1, 1, REACH)[0]
    points = (ratio / 10 ** (THRESHOLD_DB / 10)).clamp(max=1) ** (SLOPE / 2)
    gain = torch.lerp(points[:-1, None], points[1:, None], torch.arange(hop) / hop).flatten()
    return vocals * gain[:samples].numpy()


def expanded(
    pairs: Iterable[tuple[np.ndarray, np.ndarray]], rate: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """`expand` of a stream: pairs of mixture and vocals, each (2, any), which add up to what went in and are
    what the whole at once would give. They lag by the 17 s that a gain looks ahead."""
    hop = round(HOP_SECONDS * rate)
    margin = (PASSAGE + REACH + 1) * hop  # what a gain depends on to either side, beyond its own hop
    held, past = np.zeros((4, 0), np.float32), 0  # the first `past` samples of it have gone out

    def part(end=None):
        return held[:2, past:end], expand(held[:2], held[2:], rate)[:, past:end]

    for pair in pairs:
        held = np.concatenate([held, np.concatenate(pair)], axis=1)
        ready = held.shape[1] // hop * hop - margin
        if ready > past:
            yield part(ready)
            past = min(ready, margin)
            held = held[:, ready - past :]
    yield part()
