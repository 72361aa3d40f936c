"""MIR-1K's published benchmark: clips scored once, means weighted by length, others' figures kept apart."""

import json

import numpy as np
import pandas as pd
import pytest

from dmxlib import audio
from dmxlib.config import write_yaml
from dmxlib.errors import InputError
from dmxlib.studies import huang

MIXTURE = {"mixture": {"title": "mixture", "system": "mixture"}}
BOTH = MIXTURE | {"irm": {"title": "ideal ratio mask ◇", "system": "irm"}}


@pytest.fixture
def benchmark(tmp_path, rng):
    """A config of two systems on clips of noise: two singers, 0.5 and 1 s."""

    def config(systems):
        return huang.HuangConfig(str(tmp_path / "data"), str(tmp_path / "out"), systems)

    for split, name, seconds in (("train", "amy_1", 1), ("test", "Ani_1_01", 0.5), ("test", "leon_2_03", 1)):
        voice, band = 0.1 * rng.standard_normal((2, 1, round(16_000 * seconds))).astype(np.float32)
        folder = tmp_path / "data" / split / name
        audio.write(folder / "mixture.wav", audio.stereo(voice + band), 16_000)
        audio.write(folder / "vocals.wav", audio.stereo(voice), 16_000)
    return config


def run(config, tmp_path):
    write_yaml(config, tmp_path / "config.yaml")
    huang.main(["--config", str(tmp_path / "config.yaml")])
    return tmp_path / "out"


def test_files(benchmark, tmp_path):
    out = run(benchmark(BOTH), tmp_path)
    scores = pd.read_csv(out / "scores.csv")
    assert list(scores.columns) == ["system", "clip", "metric", "value"]
    assert len(scores) == 2 * 2 * 3 + 2 and not scores.duplicated(["system", "clip", "metric"]).any()
    seconds = scores[scores.metric == "seconds"].set_index("clip").value
    assert seconds.to_dict() == {"Ani_1_01": 0.5, "leon_2_03": 1.0}
    summary = pd.read_csv(out / "summary.csv")
    assert list(summary.columns) == ["system", "gnsdr", "gsir", "gsar"]
    assert list(summary.system) == ["mixture", "irm"]
    assert summary.gnsdr[0] == 0 and summary.gnsdr[1] > 3
    runs = json.loads((out / "run.json").read_text())
    assert {*runs} == {"mixture", "irm"} and {"title", "system", "commit", "parameters"} <= runs["irm"].keys()
    ours, others = (out / "table.md").read_text().split("## What others published")
    assert "| ideal ratio mask ◇ |" in ours and "DRNN" not in ours
    assert "7.45" in others and "mask" not in others
    assert (out / "gnsdr.png").stat().st_size > 0


def test_a_system_with_rows_is_left_as_it_is(benchmark, tmp_path):
    out = run(benchmark(MIXTURE), tmp_path)
    before = pd.read_csv(out / "scores.csv")
    before.loc[before.metric == "sir", "value"] = 7.0
    before.to_csv(out / "scores.csv", index=False)
    run(benchmark(BOTH), tmp_path)
    after = pd.read_csv(out / "scores.csv")
    pd.testing.assert_frame_equal(after[: len(before)], before)
    assert list(after.system.unique()) == ["mixture", "irm"]


def test_slow_systems_are_scored_on_some_clips(benchmark, tmp_path):
    out = run(benchmark(MIXTURE | {"irm": {**BOTH["irm"], "every": 2}}), tmp_path)
    scores = pd.read_csv(out / "scores.csv")
    assert list(scores[scores.system == "irm"]["clip"].unique()) == ["Ani_1_01"]
    assert "| ideal ratio mask ◇ | - | - | 1 |" in (out / "table.md").read_text()


def test_without_the_mixture_there_is_no_nsdr(benchmark, tmp_path):
    with pytest.raises(InputError, match="systems has no mixture"):
        huang.score_all(benchmark({"irm": BOTH["irm"]}))


def made_up():
    """Two clips of 1 and 3 s; the second one's SIR is missing."""
    figures = {
        ("mixture", "a_1_01"): (1, 1, 200, 1.0),
        ("mixture", "b_1_01"): (-1, -1, 200, 3.0),
        ("mask", "a_1_01"): (5, 10, 8, None),
        ("mask", "b_1_01"): (7, None, 4, None),
    }
    rows = [
        (*place, metric, value)
        for place, values in figures.items()
        for metric, value in zip(("sdr", "sir", "sar", "seconds"), values, strict=True)
        if metric != "seconds" or value
    ]
    return pd.DataFrame(rows, columns=["system", "clip", "metric", "value"]).astype({"value": float})


def test_means_are_weighted_by_length():
    summary = huang.summarise(made_up()).set_index("system")
    assert summary.gnsdr["mixture"] == 0
    assert summary.gnsdr["mask"] == pytest.approx((1 * (5 - 1) + 3 * (7 + 1)) / 4)
    assert summary.gsir["mask"] == 10  # of the clip that has one
    assert summary.gsar["mask"] == pytest.approx((1 * 8 + 3 * 4) / 4)


def test_figure_has_a_dot_for_each_singer_and_a_panel_for_the_others():
    ours, theirs = huang.figure(huang.normalised(made_up()), {"mixture": "x", "mask": "y"}).axes
    assert [label.get_text() for label in ours.get_yticklabels()] == ["x", "y"]
    dots, mean = ours.lines[2:]  # of the second row
    assert sorted(dots.get_xdata()) == [4, 8] and mean.get_xdata()[0] == pytest.approx(7)
    assert [label.get_text() for label in theirs.get_yticklabels()] == [
        name.partition(" (")[0] for name in huang.PUBLISHED
    ]
