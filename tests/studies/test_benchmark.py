"""The benchmark: the real command, small; what it writes. Nothing here says how long anything takes."""

import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partialmethod

import pandas as pd
import pytest
import torch

from dmxlib.studies import benchmark, benchmark_report, timing

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
    parts |= {"--help", "import", "song of 1 s"}
    parts |= {f"stage {n}, training step from audio" for n in (1, 2, 3)}
    parts |= {f"stage {n}, training step from cache" for n in (1, 2)}
    assert parts <= set(table.part)
    assert ("step: the same in bf16" in set(table.part)) == timing.computes_bf16()
    assert "training step from audio" in set(table.part[table.system == "instglow"])
    assert (table.seconds_median > 0).all() and (table.peak_mb > 0).all()
    counts = table.groupby("system").parameters.max()
    model = benchmark.ldm_dmx("mini")
    assert counts["ldm-dmx"] == sum(part.num_parameters() for part in (model.unet, model.conditioner))
    assert {"hdemucs", "instglow"} < set(counts.index)
    assert {"table.md", "steps.png", "run.json"} < {path.name for path in folder.iterdir()}
    assert json.loads((folder / "run.json").read_text()).keys() >= {"command", "commit", "machine"}


def test_a_case_that_takes_too_long_is_ended():
    case = benchmark.Case(benchmark.song, steps=50, seconds=100_000, repeats=1)
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
    table = pd.DataFrame(rows, columns=columns).assign(size="paper")
    beside = benchmark_report.ratios(table).set_index("precision")
    assert beside["ldm-dmx / hdemucs"]["fp32"] == 0.5 and pd.isna(beside["ldm-dmx / hdemucs"]["bf16"])
    assert beside["ldm-dmx / hdemucs in one chunk"]["bf16"] == 0.5
    assert beside["msdm / ldm-dmx"]["fp32"] == 150


def test_only_further_steps_are_multiplied():
    case = benchmark.Case(benchmark.baseline, "instglow", seconds=0.1)
    steps = benchmark.baselines.load("instglow").num_inference_steps
    same = benchmark.baseline(case, lambda calls, _: dict.fromkeys(calls, [1.0]))
    assert same[0] == {"total": [1.0]}  # a second step took nothing
    longer = benchmark.baseline(case, lambda calls, _: {1: [1.0], 2: [1.5]})
    assert longer[0]["total"] == 1.0 + 0.5 * (steps - 1)


def test_what_the_table_was_measured_on_is_said(folder):
    text = (folder / "table.md").read_text()
    assert "one excerpt of white noise" in text
    assert (benchmark_report.NO_BF16 in text) != timing.computes_bf16()


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
    network, x = Recurrent().eval(), torch.randn(2, 4, 16)
    expected = network(x)
    limit = torch._dynamo.config.recompile_limit
    # not monkeypatch: it undoes by deleting what is no plain attribute, and torch then has no such setting
    with torch._dynamo.config.patch(recompile_limit=limit):
        timing.compile_parts(network)
        torch.testing.assert_close(network(x), expected)
    assert torch._dynamo.config.recompile_limit == limit
    assert sum("conv1d" in code for code in graphs) == 2
