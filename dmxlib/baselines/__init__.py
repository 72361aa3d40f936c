"""The systems that LDM-dmx is held against, one file each, loaded by name: nothing else imports one.

A trained system's module offers `TrainConfig`, what `dmxlib/train.py` trains it by, and `Model`, with
`from_pretrained(folder)` and `separate(mixture, rate)`; see `dmxlib.baselines.base`.
"""

from collections.abc import Callable
from functools import partial
from importlib import import_module

from dmxlib.baselines.base import Baseline, make_training
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


def from_pretrained(folder) -> Baseline:
    """The trained system of a folder: the one whose arguments its config.json holds. Raises InputError where
    there is none, or it cannot be loaded."""
    config = Baseline.load_config(str(folder))
    for name in TRAINED:
        if load(name).Model.takes(config):
            return load(name).Model.from_pretrained(folder)
    raise InputError(f"{folder} holds no system that separates; give the model/ of a training run.")
