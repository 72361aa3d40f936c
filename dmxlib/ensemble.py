"""Every trained system by its name, and two of them together; beyond the paper."""

import json
from itertools import tee
from pathlib import Path

import numpy as np
import torch

from dmxlib import audio, baselines
from dmxlib.errors import InputError
from dmxlib.expander import expanded
from dmxlib.pipeline import VocalSeparationPipeline
from dmxlib.refine import wiener
from dmxlib.streaming import Separator
from dmxlib.weights import find

FILE = "ensemble.json"
CHUNK_SECONDS = 8.0  # of the sum that is sharpened at once


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
    """A separator whose refined vocals are mixed with those of another, its guide, the sum sharpened, and
    turned down where nobody sings.

    Where nothing is refined, the vocals are the separator's own.

    Args:
        separator, guide: any two.
        guide_share: of the guide's vocals in the sum, 0 to 1.
        exponent: of the mask on each channel that sharpens the sum, at most 2; None leaves it.
        expander: whether it passes through `dmxlib.expander`.
    """

    refinement = "wiener"

    def __init__(
        self,
        separator: Separator,
        guide: Separator,
        guide_share: float,
        exponent: float | None = None,
        expander: bool = True,
    ):
        if not 0 <= guide_share <= 1:
            raise InputError(f"guide_share is {guide_share}; choose 0 to 1.")
        if exponent is not None and not 0 < exponent <= 2:  # above it a power of TINY is 0, and silence 0 / 0
            raise InputError(f"exponent is {exponent}; choose more than 0, 2 at most, or none.")
        if not isinstance(expander, bool):
            raise InputError(f"expander is {expander!r}; choose true or false.")
        self.separator, self.guide, self.guide_share = separator, guide, guide_share
        self.exponent, self.expander = exponent, expander

    @classmethod
    def from_pretrained(cls, folder) -> "Ensemble":
        """Read ensemble.json: the names of `separator` and `guide`, which stay where they are,
        `guide_share` and, where they are there, `exponent` and `expander`.

        Raises InputError where it is not that.
        """
        path = Path(folder) / FILE
        try:
            settings = json.loads(path.read_text())
            names, share = (settings["separator"], settings["guide"]), float(settings["guide_share"])
            exponent, expander = settings.get("exponent"), settings.get("expander", True)
            exponent = None if exponent is None else float(exponent)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} does not hold separator, guide and guide_share.") from error
        return cls(*map(load_separator, names), share, exponent, expander)

    @property
    def num_inference_steps(self) -> int:
        """The separator's."""
        return self.separator.num_inference_steps

    @property
    def target(self) -> str:
        """The separator's."""
        return self.separator.target

    def to(self, device) -> "Ensemble":
        """Move both to a device."""
        self.separator.to(device)
        self.guide.to(device)
        return self

    def mix(self, vocals: np.ndarray, guide: np.ndarray) -> np.ndarray:
        """Both systems' vocals, (2, samples), weighted.

        Of a separator that hears one channel the mid alone: what its mask lets through of the side is the
        band's as much as the voice's.
        """
        if self.separator.channels == 1:
            vocals = vocals.mean(axis=0, keepdims=True)
        return vocals + self.guide_share * (guide - vocals)

    def stream(self, blocks, sampling_rate, generator=None, refine=None, overlap=audio.OVERLAP, **settings):
        """As `Separator.stream`; the overlap is both systems', the other settings the separator's. The guide
        has its own, and its own noise from the same seed, so that both are as they would be alone."""
        settings |= {"overlap": overlap}
        if not refine:
            return self.separator.stream(blocks, sampling_rate, generator=generator, **settings)
        first, second = tee(blocks)
        ours = self.separator.stream(first, sampling_rate, generator=generator, refine=refine, **settings)
        if generator:
            generator = torch.Generator().manual_seed(generator.initial_seed())
        theirs = self.guide.stream(second, sampling_rate, generator=generator, overlap=overlap)
        return self._finished(self._mixed(ours, theirs), sampling_rate)

    def finish(self, mixture: np.ndarray, vocals: np.ndarray, rate: int) -> np.ndarray:
        """The sum of both systems' vocals of a whole song, (2, samples) as the mixture, sharpened and turned
        down."""
        return np.concatenate([part for _, part in self._finished([(mixture, vocals)], rate)], axis=1)

    def _finished(self, pairs, rate):
        """`finish` of a stream of (mixture, vocals)."""

        def sharpened(chunks):
            for chunk in chunks:
                mixture, vocals = np.split(chunk, 2)
                sharper = wiener(mixture, vocals, rate, exponent=self.exponent, mid=False)
                yield np.concatenate([mixture, sharper])

        if self.exponent:
            parts = audio.in_chunks(sharpened, map(np.concatenate, pairs), round(CHUNK_SECONDS * rate))
            pairs = (np.split(part, 2) for part in parts)
        return expanded(pairs, rate) if self.expander else pairs

    def _mixed(self, ours, theirs):
        """Two streams of (mixture, vocals), whose blocks differ in length, as one."""
        guide = np.zeros((2, 0), np.float32)  # what is there of the guide's vocals
        for mixture, vocals in ours:
            length = vocals.shape[1]
            parts = [guide]
            while sum(part.shape[1] for part in parts) < length:
                parts.append(next(theirs)[1])
            guide = np.concatenate(parts, axis=1)
            yield mixture, self.mix(vocals, guide[:, :length])
            guide = guide[:, length:]
