"""Count and time a system: `python -m dmxlib.benchmark --system CONFIG --output_dir DIR`.

Writes <config>.json: parameters of each part, seconds of a training step in each stage (forward, backward and
optimiser on one excerpt, with and without the latent cache) and of the separation of a 12-s stereo clip. A
codec that is not on the machine is replaced by EnCodec's 48 kHz architecture with random weights: they take
the same time.
"""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from dmxlib.codec import OFFICIAL, Codec
from dmxlib.config import from_values, parse_config, read_yaml
from dmxlib.data import seeded_generator
from dmxlib.errors import exit_on_input_error
from dmxlib.latents import encode_batch
from dmxlib.train import TrainConfig, TrainStep, new_pipeline
from dmxlib.trainer import git_commit

CLIP_SECONDS, RATE = 12, 44_100


@dataclass
class BenchmarkConfig:
    """What is timed."""

    system: str = "dmxlib/configs/paper_stage1.yaml"
    output_dir: str = "data/benchmark"
    num_inference_steps: int = 10
    repeats: int = 3


def seconds(function: Callable, repeats: int) -> float:
    """Median time of some calls after one that is not counted."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def count(module: torch.nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def training_step(pipeline, train_conditioner: bool, cached: bool) -> Callable:
    """One optimiser step on an excerpt of noise, from its waves or from what the latent cache keeps."""
    codec = pipeline.codec
    frames = pipeline.config.chunk_frames * codec.hop_length
    wave = torch.randn(1, codec.channels, frames, generator=torch.Generator().manual_seed(0))
    batch = {"vocals": wave, "mixture": wave}
    batch = encode_batch(codec, batch) if cached else batch
    step = TrainStep(pipeline, train_conditioner, [])
    optimizer = torch.optim.AdamW(step.parameters())

    def run():
        step(batch, seeded_generator(0)).backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


@exit_on_input_error
def main(argv=None) -> None:
    """Command line."""
    config = parse_config(BenchmarkConfig, argv, prog="python -m dmxlib.benchmark", description=__doc__)
    torch.manual_seed(0)
    system = from_values(TrainConfig, read_yaml(config.system))
    codec = Codec.load(system.codec) if Path(system.codec).is_dir() else Codec(**OFFICIAL["48khz"])
    pipeline = new_pipeline(codec, system)
    pipeline.set_progress_bar_config(disable=True)
    clip = torch.randn(2, CLIP_SECONDS * RATE).numpy() / 10
    steps = config.num_inference_steps
    figures = {
        "system": config.system,
        "unet_parameters": count(pipeline.unet),
        "conditioner_parameters": count(pipeline.conditioner),
        "trained_parameters": count(pipeline.unet) + count(pipeline.conditioner),
        "codec_parameters": count(pipeline.codec),
        "num_inference_steps": steps,
        "separation_seconds": seconds(
            lambda: pipeline(clip, RATE, num_inference_steps=steps, refine="wiener"), config.repeats
        ),
        "threads": torch.get_num_threads(),
        "commit": git_commit(),
    }
    for stage, train_conditioner in (("stage1", False), ("stage2", True)):
        for source, cached in (("audio", False), ("cache", True)):
            run = training_step(pipeline, train_conditioner, cached)
            figures[f"{stage}_step_seconds_from_{source}"] = seconds(run, config.repeats)
    folder = Path(config.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{Path(config.system).stem}.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
