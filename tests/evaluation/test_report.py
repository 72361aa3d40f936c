"""Table II says what the scores beside it say: medians, intervals, what was dropped, what is missing."""

import json

import numpy as np
import pandas as pd
import pytest

from dmxlib import plots, report
from dmxlib.errors import InputError
from dmxlib.evaluation import tables
from dmxlib.evaluation.files import COLUMNS, Scores, read_runs

METRICS = [*tables.PAPERS_METRICS, *(f"{name}_to_bandwidth" for name in tables.PAPERS_METRICS), "sdr", "sir",
           "lsd_0_250", "lsd_8000_16000"]  # fmt: skip


def write(folder, system, values, reason="", seconds=None, **facts):
    """Scores of a system: metric -> values of the excerpts."""
    rows = [
        (system, "a song", 7.0 * place, metric, value, reason if np.isnan(value) else "")
        for metric, scores in values.items()
        for place, value in enumerate(scores)
    ]
    rows.append((system, "a song", "", "usdr", 4.5, ""))
    facts = {"command": f"python -m dmxlib.evaluation {system}", "machine": "a machine"} | facts
    settings = {"steps": facts.pop("steps", None)}
    names = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
    Scores(folder, {system: settings}).add(system, names, **facts)
    if seconds:
        path, steps = folder / "times.csv", settings["steps"] or 0
        times = [(system, steps, repeat, second) for repeat, second in enumerate(seconds, start=1)]
        pd.DataFrame(times, columns=["system", "steps", "repeat", "seconds"]).to_csv(
            path, mode="a", index=False, header=not path.exists()
        )


def test_a_log_that_a_kill_cut_short_is_plotted_and_none_is_told(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 2, "validation_loss": 3}\n{"step": 2, "lo')
    assert plots.training_curve(tmp_path / "log.jsonl", "a run").axes[0].get_title() == "a run"
    (tmp_path / "log.jsonl").write_text("step 1\nstep 2\n")
    with pytest.raises(InputError, match=r"log.jsonl is damaged: it is no log of a training\.$"):
        plots.training_curve(tmp_path / "log.jsonl", "a run")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [("run.json", "{", "is not JSON"), ("rows.csv", "a,b\n1,2\n", "is no table of scores")],
)
def test_damaged_scores_are_told(tmp_path, name, content, told):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=rf"{name}.*{told}[^\n]*\.$"):
        Scores(tmp_path, {"a": {}})


@pytest.fixture
def scores(tmp_path):
    """The folder of two systems, one of them in several numbers of steps."""
    folder = tmp_path / "results" / "unknown-song"
    values = {metric: [1.0, 2.0, 6.0, 3.0, 4.0] for metric in METRICS}
    write(folder, "irm", values, seconds=(0.49, 0.5, 0.51))
    values |= {"sir": [np.nan] * 5, "log_f0_rmse": [0.1, 0.3, np.nan, np.nan, 0.2]}
    facts = dict(parameters=9_934_585, bandwidth=12_000, mixed_precision="bf16")
    write(folder, "ldm-dmx@1", values, "no reason", (2.75, 3.0, 3.25), steps=1, **facts)
    for steps in (10, 4):
        many = {name: [float(steps)] for name in METRICS}
        write(folder, f"ldm-dmx@{steps}", many, seconds=(steps / 8,), steps=steps, **facts)
    return folder


def lines(text, start):
    """The cells of each line of markdown that starts so."""
    return [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith(start)]


def test_table2_has_each_systems_medians_and_facts(scores):
    ours, paper = tables.table2(scores).split("## The paper's")
    irm, ldm = lines(ours, "| IRM")[0], lines(ours, "| LDM-dmx (our recipe), 1 step (the mean) |")[0]
    assert irm[:7] == ["IRM ◇", "no", "-", "-", "fp32", "0.50 ± 0.01", "3 (1 to 6)"]
    assert ldm[:6] == ["LDM-dmx (our recipe), 1 step (the mean)", "yes", "9.9 M", "1", "bf16", "3.00 ± 0.25"]
    assert ldm[8] == "0.2 (0.1 to 0.3)"
    assert lines(ours, "| LDM-dmx (our recipe), 1 step (the mean) | 12000")[0][2:] == ["3 (1 to 6)"] * 4
    assert lines(ours, "| IRM ◇ | 22050")
    assert "5 excerpts of a song" in ours and "    python -m dmxlib.evaluation irm\n" in ours
    assert lines(paper, "| LDM-dmx")[0][3:] == ["1.74 ± 0.02", "1.30", "6.43", "0.198", "1.29"]
    assert len(lines(paper, "| ")) == 8 and "12000" not in paper


