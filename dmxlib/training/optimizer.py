"""The optimiser that a run's config names, its groups of parameters, and the learning rate of each step."""

import math

import torch

from dmxlib.errors import InputError
from dmxlib.training.muon import Muon

OPTIMIZERS = {"adamw": torch.optim.AdamW, "muon": Muon}


def make_optimizer(parameters: list, config) -> torch.optim.Optimizer:
    """As the `TrainerConfig` says. Raises InputError for a name that is unknown."""
    if config.optimizer not in OPTIMIZERS:
        raise InputError(f"optimizer is {config.optimizer}; choose {' or '.join(OPTIMIZERS)}.")
    return OPTIMIZERS[config.optimizer](
        parameter_groups(parameters, config.adam_weight_decay),
        config.learning_rate,
        betas=(0.9, config.adam_beta2),
        fused=True,  # one kernel for all parameters, which can leave out a step by itself
    )


def parameter_groups(parameters: list, weight_decay: float) -> list[dict]:
    """The optimiser's two groups: matrices and kernels, which decay, and vectors, which do not.

    Vectors are biases and the gains of norms: to shrink them to zero takes away scales and offsets, and
    regularises nothing (as in the recipes of GPT and of diffusion transformers).
    """
    kernels, vectors = ([p for p in parameters if (p.ndim > 1) == kernel] for kernel in (True, False))
    return [{"params": kernels, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def learning_rate(config, step: int) -> float:
    """A linear warm-up, then half a cosine down to zero, or the factor `lr_decay` every `lr_decay_steps`.

    A resumed run takes it from its own config.
    """
    warm_up = config.lr_warmup_steps
    if step < warm_up:
        return config.learning_rate * (step + 1) / warm_up
    if config.lr_decay is not None:
        return config.learning_rate * config.lr_decay ** ((step - warm_up) // config.lr_decay_steps)
    progress = (step - warm_up) / max(1, config.max_train_steps - warm_up)
    return config.learning_rate * (1 + math.cos(math.pi * progress)) / 2
