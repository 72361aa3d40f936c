"""The benchmark: the real command, small; what it writes. Nothing here says how long anything takes."""

import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partialmethod

import pandas as pd
import pytest
import torch

from dmxlib.codec import Codec
from dmxlib.codec.load import OFFICIAL
from dmxlib.studies import benchmark

COLUMNS = "system,size,precision,compiled,steps,part,seconds_median,seconds_std,peak_mb,parameters"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the quick benchmark wrote."""
    folder = tmp_path_factory.mktemp("benchmark")
    benchmark.main(["--quick", "--output_dir", str(folder)])
    return folder


def test_every_kind_is_a_row(folder):
    assert (folder / "benchmark.csv").read_text().splitlines()[0] == COLUMNS
    table = pd.read_csv(folder / "benchmark.csv")
    parts = {"total", "conditioner", "unet", "decoder", "refinement", "warm-up"}
    parts |= {"--help", "import", "song of 1 s", "total, the package's codec", "step: the same in bf16"}
    parts |= {f"stage {n} step from audio, processes: 1" for n in (1, 2, 3)}
    parts |= {f"stage {n} step from cache, processes: 1" for n in (1, 2)}
    assert parts <= set(table.part)
    assert "step from audio, processes: 1" in set(table.part[table.system == "instglow"])
    assert (table.seconds_median > 0).all() and (table.peak_mb > 0).all()
    counts = table.groupby("system").parameters.max()
    model = benchmark.ldm_dmx("mini")
    assert counts["ldm-dmx"] == sum(part.num_parameters() for part in (model.unet, model.conditioner))
    assert {"hdemucs", "instglow"} < set(counts.index)
    assert {"table.md", "steps.png", "run.json"} < {path.name for path in folder.iterdir()}
    assert json.loads((folder / "run.json").read_text()).keys() >= {"command", "commit", "machine"}


def test_codec_steps_have_a_prediction(folder):
    steps = pd.read_csv(folder / "codec_steps.csv")
    assert list(steps.step) == 2 * list(benchmark.WAYS)
    assert (steps.predicted_seconds > steps.operations_seconds).all() and (steps.measured_seconds > 0).all()
    assert (steps.groupby("part").bytes_seconds.diff().dropna() < 0).all()  # each step moves less


@torch.no_grad()
def test_operations_of_the_codec():
    """Two for each multiplication: of the first convolution's kernel, and of the LSTM's weights, a frame."""
    codec = Codec.from_config(OFFICIAL["48khz"]).eval()
    first = codec.encoder.model[0]
    assert benchmark.work(first, torch.randn(1, 2, 640))[0] == 2 * 2 * 32 * 7 * 640
    lstm = codec.decoder.model[1]
    assert benchmark.work(lstm, torch.randn(1, 512, 5))[0] == 2 * 5 * benchmark.count(lstm)


def test_a_case_that_takes_too_long_is_ended():
    case = benchmark.Case("song", steps=50, seconds=100_000, repeats=1)
    with (
        ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool,
        pytest.raises(BrokenProcessPool),
    ):
        pool.submit(benchmark.limited, case, 1).result()


def test_ratios_compare_like_with_like():
    rows = [
        ("ldm-dmx", "fp32", False, 1, "total", 2.0),
        ("ldm-dmx", "bf16", False, 1, "total", 1.0),
        ("hdemucs", "fp32", False, None, "total", 4.0),
        ("hdemucs", "fp32", True, None, "total", 3.0),
        ("hdemucs", "bf16", False, None, "total, in one chunk", 2.0),
        ("msdm", "fp32", False, None, "total", 300.0),
    ]
    columns = ["system", "precision", "compiled", "steps", "part", "seconds_median"]
    beside = benchmark.ratios(pd.DataFrame(rows, columns=columns).assign(size="paper")).set_index("precision")
    assert beside["ldm-dmx / hdemucs"]["fp32"] == 0.5 and pd.isna(beside["ldm-dmx / hdemucs"]["bf16"])
    assert beside["ldm-dmx / hdemucs in one chunk"]["bf16"] == 0.5
    assert beside["msdm / ldm-dmx"]["fp32"] == 150


def test_only_further_steps_are_multiplied(monkeypatch):
    monkeypatch.setattr(benchmark, "repeat", lambda function, repeats: function() or [1.0])
    model = benchmark.baselines.load("instglow")
    monkeypatch.setattr(model, "separate", lambda self, clip, rate, steps, quiet: None)
    case = benchmark.Case("baseline", "instglow", seconds=0.1)
    assert benchmark.baseline(case)[0] == {"total": [1.0]}  # a second step took nothing


class Recurrent(torch.nn.Module):
    """Convolutions before and after an LSTM, as H-Demucs has them."""

    def __init__(self):
        super().__init__()
        self.convs = torch.nn.ModuleList(torch.nn.Conv1d(4, 4, 3, padding=1) for _ in range(2))
        self.lstm = torch.nn.LSTM(4, 4, batch_first=True)

    def forward(self, x):
        """(batch, 4, T) -> the same shape."""
        first, last = self.convs
        return last(self.lstm(first(x).mT)[0].mT)


@torch.no_grad()
def test_parts_around_an_lstm_are_compiled(monkeypatch):
    graphs = []

    def backend(graph, _):
        graphs.append(graph.code)
        return graph.forward

    monkeypatch.setattr(torch.nn.Module, "compile", partialmethod(torch.nn.Module.compile, backend=backend))
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", torch._dynamo.config.recompile_limit)
    network, x = Recurrent().eval(), torch.randn(2, 4, 16)
    expected = network(x)
    benchmark.compile_parts(network)
    torch.testing.assert_close(network(x), expected)
    assert sum("conv1d" in code for code in graphs) == 2