def test_table2_says_what_is_missing_and_what_was_dropped(scores):
    text = tables.table2(scores)
    assert "Not scored: mixture, best-gain, equalizer, repet, codec-ceiling, instglow" in text
    assert "- LDM-dmx (our recipe), 1 step (the mean): 5 of 5 in sir: no reason." in text
    assert "- LDM-dmx (our recipe), 1 step (the mean): 2 of 5 in log_f0_rmse: no reason." in text
    assert "DNSMOS" not in text and "Mixture" not in text
    others = text.partition("Interference")[2]
    assert lines(others, "| LDM-dmx")[0] == [
        "LDM-dmx (our recipe), 1 step (the mean)",
        "3 (1 to 6)",
        "4.5",
        "-",
    ]


def test_steps_are_rows_in_order(scores):
    ours = tables.table2(scores).split("Not scored")[0]
    assert [(line[0], line[3]) for line in lines(ours, "| LDM-dmx")] == [
        ("LDM-dmx (our recipe), 1 step (the mean)", "1"),
        ("LDM-dmx (our recipe), 4 steps (sampled)", "4"),
        ("LDM-dmx (our recipe), 10 steps (sampled)", "10"),
    ]


def test_where_a_system_has_left_its_rows_stay_and_are_not_shown(scores):
    write(scores, "gone", {"sdr": [1.0]})
    assert "gone" not in tables.load_scores(scores)[1] and "| gone" not in tables.table2(scores)


def test_a_system_that_was_not_timed_has_no_time(scores):
    (scores / "times.csv").unlink()
    text = tables.table2(scores)
    assert "Time for 12 s of stereo: not measured" in text and lines(text, "| IRM")[0][5] == "-"
    times = pd.DataFrame({"system": ["irm"] * 2, "steps": 0, "repeat": [1, 2], "seconds": [1.0, 3.0]})
    Scores(scores, {}).add_times(times, machine="another machine", command="python -m dmxlib.evaluation")
    text = tables.table2(scores)
    assert "in turns, in one run, on another machine; rows with - were not timed. T: " in text
    assert lines(text, "| IRM")[0][5] == "2.00 ± 1.41"


def test_figures_show_ours_and_the_papers_apart(scores):
    figure = tables.table2_figure(scores)
    top, bottom = figure.axes[: len(figure.axes) // 2], figure.axes[len(figure.axes) // 2 :]
    assert [label.get_text() for label in top[0].get_yticklabels()] == [
        "IRM ◇",
        "LDM-dmx (our recipe), 1 step (the mean)",
        "LDM-dmx (our recipe), 4 steps (sampled)",
        "LDM-dmx (our recipe), 10 steps (sampled)",
    ]
    assert list(top[0].lines[0].get_xdata()) == [3, 3, 4, 10]
    assert list(bottom[0].lines[0].get_xdata()) == list(tables.PAPER.lsd)
    speed = tables.speed_figure(scores)
    names = [[text.get_text() for text in axes.get_legend().texts] for axes in speed.axes[1::2]]
    assert names == [
        [
            f"LDM-dmx (our recipe), {steps}"
            for steps in ("1 step (the mean)", "4 steps (sampled)", "10 steps (sampled)")
        ],
        ["InstGlow", "MSDM", "LDM-dmx", "H-Demucs"],
    ]  # an oracle's time says nothing
    assert [text.get_text() for text in speed.axes[0].texts] == ["T=1", "T=4", "T=10"]


def test_all_is_made_anew_by_one_command(scores, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(scores)
    with pytest.raises(SystemExit, match="^error: results/ holds no"):
        report.main()
    monkeypatch.chdir(tmp_path)
    runs = read_runs(scores / "run.json")
    (scores / "run.json").write_text(json.dumps(runs[1:]))  # a system half written is left out
    report.main()
    written = capsys.readouterr().out.split()
    assert written == ["results/unknown-song/scores.md", *(f"results/unknown-song/{name}" for name in
                       ("table2.md", "table2.png", "speed.png"))]  # fmt: skip
    table = (scores / "scores.md").read_text()
    assert lines(table, "| sdr")[0][:2] == ["sdr", "3"] and lines(table, "| scores dropped")[0][1] == "7"
    assert "irm" not in table


def test_systems_that_were_not_timed_have_no_figure_of_speed(scores, tmp_path):
    (scores / "times.csv").unlink()
    written = tables.write_table2(scores, tmp_path / "tables")
    assert [path.name for path in written] == ["table2.md", "table2.png"]
    assert set(written) == set((tmp_path / "tables").iterdir())


def test_no_scores(tmp_path):
    with pytest.raises(InputError, match="holds no scores"):
        tables.table2(tmp_path)
