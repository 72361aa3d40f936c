"""What a training at the paper's size needs: `python -m dmxlib.studies.paper_size` writes
results/speed/paper_size.csv.

Operations and memory are counted by shapes alone, in torch's FakeTensorMode. Memory is that of weights,
gradients, averages, AdamW's moments and what the backward pass keeps; not what cuDNN and the allocator take
beside it.

Then some steps of stage 1 are run, with real loading from a made set of songs: how long a step waits for its
batch, what a checkpoint takes on disk, to write, and until a resumed run has its next batch. A few songs are
made, and linked under many names.
"""

import argparse
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from dmxlib import audio
from dmxlib.codec import Codec
from dmxlib.codec.load import OFFICIAL
from dmxlib.config import from_values, read_yaml
from dmxlib.data.sets.toy import render_song
from dmxlib.errors import exit_on_input_error
from dmxlib.reproduce import seeded_generator
from dmxlib.studies.benchmark_report import three_figures
from dmxlib.studies.timing import computes_bf16, in_precision
from dmxlib.training import separator
from dmxlib.training.loop import Run, make_accelerator
from dmxlib.training.separator import TrainConfig, TrainStep, new_pipeline

CONFIGS = Path(__file__).parents[1] / "configs"
RATE = 44_100  # of the made songs, MUSDB18-HQ's
VALIDATED_AT = 8  # values of t, see TrainStep.validation_loss


def stage_configs() -> dict[int, TrainConfig]:
    """Of both stages; the second's sizes are those of the model it starts from."""
    first, second = (from_values(TrainConfig, read_yaml(CONFIGS / f"paper_stage{n}.yaml")) for n in (1, 2))
    loop = ("train_batch_size", "gradient_accumulation_steps", "validation_steps", "validation_pairs")
    changed = {key: getattr(second, key) for key in (*loop, "mixed_precision", "train_conditioner")}
    return {1: first, 2: replace(first, **changed)}


# -- counted -------------------------------------------------------------------------------------------------


class Held(TorchDispatchMode):
    """Bytes of the tensors that come about and are alive: `peak`, at most. A storage counts once."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.alive = {}  # by address: (weak reference, bytes)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        given = {storage._cdata for storage in _storages((args, kwargs))}
        result = function(*args, **kwargs or {})
        for storage in _storages(result):
            if storage._cdata not in given:  # no view, nor in place
                self._add(storage)
        return result

    def _add(self, storage):
        known = self.alive.get(storage._cdata)
        if known and not known[0].expired():
            return
        self.now += storage.nbytes() - (known[1] if known else 0)
        self.alive[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        if self.now > self.peak:  # perhaps: what is gone is not told
            self.alive = {key: entry for key, entry in self.alive.items() if not entry[0].expired()}
            self.now = sum(size for _, size in self.alive.values())
            self.peak = max(self.peak, self.now)


def _storages(tree):
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def without_numbers(module: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """Its parameters and buffers have a shape alone from now on."""
    for part in module.modules():
        for name, tensor in [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]:
            fake = mode.from_tensor(tensor.detach())
            trained = isinstance(tensor, nn.Parameter)
            setattr(part, name, nn.Parameter(fake, tensor.requires_grad) if trained else fake)
    return module


def kept(*modules: nn.Module) -> int:
    """Bytes of the weights, and of the average and AdamW's two moments of each that is trained."""
    weights = [parameter for module in modules for parameter in module.parameters()]
    return sum(4 * (4 if weight.requires_grad else 1) * weight.numel() for weight in weights)


def counted(config: TrainConfig) -> dict[str, float]:
    """Of a stage: "bytes" of a process and step, "operations" of an item that is learned, "validation" as a
    share of them, and "checkpoint" in bytes."""
    pipeline = new_pipeline(Codec.from_config(OFFICIAL["48khz"]), config)
    step = TrainStep(pipeline, config.train_conditioner, validation=[])
    parts = (pipeline.codec, pipeline.conditioner, pipeline.unet)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    for part in parts:
        without_numbers(part, mode)
    peak, learned, validated = _by_shapes(pipeline, step, config, mode)
    items = config.validation_steps * config.train_batch_size * config.gradient_accumulation_steps
    return {
        "bytes": kept(*parts) + peak,
        "operations": learned,
        "validation": config.validation_pairs * validated / (items * learned),
        "checkpoint": kept(step),
    }


def _by_shapes(pipeline, step, config, mode):
    """(peak bytes of a step beside the weights, operations of an item in it, and of a pair's validation)."""
    precision, batch = "bf16" if config.mixed_precision == "bf16" else "fp32", config.train_batch_size
    frames = config.chunk_frames
    shape = (pipeline.codec.channels, frames * pipeline.codec.hop_length)

    def operations(function, *args):
        with FlopCounterMode(display=False) as counter:
            result = function(*args)
        return counter.get_total_flops(), result

    def learn(waves):
        step({"vocals": waves, "mixture": waves}, seeded_generator(0)).backward()

    with mode, in_precision(precision):
        with Held() as held:
            learned, _ = operations(learn, torch.randn(batch, *shape))
        wave = torch.randn(1, *shape)
        encoding, condition = operations(pipeline.codec.encode, wave)
        sampling, _ = operations(
            pipeline.unet, torch.randn(1, pipeline.unet.config.latent_channels, frames), 500, condition
        )
        decoding, _ = operations(pipeline.codec.decode, condition)
    steps = VALIDATED_AT + config.num_inference_steps
    return held.peak, learned / batch, 2 * encoding + steps * sampling + 2 * decoding


