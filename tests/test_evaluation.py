"""Every system of the table gets its rows, and the table orders what is known to be ordered."""

import csv
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch

from dmxlib import evaluation
from dmxlib.data import load_tracks
from dmxlib.evaluation import EvaluationConfig, evaluate, make_separators, silence, table

RATE = 8000


@dataclass
class Made:
    """A track from arrays: a voice that sings its first half, over noise."""

    voice: np.ndarray
    rest: np.ndarray
    name: str = "made"
    rate: int = RATE

    @property
    def frames(self):
        return self.voice.shape[1]

    def vocals(self):
        return self.voice.copy()

    def mixture(self):
        return self.voice + self.rest


@pytest.fixture
def made(rng):
    time = np.arange(6 * RATE) / RATE
    voice = np.tile(0.3 * np.sin(2 * np.pi * 440 * time) * (time < 3), (2, 1))
    return Made(voice.astype(np.float32), 0.1 * rng.standard_normal(voice.shape, np.float32))


def loudest(track, vocals):
    return [max(evaluation.windows(track), key=lambda window: np.abs(vocals[:, window]).mean())]


@pytest.fixture(scope="module")
def rows(toy_root, tiny_pipeline):
    """Scores of every system on the 1.2 s of the toy test song with most voice."""
    config = EvaluationConfig(data_root=str(toy_root), num_inference_steps=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "windows", partial(evaluation.windows, seconds=1.2))
        patch.setattr(evaluation, "sung_windows", loudest)
        separators = make_separators(tiny_pipeline, config, load_tracks(toy_root, "train"))
        yield evaluate(separators, load_tracks(toy_root, "test"), quiet=True)


def value(rows, system, metric):
    return np.nanmedian([row["value"] for row in rows if (row["system"], row["metric"]) == (system, metric)])


def test_every_system_has_its_rows(rows):
    systems = list(dict.fromkeys(row["system"] for row in rows))
    assert systems[:3] == ["mixture", "mixture at its best gain", "fixed equalizer"]
    assert systems[-1] == "ideal ratio mask" and len(systems) == 10
    metrics = {"sdr", "si_sdr", "lsd", "mel_mae", "log_f0_rmse", "missed_voiced"}
    whole = {"seconds_per_minute", "silence_db", "sung_frames_lost"}
    for system in systems:
        mine = [row for row in rows if row["system"] == system]
        assert {row["metric"] for row in mine if row["window"] != ""} == metrics
        assert {row["metric"] for row in mine if row["window"] == ""} == whole
        assert np.isfinite(value(rows, system, "sdr")) and value(rows, system, "seconds_per_minute") > 0


def test_those_that_see_the_vocals_come_in_order(rows):
    sdr = partial(value, rows, metric="sdr")
    assert sdr("mixture") < sdr("fixed equalizer") < sdr("ideal ratio mask")
    assert sdr("mixture") < sdr("mixture at its best gain") < sdr("ideal ratio mask")
    assert value(rows, "mixture", "silence_db") == pytest.approx(0, abs=1e-6)
    assert value(rows, "ideal ratio mask", "lsd") < value(rows, "mixture", "lsd")


def test_best_gain_is_the_least_squares_one(made, monkeypatch):
    monkeypatch.setattr(evaluation, "windows", lambda track: [slice(0, RATE), slice(RATE, 3 * RATE)])
    scaled, x, v = evaluation.best_gain(made), made.mixture(), made.vocals()
    for window in evaluation.windows(made):
        error = [np.square((g * scaled - v)[:, window].mean(axis=0)).sum() for g in (0.99, 1, 1.01)]
        assert error[1] < min(error[0], error[2])
    assert np.array_equal(scaled[:, 3 * RATE :], x[:, 3 * RATE :])


