"""The benchmark: the real command, small; what it writes. Nothing here says how long anything takes.

What a GPU is for it is torch's "meta" here, whose tensors have a device and no numbers, or a clock that is
made up.
"""

import contextlib
import json
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partialmethod

import pandas as pd
import pytest
import torch
from conftest import make_codec, make_pipeline

from dmxlib import streaming
from dmxlib.studies import benchmark, benchmark_kinds, benchmark_report, timing

COLUMNS = (
    "device,system,size,precision,compiled,steps,batch,part,"
    "seconds_median,seconds_std,peak_mb,gpu_peak_mb,parameters"
)


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
    parts |= {f"stage {n}, training step from audio" for n in (1, 3)}
    parts |= {f"stage {n}, training step from cache" for n in (1, 2)}
    parts |= {"step: mixture merged anew", "step: mixture's half once a chunk"}
    assert parts <= set(table.part)
    assert set(table.device) == {"cpu"} and table.gpu_peak_mb.isna().all()
    steps = table.part.str.contains("training step")
    assert (table.batch[steps & (table.system == "ldm-dmx")] == 2).all() and table.batch[~steps].isna().all()
    assert "training step from audio" in set(table.part[table.system == "instglow"])
    assert table.seconds_median.notna().all() and (table.peak_mb > 0).all()
    counts = table.groupby("system").parameters.max()
    model = benchmark_kinds.ldm_dmx("mini")
    assert counts["ldm-dmx"] == sum(part.num_parameters() for part in (model.unet, model.conditioner))
    assert {"hdemucs", "instglow"} < set(counts.index)
    assert {"table.md", "steps.png", "run.json"} < {path.name for path in folder.iterdir()}
    assert json.loads((folder / "run.json").read_text()).keys() >= {"command", "commit", "machine"}


def test_a_case_that_takes_too_long_is_ended():
    case = benchmark.Case(benchmark.song, "ldm-dmx-mini", steps=50, seconds=100_000, repeats=1)
    with (
        ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool,
        pytest.raises(BrokenProcessPool),
    ):
        pool.submit(benchmark.limited, case, 1).result()


def made(rows, *columns, **constant):
    """Rows of a benchmark.csv, whose other columns are empty."""
    table = pd.DataFrame(rows, columns=columns).assign(**{"size": "paper", "device": "cpu"} | constant)
    return table.reindex(columns=list(benchmark_report.COLUMNS))


def test_ratios_compare_like_with_like():
    rows = [
        ("cpu", "ldm-dmx", "fp32", False, 1, "total", 2.0),
        ("cpu", "ldm-dmx", "bf16", False, 1, "total", 1.0),
        ("cpu", "hdemucs", "fp32", False, None, "total", 4.0),
        ("cpu", "hdemucs", "fp32", True, None, "total", 3.0),
        ("cpu", "hdemucs", "bf16", False, None, "total, in one chunk", 2.0),
        ("cpu", "msdm", "fp32", False, None, "total", 300.0),
        ("cuda", "ldm-dmx", "fp32", False, 1, "total", 0.2),
        ("cuda", "hdemucs", "fp32", False, None, "total", 0.1),
        ("cuda", "msdm", "fp32", False, None, "total", 10.0),
    ]
    columns = ["device", "system", "precision", "compiled", "steps", "part", "seconds_median"]
    table = pd.DataFrame(rows, columns=columns).assign(size="paper")
    both = benchmark_report.ratios(table)
    beside = both[both.device == "cpu"].set_index("precision")
    assert beside["ldm-dmx / hdemucs"]["fp32"] == 0.5 and pd.isna(beside["ldm-dmx / hdemucs"]["bf16"])
    assert beside["ldm-dmx / hdemucs in one chunk"]["bf16"] == 0.5
    assert beside["msdm / ldm-dmx"]["fp32"] == 150 and beside["msdm / ldm-dmx"]["bf16"] == 300
    (gpu,) = both[both.device == "cuda"].itertuples(index=False)
    assert gpu[-3:] == pytest.approx((2, float("nan"), 50), nan_ok=True)


def test_training_rates_and_days():
    rows = [(f"stage {s}, training step from audio", b, s * b / 10) for s in (1, 2) for b in (8, 32)]
    table = made(rows, "part", "batch", "seconds_median", system="ldm-dmx", precision="bf16", compiled=False)
    rates = benchmark_report.training_rates(table)
    assert list(rates["excerpts a second"]) == pytest.approx([10, 10, 5, 5])
    assert list(rates["steps a second"]) == pytest.approx([1.25, 0.3125, 0.625, 0.15625])
    days = benchmark_report.days(table).set_index("gpus").days
    assert days[4] == pytest.approx((600_000 * 0.8 + 400_000 * 1.6) / 86_400)
    assert days[1] == pytest.approx(4 * days[4])
    assert benchmark_report.days(table[table.batch == 8]).gpus.tolist() == [4]


