"""The one training loop: Accelerate, EMA, checkpoints that survive a kill, a JSONL log.

It trains any `torch.nn.Module` whose `forward(batch, generator)` is its loss and that offers
- `validate() -> (dict[str, float], waves, rate)`: figures on fixed excerpts with fixed noise, and what is
  plotted of it, as `save_spectrograms` takes it;
- `save(folder)`: what users load.
Everything random in a step follows from (seed, step), so a resumed run gives an unbroken one's losses.
"""

import contextlib
import json
import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DataLoaderConfiguration, set_seed
from diffusers.training_utils import EMAModel
from torch.utils.data import DataLoader
from tqdm import tqdm

from dmxlib.config import setting, write_yaml
from dmxlib.data import VocalPairs
from dmxlib.data.on_device import DevicePairs
from dmxlib.device import prefer_speed
from dmxlib.errors import InputError
from dmxlib.plots import save_spectrograms
from dmxlib.reproduce import alone, batches, facts, ignore_signals, seeded_generator, whole
from dmxlib.training import checkpoints
from dmxlib.training.log import Log
from dmxlib.training.optimizer import learning_rate, make_optimizer
from dmxlib.training.signals import Stop

PRECISIONS = ("no", "bf16", "fp16")


@dataclass
class TrainerConfig:
    """Settings of the loop; every trained system adds its own. Names as in diffusers' training scripts."""

    output_dir: str = setting("data/runs/run", "folder of the run")
    seed: int = setting(
        0,
        "of the order of the items, their augmentations, noise and initial weights",
        least=0,
        most=2**32 - 1,
    )
    max_train_steps: int = setting(1000, "optimiser steps", least=0)
    train_batch_size: int = setting(4, "items of a process and micro-step")
    gradient_accumulation_steps: int = setting(1, "micro-steps of an optimiser step")
    optimizer: str = setting("adamw", "adamw or muon")
    learning_rate: float = setting(1e-4, "the highest, after the warm-up", least=0)
    lr_warmup_steps: int = setting(100, "optimiser steps in which the learning rate grows from 0", least=0)
    lr_decay: float | None = setting(
        None, "factor of the learning rate every lr_decay_steps; 1: constant, none: half a cosine down to 0"
    )
    lr_decay_steps: int = setting(1, "optimiser steps")
    adam_beta2: float = setting(0.99, "forgetting factor of squared gradients; beta1 is 0.9", least=0, most=1)
    adam_weight_decay: float = setting(
        1e-2, "times the learning rate, a step's share of matrices and kernels; vectors do not decay", least=0
    )
    max_grad_norm: float = setting(1.0, "L2 norm that gradients are clipped to", least=0)
    mixed_precision: str = setting("no", "no, bf16, or fp16 on a GPU that has no bf16")
    deterministic: bool = setting(
        False,
        "the same numbers each time on a GPU, as far as torch has a way: no tf32, no search for kernels",
    )
    use_ema: bool = setting(True, "validate and save the weights' exponential moving average")
    ema_decay: float = setting(
        0.999, "of that average, for each optimiser step; smaller in the first ones", least=0, most=1
    )
    dataloader_num_workers: int = setting(
        0, "processes that read and augment; 0: none but the training one", least=0
    )
    data_on_device: bool = setting(
        False, "all training waves on the device, and pairs made there; no workers"
    )
    checkpointing_steps: int = setting(500, "optimiser steps from checkpoint to checkpoint")
    checkpoints_total_limit: int = setting(2, "newest checkpoints that are kept, beside the best one")
    validation_steps: int = setting(500, "optimiser steps from validation to validation")
    logging_steps: int = setting(10, "optimiser steps after which the log is written; a GPU waits for it")
    resume_from_checkpoint: str | None = setting(None, "latest, or a checkpoint's folder")


def make_accelerator(config: TrainerConfig) -> Accelerator:
    """Accelerate as the run's config says.

    Raises InputError for a mixed_precision that is unknown, or fp16 on a processor.
    """
    if config.mixed_precision not in PRECISIONS:
        raise InputError(f"mixed_precision is {config.mixed_precision}; choose {' or '.join(PRECISIONS)}.")
    if config.mixed_precision == "fp16" and PartialState().device.type == "cpu":
        raise InputError("mixed_precision fp16 needs a GPU; choose no or bf16.")
    set_seed(config.seed)
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # which CUDA asks for then
        torch.use_deterministic_algorithms(True, warn_only=True)
    prefer_speed()
    return Accelerator(
        mixed_precision=config.mixed_precision,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        # a batch travels to the device while the one before it is still learned
        dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True, non_blocking=True),
    )


