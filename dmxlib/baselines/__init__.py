"""The systems that LDM-dmx is held against, one file each, loaded by name: nothing else imports one.

A trained system's module offers `TrainConfig`, what `dmxlib/train.py` trains it by, and `Model`, with
`from_pretrained(folder)` and `separate(mixture, rate)`; see `dmxlib.baselines.base`. The oracle's, `irm`, has
`separate(track)` alone.
"""

from collections.abc import Callable
from functools import partial
from importlib import import_module

import numpy as np

from dmxlib.baselines.base import make_training
from dmxlib.data import Track
from dmxlib.errors import InputError

TRAINED = {
    "hdemucs": "dmxlib.baselines.hdemucs",
    "bsrnn": "dmxlib.baselines.bsrnn",
    "msdm": "dmxlib.baselines.msdm",
    "instglow": "dmxlib.baselines.instglow",
}
SYSTEMS = {"irm": "dmxlib.evaluation.irm", **TRAINED}


def load(name: str):
    """The module of a system. Raises InputError for an unknown name."""
    if name not in SYSTEMS:
        raise InputError(f"system '{name}' is unknown; choose {', '.join(SYSTEMS)}.")
    return import_module(SYSTEMS[name])


def training(name: str) -> tuple[type, Callable]:
    """Of a trained system: its config's class, and `make_training` as a function of a config and a device.

    Raises InputError for any other name, in the words of `dmxlib.train`.
    """
    if name not in TRAINED:
        raise InputError(f"system '{name}' is unknown; choose ldm-dmx, student, {', '.join(TRAINED)}.")
    module = load(name)
    return module.TrainConfig, partial(make_training, module.Model)


def separator(name: str, model: str | None = None, **settings) -> Callable[[Track], np.ndarray]:
    """A system as a function of a track: (2, frames) vocals at the track's rate and length.

    Args:
        model: folder of a trained system, or what else its `from_pretrained` takes; the oracle has none.
        settings: of `Baseline.separate`, such as steps and seed.

    Raises InputError for an unknown system or a folder that holds none.
    """
    module = load(name)
    if name not in TRAINED:
        return module.separate
    system = module.Model.from_pretrained(model)
    return lambda track: system.separate(track.mixture(), track.rate, **settings)
