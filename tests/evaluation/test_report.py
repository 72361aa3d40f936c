"""Table II says what the scores beside it say: medians, intervals, what was dropped, what is missing."""

import json

import numpy as np
import pandas as pd
import pytest

from dmxlib import report
from dmxlib.errors import InputError
from dmxlib.evaluation import tables
from dmxlib.evaluation.scoring import COLUMNS

METRICS = [*tables.PAPERS_METRICS, *(f"{name}_to_bandwidth" for name in tables.PAPERS_METRICS), "sdr", "sir",
           "lsd_0_250", "lsd_8000_16000"]  # fmt: skip


def write(folder, system, values, reason="", **facts):
    """Scores of a system: metric -> values of the excerpts."""
    rows = [
        (system, "mini", "a song", 7.0 * place, metric, value, reason if np.isnan(value) else "")
        for metric, scores in values.items()
        for place, value in enumerate(scores)
    ]
    rows.append((system, "mini", "a song", "", "usdr", 4.5, ""))
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows, columns=COLUMNS).to_csv(folder / f"{system}.csv", index=False)
    facts = {"command": f"python -m dmxlib.evaluation {system}", "machine": "a machine"} | facts
    (folder / f"{system}.json").write_text(json.dumps({"system": system} | facts))


@pytest.fixture
def scores(tmp_path):
    """The folder of two systems, one of them swept over its steps."""
    folder = tmp_path / "results" / "scores"
    values = {metric: [1.0, 2.0, 6.0, 3.0, 4.0] for metric in METRICS}
    write(folder, "irm", values, seconds_per_clip=0.5, seconds_std=0.01)
    values |= {"sir": [np.nan] * 5, "log_f0_rmse": [0.1, 0.3, np.nan, np.nan, 0.2]}
    facts = dict(parameters=9_934_585, bandwidth=12_000, steps=20, seconds_per_clip=3.0, seconds_std=0.25)
    write(folder, "ldm-dmx", values, "no reason", **facts)
    for steps in (10, 4):
        quicker = facts | {"steps": steps, "seconds_per_clip": steps / 8}
        write(folder / "steps" / str(steps), "ldm-dmx", {name: [float(steps)] for name in METRICS}, **quicker)
    return folder


def lines(text, start):
    """The cells of each line of markdown that starts so."""
    return [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith(start)]


def test_table2_has_each_systems_medians_and_facts(scores):
    ours, paper = tables.table2(scores).split("## The paper's")
    irm, ldm = lines(ours, "| IRM")[0], lines(ours, "| LDM-dmx |")[0]
    assert irm[:6] == ["IRM ◇", "no", "-", "-", "0.50 ± 0.01", "3 (1 to 6)"]
    assert ldm[:5] == ["LDM-dmx", "yes", "9.9 M", "20", "3.00 ± 0.25"]
    assert ldm[7] == "0.2 (0.1 to 0.3)"
    assert lines(ours, "| LDM-dmx | 12000")[0][2:] == ["3 (1 to 6)"] * 4
    assert lines(ours, "| IRM ◇ | 22050")
    assert "5 excerpts of a song" in ours and "    python -m dmxlib.evaluation irm\n" in ours
    assert lines(paper, "| LDM-dmx")[0][3:] == ["1.74 ± 0.02", "1.30", "6.43", "0.198", "1.29"]
    assert len(lines(paper, "| ")) == 8 and "12000" not in paper


def test_table2_says_what_is_missing_and_what_was_dropped(scores):
    text = tables.table2(scores)
    assert "Not scored: mixture, best-gain, equalizer, repet, codec-ceiling, instglow" in text
    assert "- LDM-dmx: 5 of 5 in sir: no reason." in text
    assert "- LDM-dmx: 2 of 5 in log_f0_rmse: no reason." in text
    assert "DNSMOS" not in text and "Mixture" not in text
    others = text.partition("Interference")[2]
    assert lines(others, "| LDM-dmx")[0] == ["LDM-dmx", "3 (1 to 6)", "4.5", "-"]


def test_steps_are_a_table_in_order(scores):
    by_steps = tables.table2(scores).partition("By the number")[2].partition("## The paper's")[0]
    assert [line[:4] for line in lines(by_steps, "| LDM")] == [
        ["LDM-dmx", "4", "0.5", "4"],
        ["LDM-dmx", "10", "1.25", "10"],
        ["LDM-dmx", "20", "3", "3"],
    ]


def test_figures_show_ours_and_the_papers_apart(scores):
    figure = tables.table2_figure(scores)
    top, bottom = figure.axes[: len(figure.axes) // 2], figure.axes[len(figure.axes) // 2 :]
    assert [label.get_text() for label in top[0].get_yticklabels()] == ["IRM ◇", "LDM-dmx"]
    assert list(top[0].lines[0].get_xdata()) == [3, 3]
    assert list(bottom[0].lines[0].get_xdata()) == list(tables.PAPER.lsd)
    speed = tables.speed_figure(scores)
    names = [[text.get_text() for text in axes.get_legend().texts] for axes in speed.axes[:2]]
    assert names == [
        ["LDM-dmx"],
        ["InstGlow", "MSDM", "LDM-dmx", "H-Demucs"],
    ]  # an oracle's time says nothing
    assert [text.get_text() for text in speed.axes[0].texts] == ["T=4", "T=10", "T=20"]


def test_all_is_redrawn_by_one_command(scores, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(scores)
    with pytest.raises(SystemExit, match="^error: results/ holds no"):
        report.main()
    monkeypatch.chdir(tmp_path)
    (scores / "irm.json").unlink()  # a system half written is left out
    report.main()
    written = capsys.readouterr().out.split()
    assert written == ["results/scores/scores.md", *(f"results/tables/{name}" for name in
                       ("table2.md", "table2.png", "speed.png"))]  # fmt: skip
    table = (scores / "scores.md").read_text()
    assert lines(table, "| sdr")[0] == ["sdr", "3"] and lines(table, "| scores dropped")[0][1] == "7"
    assert not (scores / "steps" / "4" / "scores.md").exists()


def test_no_scores(tmp_path):
    with pytest.raises(InputError, match="holds no scores"):
        tables.table2(tmp_path)