def test_other_systems_are_plotted_without_ldm_dmx(tmp_path):
    rows = [("hdemucs", "fp32", False, "total", 4.0), ("msdm", "fp32", False, "total", 300.0)]
    table = made(rows, "system", "precision", "compiled", "part", "seconds_median")
    benchmark_report.write(table, tmp_path)
    assert (tmp_path / "steps.png").stat().st_size > 0


def test_a_table_of_before_there_were_devices_is_read(tmp_path):
    path = tmp_path / "benchmark.csv"
    assert benchmark_report.read(path).empty
    path.write_text(
        "system,size,precision,compiled,steps,part,seconds_median,seconds_std,peak_mb,parameters\n"
        "ldm-dmx,paper,fp32,False,1.0,total,2.5,0.1,1818,115851113.0\n"
        "ldm-dmx,paper,fp32,False,,step: mixture merged anew,0.3,0.1,1818,115851113.0\n"
    )
    table = benchmark_report.read(path)
    assert ",".join(table) == COLUMNS and set(table.device) == {"cpu"}
    row = {"system": "ldm-dmx", "size": "paper", "precision": "fp32", "compiled": False}
    again = {**row, "device": "cpu", "steps": 1, "part": "total", "seconds_median": 2.0}
    elsewhere = {**row, "device": "cuda", "part": "step: mixture merged anew", "seconds_median": 0.1}
    both = benchmark_report.merged(table, [again, elsewhere])
    assert list(both.seconds_median) == [0.3, 2.0, 0.1]


def test_the_table_that_ships_is_read():
    table = benchmark_report.read(benchmark_kinds.CONFIGS.parents[1] / "results" / "speed" / "benchmark.csv")
    assert set(table.device) == {"cpu"} and {"fp32", "bf16"} == set(table.precision)
    assert not table.part.str.contains("bf16").any(), "a row's precision is a column"
    assert len(benchmark_report.ratios(table))


def test_a_gpu_has_the_same_cases_and_more():
    cpu = benchmark.all_cases("cpu", able=["fp32", "bf16"])
    cases = benchmark.all_cases("cuda:1", able=["fp32", "tf32", "bf16"])
    kinds = {}
    for device, its in (("cpu", cpu), ("cuda:1", cases)):
        kinds[device] = {
            (case.measure, case.system, case.size, case.precision, case.compiled, case.steps, case.stage)
            for case in its
            if case.measure is not benchmark.command_line
        }
    assert kinds["cpu"] < kinds["cuda:1"]
    sweep = {(c.size, c.precision, c.steps) for c in cases if c.measure is benchmark.separation}
    assert len(sweep) == 2 * 3 * len(benchmark.SWEEP)
    for stage in (1, 2):
        batches = {
            c.batch
            for c in cases
            if (c.measure, c.system, c.size, c.precision, c.stage, c.source)
            == (benchmark.training, "ldm-dmx", "paper", "bf16", stage, "audio")
        }
        assert batches == {4, 8, 16, 32}


def test_only_what_is_asked_for_is_measured():
    """One command gives the training steps, of the sizes, batches and systems that it names."""
    argv = ["--only", "training", "--sizes", "mini", "--batches", "3", "5", "--repeats", "2"]
    _, asked = benchmark.asked(argv)
    assert {case.measure for case in asked} == {benchmark.training}
    assert {case.size for case in asked} == {"mini"} and {case.repeats for case in asked} == {2}
    last = timing.precisions("cpu")[-1]  # in which every batch is timed
    plain = [case for case in asked if not case.compiled and (case.source, case.precision) == ("audio", last)]
    assert [(case.stage, case.batch) for case in plain] == [(1, 3), (1, 5), (2, 3), (2, 5), (3, 3)]
    _, asked = benchmark.asked(["--systems", "msgld", "msdm", "--only", "baseline", "training"])
    kinds = {(case.system, case.measure) for case in asked}
    assert kinds == {
        (name, kind) for name in ("msgld", "msdm") for kind in (benchmark.baseline, benchmark.training)
    }


@pytest.mark.parametrize(
    "flags", [["--device", "mps"], ["--device", "cuda:99"], ["--batches", "0"], ["--systems", "msgld", "?"]]
)
def test_what_cannot_be_is_one_sentence(tmp_path, flags):
    with pytest.raises(SystemExit) as exit:
        benchmark.main([*flags, "--output_dir", str(tmp_path)])
    assert exit.value.code.startswith("error: ") and not list(tmp_path.iterdir())


def test_a_gpus_own_clock_is_read(monkeypatch):
    """After the call that is not counted, and when the GPU is done."""
    clock, done = [0.0], []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.time, self.asked = clock[0], False

        def synchronize(self):
            self.asked = True

        def elapsed_time(self, end):
            assert end.asked, "the GPU may still compute"
            return end.time - self.time

    def call():
        clock[0] += 5000 if not done else 250  # milliseconds
        done.append(True)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "device", contextlib.nullcontext)
    assert timing.timed({"part": call}, 2, device="cuda:1") == {"part": [0.25, 0.25]}


