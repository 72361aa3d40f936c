"""Train a separator: `accelerate launch dmxlib/train.py --config FILE [--key value ...]`.

The key `system` names it: ldm-dmx (stages 1 and 2), ldm-dmx-stage3, student, or one of dmxlib/baselines/.
`--system NAME --help` lists a system's other keys.
"""

from dataclasses import dataclass
from importlib import import_module

from dmxlib import baselines
from dmxlib.config import parse_config
from dmxlib.errors import InputError, exit_on_input_error
from dmxlib.plots import save_spectrograms
from dmxlib.training.loop import make_accelerator, train

# Each module offers TrainConfig, a dataclass, and make_training(config, device): a step, its training pairs.
TRAINABLE = {
    "ldm-dmx": "dmxlib.training.separator",
    "ldm-dmx-stage3": "dmxlib.training.decoded",
    "student": "dmxlib.studies.few_steps",
    **{name: known.module for name, known in baselines.SYSTEMS.items()},
}


@dataclass
class Choice:
    """The keys that decide which system is trained, and so which other keys there are."""

    system: str = "ldm-dmx"
    log_weight: float | None = None


def chosen(argv=None) -> str:
    """The name of the system that the command line or its config file asks for.

    Raises InputError for one that is not in TRAINABLE.
    """
    choice = parse_config(Choice, argv, others=True)
    if choice.system not in TRAINABLE:
        raise InputError(f"system '{choice.system}' is unknown; choose {', '.join(TRAINABLE)}.")
    # stage 3 had no name of its own once, and a config of that time says ldm-dmx or nothing
    old_stage3 = choice.system == "ldm-dmx" and choice.log_weight is not None
    return "ldm-dmx-stage3" if old_stage3 else choice.system


@exit_on_input_error
def main(argv=None, plot=save_spectrograms) -> None:
    """Command line; `plot` is `dmxlib.training.loop.train`'s."""
    system = chosen(argv)
    module = import_module(TRAINABLE[system])
    options = dict(prog="accelerate launch dmxlib/train.py", description=__doc__)
    config = parse_config(module.TrainConfig, argv, **options)
    config.system = system
    accelerator = make_accelerator(config)
    step, training = module.make_training(config, accelerator.device)
    train(step, training, config, accelerator, plot)


if __name__ == "__main__":
    main()
