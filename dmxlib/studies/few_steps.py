"""Teach a separator to sample in few steps what its teacher samples in many.

`accelerate launch dmxlib/train.py --config dmxlib/configs/mini_student.yaml`: the student begins as its
teacher, the system that `pretrained_model_name_or_path` names. Three ways (`method`):
- "segments": a step of the student goes where teacher_steps / student_steps of the teacher's go. At twice as
  many it is progressive distillation (Salimans and Ho 2022, arXiv 2202.00512; the next run begins with this
  one's model), at a single step of the student's direct regression of the teacher's result.
- "consistency": what the student samples from one point of the teacher's path is what it samples from the
  next (Song and others 2023, arXiv 2303.01469; Luo and others 2023, arXiv 2310.04378).
- "data": the loss of training, at the student's few t alone; the teacher has no say.
"""

import copy
from dataclasses import dataclass

import torch

from dmxlib.config import setting
from dmxlib.diffusion import amplitudes, predict
from dmxlib.errors import InputError
from dmxlib.pipeline import VocalSeparationPipeline
from dmxlib.training import separator

METHODS = ("segments", "consistency", "data")


@dataclass
class TrainConfig(separator.TrainConfig):
    """A training's settings; those of the U-Net's size are the teacher's own."""

    system: str = setting("student", "what is trained")
    pretrained_model_name_or_path: str = setting(
        "ldm-dmx-mini", "the teacher, and what the student begins as"
    )
    method: str = setting("segments", "segments, consistency or data")
    teacher_steps: int = setting(50, "sampling steps of the teacher's whole path")
    student_steps: int = setting(1, "sampling steps of the student's; a divisor of teacher_steps")


class DistillStep(separator.TrainStep):
    """The student with its loss; see the module.

    Raises InputError for an unknown method, steps of the teacher's that the student's do not divide,
    or a conditioner that is to learn: it is the teacher's, too.
    """

    def __init__(self, pipeline: VocalSeparationPipeline, validation, config: TrainConfig):
        super().__init__(pipeline, train_conditioner=False, validation=validation)
        if config.method not in METHODS:
            raise InputError(f"method is {config.method}; choose {' or '.join(METHODS)}.")
        if config.train_conditioner:
            raise InputError("train_conditioner is yes; a student keeps its teacher's; choose no.")
        if config.student_steps < 1 or config.teacher_steps % config.student_steps:
            raise InputError(
                f"teacher_steps is {config.teacher_steps}; choose a multiple of student_steps, "
                f"{config.student_steps}."
            )
        self.config = config
        config.num_inference_steps = config.student_steps
        pipeline.register_to_config(num_inference_steps=config.student_steps)
        self._teacher = (copy.deepcopy(pipeline.unet).requires_grad_(False).eval(),)  # hidden, never saved

    def forward(self, batch, generator):
        """Squared error of the student's v at noisy latents from the one that the teacher's path asks for."""
        latents, condition = self.encode(batch)
        method, steps = self.config.method, self.config.teacher_steps
        parts = steps if method == "consistency" else self.config.student_steps
        device = latents.device
        end = torch.randint(parts, (len(latents),), generator=generator, device=device) / parts
        t = end + 1 / parts
        noise = torch.randn(latents.shape, generator=generator, device=device)
        (alpha, sigma), (alpha_end, sigma_end) = amplitudes(t), amplitudes(end)
        noisy, x = alpha * latents + sigma * noise, latents
        with torch.no_grad():
            if method == "consistency":
                reached = self.teach(noisy, t, end, condition, 1)
                x = ddim_step(self.unet, reached, end, torch.zeros_like(end), condition)
            elif method == "segments":  # the z_0 with which one step from t goes as far
                reached = self.teach(noisy, t, end, condition, steps // parts)
                x = (reached - sigma_end / sigma * noisy) / (alpha_end - sigma_end / sigma * alpha)
        v = (alpha * noisy - x) / sigma
        return torch.nn.functional.mse_loss(predict(self.unet, noisy, t, condition), v)

    def teach(self, z, t, end, condition, steps):
        """z at t (batch,) -> where so many of the teacher's steps take it, at `end` (batch,)."""
        (teacher,) = self._teacher
        halves = teacher.mixture_halves(condition, z.shape[-1])
        for step in range(steps):
            now, following = (torch.lerp(t, end, (step + more) / steps) for more in (0, 1))
            z = ddim_step(teacher, z, now, following, halves)
        return z


def ddim_step(unet, z, t, end, condition):
    """z at t (batch,) -> z at `end` (batch,); at 0 it is the z_0 that the U-Net sees in z."""
    (alpha, sigma), (alpha_end, sigma_end) = amplitudes(t), amplitudes(end)
    v = predict(unet, z, t, condition)
    return alpha_end * (alpha * z - sigma * v) + sigma_end * (sigma * z + alpha * v)


def make_training(config: TrainConfig, device):
    """What `dmxlib.training.loop.train` takes."""
    pipeline, training, validation = separator.make_parts(config, device)
    return DistillStep(pipeline, validation, config), training
