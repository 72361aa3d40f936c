"""What bounds EnCodec's speed on a processor: `python -m dmxlib.studies.codec_speed` writes codec_steps.csv.

It has EnCodec-48k's encoder and decoder by the package and by `dmxlib.codec.fast`, each beside what this
machine's rates predict: operations over that of a matrix product of their precision, bytes over that of a
copy. The encoder gets a 12-s clip padded to a chunk, and the decoder what that gives.
"""

import argparse
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dmxlib.codec import Codec, fast
from dmxlib.codec.load import OFFICIAL
from dmxlib.errors import exit_on_input_error
from dmxlib.reproduce import whole
from dmxlib.studies.timing import computes_bf16, count, in_precision, timed
from dmxlib.summary import frame_markdown

CONVOLUTIONS = (nn.Conv1d, nn.ConvTranspose1d)
WAYS = {  # how, the modules that each pass over input and output, precision
    "package": (nn.Module.__call__, (*CONVOLUTIONS, nn.ELU, nn.GroupNorm), "fp32"),
    "in tiles": (fast.forward, CONVOLUTIONS, "fp32"),
    "in tiles, bf16": (fast.forward, CONVOLUTIONS, "bf16"),
}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
SIZE = 2048  # of the matrices that the rate of operations is taken of


def ways(bf16: bool) -> dict[str, tuple]:
    """Those of WAYS that a processor with or without bf16 can go."""
    return {way: entry for way, entry in WAYS.items() if bf16 or entry[-1] == "fp32"}


@torch.no_grad()
def codec_steps(seconds: float, repeats: int) -> pd.DataFrame:
    """What the rates predict of each way of the encoder and the decoder, and what was measured."""
    chosen, big = ways(computes_bf16()), torch.randn(2**25)
    matrices = {precision: torch.randn(SIZE, SIZE).to(DTYPES[precision]) for *_, precision in chosen.values()}
    rates = {precision: partial(torch.mm, matrix, matrix) for precision, matrix in matrices.items()}
    fastest = {name: min(times) for name, times in timed(rates | {"copy": big.clone}, 5).items()}

    def run(forward, precision):
        with in_precision(precision):
            forward(seanet, x)

    codec, rows = Codec.from_config(OFFICIAL["48khz"]).eval(), []
    x = torch.randn(1, codec.channels, round(seconds * codec.config.sampling_rate))
    for name, seanet in (("encoder", codec.encoder), ("decoder", codec.decoder)):
        calls = {way: partial(run, forward, precision) for way, (forward, _, precision) in chosen.items()}
        measured = timed(calls, repeats)
        operations, passes, output = work(seanet, x)
        for way, (_, kinds, precision) in chosen.items():
            moved = sum(size for module, size in passes if isinstance(module, kinds))
            products = operations / (2 * SIZE**3) * fastest[precision]
            copies = moved * DTYPES[precision].itemsize / 4 / (2 * big.nbytes) * fastest["copy"]
            median = pd.Series(measured[way]).median()
            rows.append((name, way, products, copies, products + copies, median))
        x = output
    columns = ["operations_seconds", "bytes_seconds", "predicted_seconds", "measured_seconds"]
    steps = pd.DataFrame(rows, columns=["part", "step", *columns])
    first = steps.groupby("part").measured_seconds.transform("first")
    return steps.assign(times_as_fast=first / steps.measured_seconds)


def work(seanet: nn.Module, x: torch.Tensor):
    """Operations, the bytes that each module reads and writes [(module, bytes)], and the output."""
    passes, recurrent = [], []

    def note(module, inputs, output):
        if isinstance(module, nn.LSTM):  # which the counter does not know: two operations a weight and frame
            recurrent.append(2 * count(module) * len(inputs[0]))
        elif isinstance(output, torch.Tensor):
            passes.append((module, inputs[0].nbytes + output.nbytes))

    for module in seanet.modules():
        module.register_forward_hook(note)
    with FlopCounterMode(display=False) as counter:
        output = seanet(x)
    return counter.get_total_flops() + sum(recurrent), passes, output


@exit_on_input_error
def main(argv=None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m dmxlib.studies.codec_speed", description=__doc__)
    parser.add_argument("--output_dir", default="results/speed", help="folder to write to")
    parser.add_argument("--seconds", type=float, default=2048 / 150, help="of audio")
    parser.add_argument("--repeats", type=int, default=5, help="timed calls, after one that is not counted")
    options = parser.parse_args(argv)
    folder = Path(options.output_dir)
    steps = codec_steps(options.seconds, options.repeats)
    with whole(folder / "codec_steps.csv") as part:
        steps.to_csv(part, index=False)
    print(frame_markdown(steps.set_index("part")))


if __name__ == "__main__":
    main()
