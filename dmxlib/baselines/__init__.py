"""The systems that LDM-dmx is compared with, one file each, loaded by name: nothing else imports one.

A system's module offers a `Baseline` (dmxlib/baselines/base.py), and `TrainConfig` and `make_training`, by
which dmxlib/train.py trains it. A new one is such a file, and its line here: the tables and the benchmark
have it then too.
"""

from importlib import import_module
from typing import NamedTuple

from dmxlib.baselines.base import Baseline
from dmxlib.errors import InputError


class Known(NamedTuple):
    """Where a system is, and what the tables say of it.

    Args:
        model: its `Baseline` in the module.
        generative: whether it models the voice's distribution; it then is scored refined as well.
        samples: whether its steps sample from that.
    """

    module: str
    model: str
    title: str
    generative: bool = False
    samples: bool = False


SYSTEMS = {  # in the tables' order
    "instglow": Known("dmxlib.baselines.instglow", "InstGlow", "InstGlow", generative=True),
    "msdm": Known("dmxlib.baselines.msdm", "MSDM", "MSDM", generative=True, samples=True),
    "msgld": Known("dmxlib.baselines.msgld", "MSGLD", "MSG-LD", generative=True, samples=True),
    "bsrnn": Known("dmxlib.baselines.bsrnn", "BSRNN", "BS-RNN"),
    "hdemucs": Known("dmxlib.baselines.hdemucs", "HDemucs", "H-Demucs"),
}


def module(name: str):
    """The module of a system. Raises InputError for an unknown name."""
    if name not in SYSTEMS:
        raise InputError(f"system '{name}' is unknown; choose {', '.join(SYSTEMS)}.")
    return import_module(SYSTEMS[name].module)


def load(name: str) -> type[Baseline]:
    """The class of a system. Raises InputError for an unknown name."""
    return getattr(module(name), SYSTEMS[name].model)


def from_pretrained(folder) -> Baseline:
    """The trained system of a folder: the one whose arguments its config.json holds. Raises InputError where
    there is none, or it cannot be loaded."""
    config = Baseline.load_config(str(folder))
    for name in SYSTEMS:
        if load(name).takes(config):
            return load(name).from_pretrained(folder)
    raise InputError(f"{folder} holds no system that separates; give the model/ of a training run.")