def test_a_gpus_memory_is_asked_for(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", asked.append)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: asked.append(device) or 3 * 2**20)
    case = benchmark.Case(lambda case: ({"part": [1.0]}, 7), device="cuda:1")
    (row,) = benchmark.rows(case)
    assert row["gpu_peak_mb"] == 3 and row["device"] == "cuda:1" and asked == ["cuda:1"] * 2


def test_precisions_are_the_devices_own(monkeypatch):
    for capability, bf16, expected in (
        ((7, 5), False, ["fp32"]),
        ((8, 0), True, ["fp32", "tf32", "bf16"]),
    ):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, found=capability: found)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda found=bf16, **_: found)
        assert timing.precisions("cuda") == expected
    assert "tf32" not in timing.precisions("cpu")


FLAGS = [
    (torch.backends.cuda.matmul, "allow_tf32"),
    (torch.backends.cudnn, "allow_tf32"),
    (torch.backends.cudnn, "benchmark"),
    (streaming, "BFLOAT16"),
]


def flags(values=None):
    """What torch and the separators compute in; set first where values are given."""
    for flag, value in zip(FLAGS, values or [], strict=False):
        setattr(*flag, value)
    return [getattr(*flag) for flag in FLAGS]


@pytest.fixture
def restored():
    """Not monkeypatch: it undoes by deleting what is no plain attribute."""
    before = flags()
    yield
    flags(before)


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize("before", [True, False])
def test_a_precision_ends_with_its_context(precision, before):
    flags([before] * 4)
    with pytest.raises(KeyError), timing.in_precision(precision, search=not before):
        tf32 = precision != "fp32"
        assert flags() == [tf32, tf32, not before, False]
        assert torch.is_autocast_enabled("cpu") == (precision == "bf16")
        raise KeyError
    assert flags() == [before] * 4 and not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize(
    "case",
    [
        benchmark.Case(benchmark.unet),
        benchmark.Case(benchmark.training, batch=2, stage=1, source="cache"),
        benchmark.Case(benchmark.training, batch=2, stage=2),
        benchmark.Case(benchmark.training, "instglow", batch=2),
    ],
    ids=lambda case: f"{case.measure.__name__} {case.system} {case.stage}",
)
def test_models_and_what_they_read_are_on_the_device(case, monkeypatch):
    """An operation on tensors of two devices raises. Of "meta" torch has no generator and no autocast."""

    class Generator(torch.Generator):
        def __new__(cls, device):
            return super().__new__(cls)

        def manual_seed(self, seed):
            return None

    monkeypatch.setattr(torch, "Generator", Generator)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    monkeypatch.setattr(
        sys.modules["torch.optim.optimizer"], "_get_fused_kernels_supported_devices", lambda: ["meta"]
    )
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: torch.zeros(tensor.shape))
    measured = benchmark.rows(benchmark.replace(case, device="meta", repeats=1))
    assert all(row["seconds_median"] > 0 for row in measured)


def test_only_further_steps_are_multiplied():
    case = benchmark.Case(benchmark.baseline, "instglow", seconds=0.1)
    steps = benchmark.baselines.load("instglow").num_inference_steps
    same = benchmark.baseline(case, lambda calls, *_, **__: dict.fromkeys(calls, [1.0]))
    assert same[0] == {"total": [1.0]}  # a second step took nothing
    longer = benchmark.baseline(case, lambda calls, *_, **__: {1: [1.0], 2: [1.5]})
    assert longer[0]["total"] == 1.0 + 0.5 * (steps - 1)


def test_what_the_table_was_measured_on_is_said(folder):
    text = (folder / "table.md").read_text()
    assert "excerpts of white noise" in text and "excerpts a second" in text
    assert (benchmark_report.LACKS.format("bf16") in text) != timing.computes_bf16()
    assert "The paper's own times" not in text


def test_a_compiled_training_step_takes_turns_with_the_same_without(monkeypatch):
    ran = []

    def backend(graph, _):
        return lambda *tensors: ran.append(graph) or graph.forward(*tensors)

    monkeypatch.setattr(torch.nn.Module, "compile", partialmethod(torch.nn.Module.compile, backend=backend))
    monkeypatch.setattr(benchmark_kinds, "ldm_dmx", lambda size: make_pipeline(make_codec(24_000)))
    case = benchmark.Case(benchmark.training, batch=1, source="cache", compiled=True, repeats=2)
    part = "stage 1, training step from cache"
    times, _ = benchmark.training(case)
    assert {name: len(seconds) for name, seconds in times.items()} == {
        "warm-up": 1, part: 2, f"{part}, not compiled": 2,
    }  # fmt: skip
    compiled = {*ran}
    assert len(ran) == 4 * len(compiled) > 0, "the first, one that is not counted, and two"


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