def train(
    module: torch.nn.Module, dataset, config: TrainerConfig, accelerator: Accelerator, plot=save_spectrograms
) -> None:
    """Train `module` on `dataset` for `config.max_train_steps` optimiser steps and save it.

    SIGTERM, as schedulers send it before they take a machine away, ends the process with a checkpoint.

    Args:
        plot: writes a validation's picture, a function as the default is.

    Raises InputError where a checkpoint cannot be resumed, another process trains in the folder, or the loss
    stays non-finite.
    """
    if config.data_on_device:
        if not isinstance(dataset, VocalPairs):
            raise InputError("data_on_device asks for waves; leave latent_cache out.")
        dataset = DevicePairs(dataset, accelerator.device)
    run = Run(module, dataset, config, accelerator, plot)
    with alone(run.folder, accelerator.is_main_process):
        run.resume()
        with run.stop.heard():
            run.loop()
        run.finish()


class Run:
    """One training run and its folder: config.yaml, run.json, log.jsonl, checkpoint-<step>/, model/."""

    def __init__(self, module, dataset, config, accelerator, plot=save_spectrograms):
        self.config, self.accelerator, self.dataset, self.plot = config, accelerator, dataset, plot
        self.folder = Path(config.output_dir)
        self.step = 0
        self.skipped = torch.zeros(2, device=accelerator.device)  # steps that were not finite: all, in a row
        self.log = Log(self.folder / "log.jsonl", accelerator.is_main_process)
        self.stop = Stop(accelerator, config.logging_steps)
        workers = 0 if config.data_on_device else config.dataloader_num_workers
        loader = DataLoader(
            dataset,
            config.train_batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=accelerator.device.type == "cuda" and not config.data_on_device,
            worker_init_fn=ignore_signals,
        )
        if len(loader) < accelerator.num_processes:
            raise InputError(f"{len(dataset)} training items are less than one batch; prepare more data.")
        self.parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        optimizer = make_optimizer(self.parameters, config)
        self.module, self.optimizer, self.loader = accelerator.prepare(module, optimizer, loader)
        self.ema = EMAModel(self.parameters, config.ema_decay, foreach=True) if config.use_ema else None

    # -- the loop --------------------------------------------------------------------------------------------

    def loop(self):
        """Run optimiser steps until `max_train_steps`."""
        config = self.config
        with tqdm(
            total=config.max_train_steps,
            initial=self.step,
            desc=self.folder.name,
            unit="step",
            disable=not self.accelerator.is_main_process,
        ) as bar:  # what is told of an error begins a line of its own
            self.module.train()
            if self.step == 0:
                self.log.write(self.step, self.validation())
            for _ in self.steps():
                bar.update()
                last = self.step == config.max_train_steps
                validates = last or self.step % config.validation_steps == 0
                saves = last or self.step % config.checkpointing_steps == 0 or self.stop.wanted(self.step)
                if validates or saves or self.step % config.logging_steps == 0:
                    loss, skipped = self.log.read()
                    bar.set_postfix(loss=f"{loss:.4f}", skipped=skipped)
                figures = self.validation() if validates else {}
                self.log.write(self.step, figures)
                if saves:
                    self.save_checkpoint(skipped, figures)
                if saves and not last and self.stop.wanted(self.step):
                    self.stop.leave(self.step)

    def steps(self):
        """Take optimiser steps, and yield after each."""
        losses = []
        while self.step < self.config.max_train_steps:
            for batch in batches(self.epoch()):
                with self.accelerator.accumulate(self.module):
                    loss = self.module(batch, self.generator(len(losses)))
                    self.accelerator.backward(loss)
                    losses.append(loss.detach())
                if self.accelerator.sync_gradients:
                    loss = self.accelerator.reduce(torch.stack(losses).mean(), "mean")
                    losses = []
                    self.update(loss)
                    yield
                    if self.step == self.config.max_train_steps:
                        return

    def epoch(self):
        """The batches of the current epoch that are still to come."""
        accumulation = self.config.gradient_accumulation_steps
        number, done = divmod(self.step, math.ceil(len(self.loader) / accumulation))
        self.loader.set_epoch(number)
        self.dataset.set_epoch(number)  # with several processes Accelerate does not
        # Accelerate makes a new loader of it, whose workers would have to start anew in each epoch
        return self.accelerator.skip_first_batches(self.loader, done * accumulation) if done else self.loader

    def generator(self, micro_step):
        """The noise of one forward pass; other in each step, accumulation step and process."""
        key = (self.config.seed, self.step, micro_step, self.accelerator.process_index)
        return seeded_generator(*key, device=self.accelerator.device)

    def update(self, loss: torch.Tensor) -> None:
        """Take the optimiser's step, unless something is not finite: one such makes every weight NaN.

        Whether it is only the device knows, which nothing here waits for; a moving average takes in the
        weights of a step left out once more.
        """
        grad_norm = self.accelerator.clip_grad_norm_(self.parameters, self.config.max_grad_norm)
        broken = 1 - (loss + grad_norm).isfinite().float()
        rate = learning_rate(self.config, self.step)
        optimizer, scaler = self.optimizer.optimizer, self.accelerator.scaler
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.found_inf = broken  # as a GradScaler tells a fused optimiser
        optimizer.step()
        if scaler:  # of fp16: a smaller scale after a step with infinite gradients
            scaler.update()
        if self.ema:
            self.ema.step(self.parameters)
        optimizer.zero_grad()
        self.step += 1
        self.skipped = torch.stack([self.skipped[0] + broken, (self.skipped[1] + 1) * broken])
        self.log.add(self.step, rate, torch.stack([loss, grad_norm, *self.skipped]))

    # -- validation and files --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def averaged_weights(self):
        """The module, unwrapped, with the weights' moving average where there is one."""
        module = self.accelerator.unwrap_model(self.module)
        if self.ema:
            self.ema.store(self.parameters)
            self.ema.copy_to(self.parameters)
        try:
            yield module
        finally:
            if self.ema:
                self.ema.restore(self.parameters)

    def validation(self) -> dict:
        """The module's own figures, computed by the main process while the others wait."""
        figures = {}
        if self.accelerator.is_main_process:
            with self.averaged_weights() as module, torch.no_grad():
                module.eval()
                figures, waves, rate = module.validate()
                self.plot(self.folder / "samples" / f"step-{self.step:06d}.png", waves, rate)
                module.train()
        self.accelerator.wait_for_everyone()
        return {f"validation_{name}": value for name, value in figures.items()}

    def save_checkpoint(self, skipped: int, figures: dict):
        """Write checkpoint-<step>, unless a weight is not finite.

        Args:
            skipped: steps that were not finite.
            figures: of the validation at this step, if there was one.
        """
        module = self.accelerator.unwrap_model(self.module)
        if not all(tensor.isfinite().all() for tensor in module.state_dict().values()):
            raise InputError(
                f"a weight is not finite at step {self.step}, so no checkpoint was written; resume from the "
                f"last one in {self.folder} with a lower learning_rate."
            )
        if self.accelerator.is_main_process:
            counts = {"step": self.step, "skipped": skipped, **figures}
            averages = self.ema.shadow_params if self.ema else []
            keep = self.config.checkpoints_total_limit
            checkpoints.save(self.folder, counts, module, averages, self.optimizer, keep)
        self.accelerator.wait_for_everyone()

    def resume(self):
        """Start the folder, or go on from the checkpoint that `resume_from_checkpoint` names."""
        if self.accelerator.is_main_process:
            checkpoints.tidy(self.folder)
        self.accelerator.wait_for_everyone()
        checkpoint = checkpoints.find_checkpoint(self.config.resume_from_checkpoint, self.folder)
        if checkpoint:
            self.load_checkpoint(checkpoint)
        if self.accelerator.is_main_process:
            self.log.begin(self.step)
            write_yaml(self.config, self.folder / "config.yaml")
            about = facts(device=str(self.accelerator.device), processes=self.accelerator.num_processes)
            with whole(self.folder / "run.json") as part:
                part.write_text(json.dumps(about, indent=2) + "\n")
        self.accelerator.wait_for_everyone()

    def load_checkpoint(self, checkpoint: Path):
        """Take over weights, averages, optimiser and counts."""
        module = self.accelerator.unwrap_model(self.module)
        counts, averages = checkpoints.load(checkpoint, module, self.optimizer)
        self.step = counts["step"]
        self.skipped[0] = counts["skipped"]
        if self.ema and averages:
            self.ema.shadow_params = averages
            self.ema.to(self.accelerator.device)
            self.ema.optimization_step = self.step

    def finish(self):
        """Save what users load to model/, with the averaged weights."""
        if self.accelerator.is_main_process:
            model = self.folder / "model"
            with self.averaged_weights() as module, whole(model) as part:
                module.save(part)
                shutil.rmtree(model, ignore_errors=True)  # an earlier one: a folder is not renamed onto it
        self.accelerator.end_training()