def test_silence_is_measured_where_nobody_sings(made):
    estimate = made.vocals()
    estimate[:, 3 * RATE :] = 0.01 * made.rest[:, 3 * RATE :]
    figures = silence(made, made.vocals(), estimate)
    assert figures["silence_db"] == pytest.approx(40, abs=0.1) and figures["sung_frames_lost"] == 0
    estimate[:, :RATE] *= 0.01
    assert silence(made, made.vocals(), estimate)["sung_frames_lost"] == pytest.approx(1 / 3)


@pytest.mark.filterwarnings("error")
def test_song_without_silence_or_without_voice_is_scored(made):
    loud = Made(made.voice + 0.1, made.rest)
    assert np.isnan(silence(loud, loud.vocals(), loud.mixture())["silence_db"])
    mute = Made(0 * made.voice, made.rest)
    figures = silence(mute, mute.vocals(), mute.mixture())
    assert np.isnan(figures["sung_frames_lost"]) and figures["silence_db"] == 0


@pytest.mark.filterwarnings("error")
def test_table_holds_medians_without_nan():
    place = {"track": "t", "window": 0.0}
    values = {
        "a": {"sdr": [1, 2, 9], "lsd": [float("nan"), 0.123456]},
        "b": {"sdr": [3], "lsd": [float("nan")]},
    }
    rows = [
        {**place, "system": system, "metric": metric, "value": value}
        for system, figures in values.items()
        for metric, numbers in figures.items()
        for value in numbers
    ]
    assert table(rows).splitlines() == [
        "| system | sdr | lsd |",
        "|---|---|---|",
        "| a | 2 | 0.123 |",
        "| b | 3 | nan |",
    ]


def test_command_writes_scores(toy_root, model_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(evaluation, "make_separators", lambda *_: {"mixture": evaluation.identity})
    flags = {"model": model_folder, "data_root": toy_root, "output_dir": tmp_path / "scores"}
    evaluation.main([f"--{key}={value}" for key, value in flags.items()])
    with open(tmp_path / "scores" / "scores.csv") as file:
        rows = list(csv.DictReader(file))
    assert {row["system"] for row in rows} == {"mixture"} and rows[0].keys() >= {"track", "window", "value"}
    text = (tmp_path / "scores" / "scores.md").read_text()
    assert text.startswith("`python -m dmxlib.evaluation --model") and "| mixture |" in text
    assert "| mixture |" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="^error: model nowhere cannot be loaded"):
        evaluation.main(["--model", "nowhere"])


@torch.no_grad()
@pytest.mark.parametrize("rule", ["drawn", "projected"])
def test_codec_ceiling_is_the_voice_at_its_level(toy_root, tiny_pipeline, rule):
    track = load_tracks(toy_root, "test")[0]
    wave = evaluation.codec_ceiling(tiny_pipeline, rule, track)
    assert wave.shape == (2, track.frames) and np.isfinite(wave).all()
    if rule == "drawn":
        levels = [10 * np.log10(np.square(signal).mean()) for signal in (wave, track.vocals())]
        assert abs(levels[0] - levels[1]) < 3


def test_held_out_ends_are_scored_and_not_learned_from(toy_root):
    config = EvaluationConfig(data_root=str(toy_root), hold_out_seconds=2.0)
    training, songs = evaluation.load_songs(config)
    assert [song.name for song in songs] == [song.name for song in training]
    for song, kept in zip(songs, training, strict=True):
        assert song.frames == 2 * song.rate and song.first == kept.last
    assert [song.name for song in evaluation.load_songs(EvaluationConfig(data_root=str(toy_root)))[1]] != [
        song.name for song in songs
    ]


def test_a_difference_between_the_channels_is_not_scored(made):
    side = np.stack([made.rest[0], -made.rest[0]])
    pitch = evaluation.metrics.f0(made.voice[:, :RATE], RATE)
    figures = evaluation.score(made.voice[:, :RATE], (made.voice + side)[:, :RATE], RATE, pitch)
    assert figures["sdr"] > 60 and figures["lsd"] < 0.1
