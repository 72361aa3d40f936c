"""The benchmark's table and figure, from the rows of its benchmark.csv."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from dmxlib import plots
from dmxlib.reproduce import facts, together
from dmxlib.studies.timing import precisions
from dmxlib.summary import markdown

KEY = ("device", "system", "size", "precision", "compiled", "steps", "batch", "part")
COLUMNS = (*KEY, "seconds_median", "seconds_std", "peak_mb", "gpu_peak_mb", "parameters")
LACKS = "This device does not compute in {}, so that nothing was timed in it."
PAPER = """The paper's own times of a 12-s clip, quoted: on a GPU with 12 GB, which is not this one.

| system | seconds |
| --- | --- |
| ldm-dmx | 1.74 |
| msdm | 11.95 |
| instglow | 16.50 |
| hdemucs | 0.40 |
"""
STEPS = {1: 600_000, 2: 400_000}  # of the paper's stages
BATCH = 32  # of a step, all GPUs together


def read(path: Path) -> pd.DataFrame:
    """A benchmark.csv, also one of before there were devices and batches; empty where there is none."""
    table = pd.read_csv(path) if path.exists() else pd.DataFrame()
    table = table.reindex(columns=list(COLUMNS))
    return table.assign(device=table.device.astype(object).fillna("cpu"))


def merged(earlier: pd.DataFrame, rows: list[dict]) -> pd.DataFrame:
    """A table with new rows, which take the place of those of the same measurement."""
    numbers = dict.fromkeys(["steps", "batch", "gpu_peak_mb", "parameters"], float)
    new = pd.DataFrame(rows, columns=list(COLUMNS)).astype(numbers)
    tables = [table for table in (earlier, new) if len(table)] or [new]
    return pd.concat(tables).drop_duplicates(list(KEY), keep="last", ignore_index=True)


def ratios(table: pd.DataFrame) -> pd.DataFrame:
    """LDM-dmx at paper size by H-Demucs, on one device at one precision and compile state: each in its own
    chunks, and H-Demucs in a single one; MSDM by LDM-dmx, where it was timed so, else by MSDM in fp32."""
    paper = table[table["size"] == "paper"]
    totals = paper[paper.part == "total"]
    form = ["device", "precision", "compiled"]
    beside = totals.loc[totals.system == "ldm-dmx", [*form, "steps", "seconds_median"]].copy()
    keys = list(beside[form].itertuples(index=False, name=None))

    def seconds(system, part="total"):
        return paper[(paper.system == system) & (paper.part == part)].set_index(form).seconds_median

    for part, title in (("total", "hdemucs"), ("total, in one chunk", "hdemucs in one chunk")):
        hdemucs = seconds("hdemucs", part)
        beside[f"ldm-dmx / {title}"] = beside.seconds_median / [hdemucs.get(key, np.nan) for key in keys]
    msdm = seconds("msdm")
    slow = [msdm.get(key, msdm.get((key[0], "fp32", False), np.nan)) for key in keys]
    return beside.assign(**{"msdm / ldm-dmx": slow / beside.seconds_median})


def training_rates(table: pd.DataFrame) -> pd.DataFrame:
    """Of each training step that was timed: how many of them, and of their excerpts, a second."""
    steps = table[table.part.str.contains("training step") & table.batch.notna()]
    rates = steps[[*KEY[:5], "part", "batch"]].copy()
    rates["steps a second"] = 1 / steps.seconds_median
    rates["excerpts a second"] = steps.batch / steps.seconds_median
    return rates.assign(gpu_peak_mb=steps.gpu_peak_mb)


def days(table: pd.DataFrame) -> pd.DataFrame:
    """What both of the paper's stages take at an effective batch of 32, from audio, on one GPU and on four;
    neither what four tell each other, nor validation, is in it."""
    steps = table[(table.system == "ldm-dmx") & (table["size"] == "paper") & ~table.compiled.astype(bool)]
    rows = []
    for (device, precision), group in steps.groupby(["device", "precision"]):
        seconds = group.set_index(["part", "batch"]).seconds_median
        for gpus in (1, 4):
            parts = {stage: (f"stage {stage}, training step from audio", BATCH / gpus) for stage in STEPS}
            if all(part in seconds for part in parts.values()):
                total = sum(STEPS[stage] * seconds[part] for stage, part in parts.items())
                rows.append((device, precision, gpus, total / 86_400))
    return pd.DataFrame(rows, columns=["device", "precision", "gpus", "days"])


def three_figures(table: pd.DataFrame) -> str:
    """A table in markdown with three figures a number."""
    return markdown(table, (map(_cell, line) for line in table.itertuples(index=False)))


def _cell(value):
    if not isinstance(value, float):
        return str(value)
    return "" if pd.isna(value) else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def write(table: pd.DataFrame, folder: Path, device: str = "cpu") -> None:
    """table.md, steps.png and run.json."""
    gpu = torch.device(device).type == "cuda"
    where = torch.cuda.get_device_name(device) if gpu else f"{torch.get_num_threads()} threads"
    lacking = sorted({"bf16", *["tf32"] * gpu} - {*precisions(device)})
    sentences = [
        f"`python -m dmxlib.studies.benchmark{f' --device {device}' if gpu else ''}`, {where}.",
        "A training step is of excerpts of white noise, neither read nor augmented.",
        *map(LACKS.format, lacking),
    ]
    tables = [part for part in (ratios(table), training_rates(table), days(table), table) if len(part)]
    text = "\n".join([" ".join(sentences), "", *map(three_figures, tables), *[PAPER] * gpu])
    totals = table[(table.part == "total") & (table.device == device)]
    with together(folder) as part:
        (part / "table.md").write_text(text)
        if len(totals):
            plot(totals).savefig(part / "steps.png", dpi=110)
        (part / "run.json").write_text(json.dumps(facts(device=where), indent=2) + "\n")
    print(text)


def plot(totals: pd.DataFrame):
    """Seconds a clip over LDM-dmx's sampling steps; the other systems are level lines."""
    curves, sweep = {}, sorted(totals.steps.dropna().unique()) or [1]  # without LDM-dmx a point each
    for (system, size, precision, compiled), group in totals.groupby(list(KEY[1:5])):
        steps, seconds = group.steps, group.seconds_median
        if system != "ldm-dmx":
            steps, seconds = sweep, [seconds.item()] * len(sweep)
        curves[f"{system}, {size}, {precision}{', compiled' if compiled else ''}"] = (steps, seconds)
    curves = dict(sorted(curves.items(), key=lambda item: -max(item[1][1])))  # as they lie in the diagram
    figure = plots.lines(curves, "sampling steps", "seconds a clip", xscale="log", yscale="log")
    figure.axes[0].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
