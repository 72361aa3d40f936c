"""Train a separator: `accelerate launch dmxlib/train.py --config FILE [--key value ...]`.

The key `system` names it: one of dmxlib/baselines/, whose other keys `--system NAME --help` lists, student
(dmxlib/studies/few_steps.py), or ldm-dmx, the latent diffusion separator (dmxlib/training/separator.py).
"""

from dmxlib import baselines
from dmxlib.config import parse_config, peek
from dmxlib.errors import exit_on_input_error
from dmxlib.training.loop import make_accelerator, train
from dmxlib.training.separator import TrainConfig, make_training


@exit_on_input_error
def main(argv=None) -> None:
    """Command line."""
    system = peek("system", TrainConfig.system, argv)
    if system == TrainConfig.system:
        config_class, make = TrainConfig, make_training
    elif system == "student":
        from dmxlib.studies import few_steps

        config_class, make = few_steps.DistillConfig, few_steps.make_training
    else:
        config_class, make = baselines.training(system)
    config = parse_config(config_class, argv, prog="accelerate launch dmxlib/train.py", description=__doc__)
    accelerator = make_accelerator(config)
    step, training = make(config, accelerator.device)
    train(step, training, config, accelerator)


if __name__ == "__main__":
    main()
