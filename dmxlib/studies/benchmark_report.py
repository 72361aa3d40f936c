"""The benchmark's table and figure, from the rows of its benchmark.csv."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from dmxlib import plots
from dmxlib.reproduce import facts, together
from dmxlib.studies.timing import computes_bf16
from dmxlib.summary import markdown

NO_BF16 = "This processor does not compute in bf16, so that nothing was timed in it."


def ratios(table: pd.DataFrame) -> pd.DataFrame:
    """LDM-dmx at paper size by H-Demucs, at one precision and compile state: each in its own chunks, and
    H-Demucs in a single one; MSDM by LDM-dmx."""
    paper = table[table["size"] == "paper"]
    totals = paper[paper.part == "total"]
    form = ["precision", "compiled"]
    beside = totals.loc[totals.system == "ldm-dmx", [*form, "steps", "seconds_median"]].copy()
    for part, title in (("total", "hdemucs"), ("total, in one chunk", "hdemucs in one chunk")):
        hdemucs = paper[(paper.system == "hdemucs") & (paper.part == part)].set_index(form).seconds_median
        beside[f"ldm-dmx / {title}"] = beside.seconds_median / [
            hdemucs.get(key, np.nan) for key in beside[form].itertuples(index=False, name=None)
        ]
    msdm = totals.loc[totals.system == "msdm", "seconds_median"].median()
    return beside.assign(**{"msdm / ldm-dmx": msdm / beside.seconds_median})


def three_figures(table: pd.DataFrame) -> str:
    """A table in markdown with three figures a number."""
    return markdown(table, (map(_cell, line) for line in table.itertuples(index=False)))


def _cell(value):
    if not isinstance(value, float):
        return str(value)
    return "" if pd.isna(value) else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def write(table: pd.DataFrame, folder: Path) -> None:
    """table.md, steps.png and run.json."""
    sentences = [
        f"`python -m dmxlib.studies.benchmark`, {torch.get_num_threads()} threads.",
        "A training step is of one excerpt of white noise, neither read nor augmented.",
        *([] if computes_bf16() else [NO_BF16]),
    ]
    text = "\n".join([" ".join(sentences), "", three_figures(ratios(table)), three_figures(table)])
    with together(folder) as part:
        (part / "table.md").write_text(text)
        plot(table[table.part == "total"]).savefig(part / "steps.png", dpi=110)
        (part / "run.json").write_text(json.dumps(facts(), indent=2) + "\n")
    print(text)


def plot(totals: pd.DataFrame):
    """Seconds a clip over LDM-dmx's sampling steps; the other systems are level lines."""
    curves, sweep = {}, sorted(totals.steps.dropna().unique())
    for (system, size, precision, compiled), group in totals.groupby(list(totals.columns[:4])):
        steps, seconds = group.steps, group.seconds_median
        if system != "ldm-dmx":
            steps, seconds = sweep, [seconds.item()] * len(sweep)
        curves[f"{system}, {size}, {precision}{', compiled' if compiled else ''}"] = (steps, seconds)
    curves = dict(sorted(curves.items(), key=lambda item: -max(item[1][1])))  # as they lie in the diagram
    figure = plots.lines(curves, "sampling steps", "seconds a clip", xscale="log", yscale="log")
    figure.axes[0].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
