"""The systems that LDM-dmx is held against, one file each, loaded by name: nothing else imports one.

A trained system's module offers `TrainConfig`, what `dmxlib/train.py` trains it by, and `Model`, with
`from_pretrained(folder)` and `separate(mixture, rate)`; see `dmxlib.baselines.base`.
"""

from collections.abc import Callable
from functools import partial
from importlib import import_module

from dmxlib.baselines.base import make_training
from dmxlib.errors import InputError

TRAINED = {
    "hdemucs": "dmxlib.baselines.hdemucs",
    "bsrnn": "dmxlib.baselines.bsrnn",
    "msdm": "dmxlib.baselines.msdm",
    "instglow": "dmxlib.baselines.instglow",
}


def load(name: str):
    """The module of a system. Raises InputError for an unknown name."""
    if name not in TRAINED:
        raise InputError(f"system '{name}' is unknown; choose {', '.join(TRAINED)}.")
    return import_module(TRAINED[name])


def training(name: str) -> tuple[type, Callable]:
    """Of a trained system: its config's class, and `make_training` as a function of a config and a device.

    Raises InputError for any other name, in the words of `dmxlib.train`.
    """
    if name not in TRAINED:
        raise InputError(f"system '{name}' is unknown; choose ldm-dmx, student, {', '.join(TRAINED)}.")
    module = load(name)
    return module.TrainConfig, partial(make_training, module.Model)