# -- run -----------------------------------------------------------------------------------------------------


def make_songs(folder: Path, songs: int, seconds: float, made: int) -> None:
    """A data set of so many songs to train on, each a link to one of those made, and one to validate on."""
    for number in range(made):
        vocals, accompaniment = render_song(number, seconds, RATE)
        for stem, wave in (("mixture", vocals + accompaniment), ("vocals", vocals)):
            audio.write(folder / "made" / str(number) / f"{stem}.wav", wave, RATE, "PCM_16")
    for split, length in (("train", songs), ("valid", 1)):
        (folder / split).mkdir()
        for number in range(length):
            (folder / split / f"Song {number}").symlink_to(folder / "made" / str(number % made))


class ClockedRun(Run):
    """A run that notes how many seconds each step waited for its batch."""

    def epoch(self):
        """As `Run.epoch`."""
        self.waits, batches = [], iter(super().epoch())
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            self.waits.append(time.perf_counter() - start)
            if batch is None:
                return
            yield batch


def dry_run(config: TrainConfig) -> dict[str, float]:
    """Train for `config.max_train_steps` steps of one epoch, write a checkpoint and resume from it: the
    seconds of a step and of its wait for the loader, both without the first, whose workers start."""
    accelerator = make_accelerator(config)
    step, training = separator.make_training(config, accelerator.device)
    start, cpu = time.perf_counter(), time.process_time()
    items = [training[index] for index in range(4)]
    loading = (time.process_time() - cpu) / len(items)
    run = ClockedRun(step, training, config, accelerator)
    run.resume()
    times, start = [], time.perf_counter()
    for _ in run.steps():
        run.log.read()
        times.append(time.perf_counter() - start)
        start = time.perf_counter()
    wait, whole = (float(np.median(seconds[1:])) for seconds in (run.waits[: len(times)], times))
    start = time.perf_counter()
    run.save_checkpoint(0, {})
    saving = time.perf_counter() - start
    size = sum(path.stat().st_size for path in run.folder.glob("checkpoint-*/*"))
    start = time.perf_counter()
    again = replace(config, resume_from_checkpoint="latest", max_train_steps=run.step + 1)
    resumed = ClockedRun(step, training, again, accelerator)
    resumed.resume()
    next(iter(resumed.epoch()))
    return {
        "a loader's processor, of an item": loading,
        "a step": whole,
        "of it, waiting for the loader": wait,
        "writing a checkpoint": saving,
        "resuming, to the next batch": time.perf_counter() - start,
        "checkpoint": size,
    }


@exit_on_input_error
def main(argv=None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m dmxlib.studies.paper_size", description=__doc__)
    parser.add_argument("--output_dir", default="results/speed", help="folder to write to")
    parser.add_argument("--steps", type=int, default=20, help="that are run; 0: nothing is")
    parser.add_argument("--batch", type=int, default=1, help="of those steps")
    parser.add_argument("--workers", type=int, default=1, help="that load for them")
    parser.add_argument("--songs", type=int, default=100, help="of the made set")
    parser.add_argument("--seconds", type=float, default=180, help="of a song")
    parser.add_argument("--made", type=int, default=4, help="different ones among them")
    options = parser.parse_args(argv)
    configs, rows = stage_configs(), []
    for stage, config in configs.items():
        found = counted(config)
        rows += [
            (
                f"stage {stage}",
                f"memory, batch {config.train_batch_size}",
                found["bytes"] / 1e9,
                "GB",
                "counted",
            ),
            (f"stage {stage}", "an item that is learned", found["operations"] / 1e12, "TFLOP", "counted"),
            (f"stage {stage}", "validation", 100 * found["validation"], "% of the operations", "counted"),
            (f"stage {stage}", "checkpoint", found["checkpoint"] / 1e9, "GB", "counted"),
        ]
    if options.steps:
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            make_songs(folder / "songs", options.songs, options.seconds, options.made)
            codec = Codec.from_config(OFFICIAL["48khz"])
            codec.save_pretrained(folder / "codec")
            config = replace(
                configs[1],
                output_dir=str(folder / "run"),
                data_root=str(folder / "songs"),
                codec=str(folder / "codec"),
                train_batch_size=options.batch,
                dataloader_num_workers=options.workers,
                max_train_steps=options.steps,
                validation_pairs=1,
                mixed_precision="bf16" if computes_bf16() else "no",
            )
            found = dry_run(config)
        where = f"measured, batch {options.batch}, {options.workers} worker, {os.cpu_count()} busy cores"
        rows.append(("stage 1", "checkpoint", found.pop("checkpoint") / 1e9, "GB", "measured"))
        rows += [("stage 1", what, seconds, "s", where) for what, seconds in found.items()]
    table = pd.DataFrame(rows, columns=["stage", "what", "value", "unit", "how"])
    folder = Path(options.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / "paper_size.csv", index=False)
    print(three_figures(table))


if __name__ == "__main__":
    main()
