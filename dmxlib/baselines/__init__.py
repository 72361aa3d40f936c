"""The systems that LDM-dmx is compared with, one file each, loaded by name: nothing else imports one.

A system's module offers a `Baseline` (dmxlib/baselines/base.py), and `TrainConfig` and `make_training`, by
which dmxlib/train.py trains it. A new one is such a file, and its line here.
"""

from importlib import import_module

from dmxlib.baselines.base import Baseline
from dmxlib.errors import InputError

SYSTEMS = {  # name: (module, its Baseline)
    "hdemucs": ("dmxlib.baselines.hdemucs", "HDemucs"),
    "bsrnn": ("dmxlib.baselines.bsrnn", "BSRNN"),
    "msdm": ("dmxlib.baselines.msdm", "MSDM"),
    "msgld": ("dmxlib.baselines.msgld", "MSGLD"),
    "instglow": ("dmxlib.baselines.instglow", "InstGlow"),
}


def module(name: str):
    """The module of a system. Raises InputError for an unknown name."""
    if name not in SYSTEMS:
        raise InputError(f"system '{name}' is unknown; choose {', '.join(SYSTEMS)}.")
    return import_module(SYSTEMS[name][0])


def load(name: str) -> type[Baseline]:
    """The class of a system. Raises InputError for an unknown name."""
    return getattr(module(name), SYSTEMS[name][1])


def from_pretrained(folder) -> Baseline:
    """The trained system of a folder: the one whose arguments its config.json holds. Raises InputError where
    there is none, or it cannot be loaded."""
    config = Baseline.load_config(str(folder))
    for name in SYSTEMS:
        if load(name).takes(config):
            return load(name).from_pretrained(folder)
    raise InputError(f"{folder} holds no system that separates; give the model/ of a training run.")
