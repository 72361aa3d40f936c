"""What a student learns comes from its teacher. How it trains is tested in tests/training."""

import pytest
import torch

from dmxlib.pipeline import VocalSeparationPipeline
from dmxlib.reproduce import seeded_generator
from dmxlib.studies.few_steps import METHODS, DistillStep, TrainConfig


@pytest.mark.parametrize("method", METHODS)
def test_a_teacher_of_other_weights_teaches_something_else(model_folder, method):
    pipeline = VocalSeparationPipeline.from_pretrained(model_folder)
    step = DistillStep(pipeline, [], TrainConfig(method=method, teacher_steps=4))
    generator = seeded_generator(0)
    batch = {
        "latents": torch.randn(2, pipeline.codec.dimension + 1, 64, generator=generator),
        "condition": torch.randn(2, pipeline.codec.dimension, 64, generator=generator),
    }

    def loss():
        with torch.no_grad():
            return step(batch, seeded_generator(1)).item()

    before = loss()
    assert loss() == before  # the same noise
    (teacher,) = step._teacher
    with torch.no_grad():
        for weight in teacher.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=generator)
    assert (abs(loss() - before) > 1e-4 * before) == (method != "data")
