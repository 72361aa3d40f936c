"""Every trained system by its name, and two of them together; beyond the paper."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dmxlib import baselines
from dmxlib.errors import InputError
from dmxlib.pipeline import VocalSeparationPipeline
from dmxlib.streaming import Separator
from dmxlib.weights import find

FILE = "ensemble.json"


def load_separator(name: str) -> Separator:
    """A trained system that ships, or a folder: a pipeline, a baseline, or an `Ensemble`.

    Raises InputError where the name is none of them, or a file of it is missing or damaged.
    """
    if folder := find(name, FILE):
        return Ensemble.from_pretrained(folder)
    if folder := find(name, "config.json"):
        return baselines.from_pretrained(folder)
    return VocalSeparationPipeline.from_pretrained(name)


class Ensemble(Separator):
    """A separator whose refined vocals are mixed with those of another, its guide, chunk by chunk.

    Where nothing is refined, the vocals are the separator's own.

    Args:
        separator, guide: any two.
        guide_share: of the guide's vocals in the sum, 0 to 1.
    """

    refinement = "wiener"

    def __init__(self, separator: Separator, guide: Separator, guide_share: float):
        if not 0 <= guide_share <= 1:
            raise InputError(f"guide_share is {guide_share}; choose 0 to 1.")
        self.separator, self.guide, self.guide_share = separator, guide, guide_share

    @classmethod
    def from_pretrained(cls, folder) -> "Ensemble":
        """Read ensemble.json: the names of `separator` and `guide`, which stay where they are, and
        `guide_share`.

        Raises InputError where it is not that.
        """
        path = Path(folder) / FILE
        try:
            settings = json.loads(path.read_text())
            share, names = float(settings["guide_share"]), (settings["separator"], settings["guide"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} does not hold separator, guide and guide_share.") from error
        return cls(*map(load_separator, names), share)

    @property
    def sampling_rate(self) -> int:
        """The separator's."""
        return self.separator.sampling_rate

    @property
    def chunk_samples(self) -> int:
        """The separator's."""
        return self.separator.chunk_samples

    @property
    def num_inference_steps(self) -> int:
        """The separator's."""
        return self.separator.num_inference_steps

    @property
    def batch_size(self) -> int:
        """The separator's."""
        return self.separator.batch_size

    def check_steps(self, num_inference_steps: int) -> None:
        """As the separator does."""
        self.separator.check_steps(num_inference_steps)

    def to(self, device) -> "Ensemble":
        """Move both to a device."""
        self.separator.to(device)
        self.guide.to(device)
        return self

    def separate_chunks(self, mixtures, rate, generator, refine, **settings) -> Iterator[np.ndarray]:
        """As `Separator.separate_chunks`."""
        pairs = self.separator.separate_chunks(mixtures, rate, generator=generator, refine=refine, **settings)
        for pair in pairs:
            if refine:
                guided = self.guide(pair[:2], rate, generator=generator).vocals
                pair[2:] += self.guide_share * (guided - pair[2:])
            yield pair
