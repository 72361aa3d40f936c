"""Every system of the table gets its rows, and the table orders what is known to be ordered."""

import csv
import shutil
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import launch, reset_accelerate, separate

from dmxlib import audio, baselines, metrics, weights
from dmxlib.data import load_tracks
from dmxlib.errors import InputError, exit_on_input_error
from dmxlib.evaluation import __main__ as command
from dmxlib.evaluation import files, references, scoring, systems, tables
from dmxlib.evaluation.scoring import Protocol, Song, silence
from dmxlib.evaluation.systems import Options, choose_models, full_title, make_system
from dmxlib.pipeline import VocalSeparationPipeline
from dmxlib.refine import wiener

RATE = 8000


@dataclass
class Made:
    """A track from arrays: a voice that sings its first half, over noise."""

    voice: np.ndarray
    rest: np.ndarray
    name: str = "made"
    rate: int = RATE

    @property
    def samples(self):
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


REFERENCES = ["mixture", "best-gain", "equalizer", "repet", "irm"]
PAPERS = ["lsd", "mel_mae", "log_f0_rmse", "missed_voiced", "pesq"]
METRICS = {
    "sdr", "si_sdr", *PAPERS, *(f"{name}_to_bandwidth" for name in PAPERS), "csdr", "sir", "sar",
    "stft_distance", "latent_distance", "lsd_0_250", "lsd_250_500", "lsd_500_1000", "lsd_1000_2000",
    "lsd_2000_4000", "lsd_4000_8000", "lsd_8000_16000", "lsd_16000_22050",
}  # fmt: skip


ALL = [*REFERENCES, "ldm-dmx@1", "ldm-dmx-refined@1", "codec-ceiling"]


@pytest.fixture(scope="session")
def space(tiny_codec):
    """What the latent distance is measured in."""
    return tiny_codec, 64 * tiny_codec.hop_length


@pytest.fixture(scope="module")
def scored(toy_root, model_folder, space, tmp_path_factory):
    """The folder of the command's scores on the 1.2 s of the toy test song with most voice."""
    folder = tmp_path_factory.mktemp("scores")
    call(ALL, toy_root, folder, model_folder, choose=loudest, space=space)
    call(ALL, toy_root, folder, model_folder, "--time", clip_seconds=1)
    return folder


def loudest(track, vocals):
    return [max(scoring.excerpts(track, 1.2), key=lambda excerpt: np.abs(vocals[:, excerpt]).mean())]


def call(systems, data, out, model, *flags, **protocol):
    values = {"data": data, "out": out} | ({"model": model} if model else {})
    argv = [*systems, *(f"--{key}={value}" for key, value in values.items()), *flags]
    exit_on_input_error(command.run)(argv, **{"choose": nothing, "space": (None, None)} | protocol)


def nothing(track, vocals):
    """No excerpt."""
    return []


def rows_of(folder, system):
    with open(folder / "rows.csv", newline="") as file:
        return [row for row in csv.DictReader(file) if row["system"] == system]


def facts_of(folder, system):
    (facts,) = (run for run in files.read_runs(folder / "run.json") if run.get("system") == system)
    return facts


def value(folder, system, metric):
    values = [float(row["value"]) for row in rows_of(folder, system) if row["metric"] == metric]
    return np.median(values)


@pytest.mark.parametrize("system", ALL)
def test_every_system_has_its_rows_and_facts(scored, system):
    rows = rows_of(scored, system)
    whole = {"usdr", "silence_db", "sung_frames_lost"}
    assert {row["metric"] for row in rows if row["excerpt"] != ""} == METRICS
    assert {row["metric"] for row in rows if row["excerpt"] == ""} == whole
    assert all((row["dropped_reason"] == "") == (row["value"] != "") for row in rows)
    facts = facts_of(scored, system)
    assert facts["command"].startswith("python -m dmxlib.evaluation mixture")
    assert (facts["parameters"] is None) == (system in REFERENCES)
    times = pd.read_csv(scored / "times.csv")
    assert scoring.clip_seconds(times, system, facts["steps"])[0] > 0


def test_rows_are_what_others_compute_of_the_audio(scored, toy_root):
    """torchmetrics and plain formulas, of the mixture's excerpt: its mono mean against the vocals'."""
    (track,) = load_tracks(toy_root, "test")
    (excerpt,) = loudest(track, track.vocals())
    vocals, mixture = (
        torch.from_numpy(wave[:, excerpt].mean(axis=0).astype(np.float64))
        for wave in (track.vocals(), track.mixture())
    )
    start = {row["excerpt"] for row in rows_of(scored, "mixture") if row["excerpt"]}
    assert start == {str(excerpt.start / track.rate)}
    sdr = 10 * torch.log10(vocals.square().sum() / (vocals - mixture).square().sum())
    assert value(scored, "mixture", "sdr") == pytest.approx(sdr.item(), abs=1e-3)
    gain = (vocals @ mixture) / (vocals @ vocals)
    si_sdr = 10 * torch.log10((gain * vocals).square().sum() / (gain * vocals - mixture).square().sum())
    assert value(scored, "mixture", "si_sdr") == pytest.approx(si_sdr.item(), abs=1e-3)
    whole = track.vocals().mean(axis=0), track.mixture().mean(axis=0)
    usdr = 10 * np.log10(np.square(whole[0]).sum() / np.square(whole[0] - whole[1]).sum())
    assert value(scored, "mixture", "usdr") == pytest.approx(usdr, abs=1e-2)


def test_those_that_see_the_vocals_come_in_order(scored):
    sdr = partial(value, scored, metric="sdr")
    assert sdr("mixture") < sdr("equalizer") < sdr("irm")
    assert sdr("mixture") < sdr("best-gain") < sdr("irm")
    assert value(scored, "mixture", "silence_db") == pytest.approx(0, abs=1e-6)
    for metric in ("lsd", "mel_mae", "stft_distance", "latent_distance", "lsd_1000_2000"):
        assert value(scored, "irm", metric) < value(scored, "mixture", metric)
    for metric in ("pesq", "usdr"):
        assert value(scored, "irm", metric) > value(scored, "mixture", metric)


def test_a_systems_own_bandwidth_is_what_its_codec_gives(scored):
    """Above the codec's 12 kHz the raw estimate is empty; the refined one and the mixture are not."""
    assert facts_of(scored, "ldm-dmx@1")["bandwidth"] == 12_000
    assert facts_of(scored, "irm")["bandwidth"] is None
    for name in ("ldm-dmx-refined@1", "irm"):
        for metric in PAPERS:
            assert value(scored, name, metric) == value(scored, name, f"{metric}_to_bandwidth")
    reached, whole = (value(scored, "codec-ceiling", f"lsd{suffix}") for suffix in ("_to_bandwidth", ""))
    assert reached != whole


def test_scored_songs_are_not_scored_again(scored, toy_root, model_folder, tmp_path):
    shutil.copytree(scored, tmp_path / "scores")
    before = (tmp_path / "scores" / "rows.csv").read_bytes()
    never = {"choose": loudest, "space": (None, None)}  # a score would fail without a codec
    call(["mixture"], toy_root, tmp_path / "scores", model_folder, **never)
    assert (tmp_path / "scores" / "rows.csv").read_bytes() == before
    with pytest.raises(SystemExit, match="^error: .*rows.csv has mixture of other settings"):
        call(["mixture"], toy_root, tmp_path / "scores", model_folder, "--seed=1", **never)
    assert (tmp_path / "scores" / "rows.csv").read_bytes() == before


def test_a_broken_off_run_goes_on_by_system_and_track(made, space, tmp_path):
    scores = files.Scores(tmp_path, {"a": {"seed": 0}, "b": {"seed": 0}})
    row = {"track": "made", "excerpt": 0.0, "metric": "sdr", "value": 0.1 + 0.2, "dropped_reason": ""}
    scores.add("a", [{"system": "a", **row}])
    files.Scores(tmp_path, {"c": {"seed": 1}}).add("c", [{"system": "c", **row}])  # another, meanwhile
    scores.add("b", [{"system": "b", **row, "value": float("nan"), "dropped_reason": "why"}], command="x")
    again = files.Scores(tmp_path, {"a": {"seed": 0}})
    assert again.has("a", "made") and again.has("c", "made") and not again.has("a", "other")
    rows = files.read_rows(tmp_path / "rows.csv")
    assert list(rows.system) == ["a", "c", "b"] and rows.value[0] == 0.1 + 0.2 and np.isnan(rows.value[2])
    assert files.read_runs(tmp_path / "run.json") == [
        {"system": "a", "seed": 0}, {"system": "c", "seed": 1}, {"system": "b", "seed": 0, "command": "x"},
    ]  # fmt: skip


DYING = """
import os, signal, sys, time
from accelerate import PartialState
from dmxlib.evaluation import __main__ as command
from dmxlib.evaluation.scoring import Song

score = Song.score

def score_or_die(song, name, *rest):
    if PartialState().process_index == 1 and name == "ldm-dmx@1":
        while not os.path.exists(f"{sys.argv[-1]}/rows.csv"):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    return score(song, name, *rest)

Song.score = score_or_die
command.main()
"""


def test_launched_processes_share_the_songs_and_go_on_after_a_killed_one(toy_root, model_folder, tmp_path):
    """Of three songs the second process's first is lost with it, behind the first system."""
    argv = ["mixture", "ldm-dmx@1", "--waves", "--excerpts=1", "--split=train"]
    argv += [f"--model={model_folder}", f"--data_root={toy_root}", "--output_dir"]
    one, two, script = tmp_path / "one", tmp_path / "two", tmp_path / "dying.py"
    command.main([*argv, str(one)])
    script.write_text(DYING)
    code, told = launch(script, *argv, two)
    assert code and "SIGKILL" in told
    left = files.read_rows(two / "rows.csv")
    assert set(left.system) == {"mixture"} and set(left.track) == {"Toy Song 0", "Toy Song 1"}
    code, told = launch("-m", "dmxlib.evaluation", *argv, two)
    assert code == 0, told[-3000:]
    key = [*files.COLUMNS[:4]]
    tables = [
        files.read_rows(folder / "rows.csv").sort_values(key, ignore_index=True) for folder in (one, two)
    ]
    assert len(set(tables[0].track)) == 3
    pd.testing.assert_frame_equal(*tables)
    its_own = dict.fromkeys(["command", "date", "device"])
    runs = [[run | its_own for run in files.read_runs(folder / "run.json")] for folder in (one, two)]
    assert runs[0] == runs[1] and [run["system"] for run in runs[0]] == ["mixture", "ldm-dmx@1"]


@pytest.mark.parametrize(
    "count, most, expected",
    [
        (4, None, [0, 1, 2, 3]),
        (4, 9, [0, 1, 2, 3]),
        (4, 4, [0, 1, 2, 3]),
        (10, 1, [5]),
        (10, 2, [2, 7]),
        (9, 3, [1, 4, 7]),
        (0, 3, []),
    ],
)
def test_excerpts_are_spread_evenly(count, most, expected):
    assert scoring.spread(list(range(count)), most) == expected


def test_no_number_of_excerpts_is_spread_unevenly():
    for count in range(1, 30):
        for most in range(1, count + 1):
            chosen = scoring.spread(list(range(count)), most)
            gaps = np.diff(chosen)
            assert len(chosen) == most and (most == 1 or (gaps.min() >= 1 and np.ptp(gaps) <= 1))
            assert abs(chosen[0] - (count - 1 - chosen[-1])) <= 1  # no end is favoured


def test_so_many_excerpts_of_each_song_are_scored(toy_root, space, tmp_path):
    places = [slice(start, start + 44_100) for start in range(0, 4 * 44_100, 44_100)]
    chosen = {"choose": lambda *_: places, "space": space}
    call(["mixture"], toy_root, tmp_path / "all", None, **chosen)
    call(["mixture"], toy_root, tmp_path / "two", None, "--excerpts=2", **chosen)
    starts = {
        folder: [row["excerpt"] for row in rows_of(tmp_path / folder, "mixture") if row["metric"] == "sdr"]
        for folder in ("all", "two")
    }
    assert starts == {"all": ["0.0", "1.0", "2.0", "3.0"], "two": ["1.0", "3.0"]}
    assert facts_of(tmp_path / "two", "mixture")["excerpts"] == 2
    with pytest.raises(SystemExit, match="^error: .*rows.csv has mixture of other settings"):
        call(["mixture"], toy_root, tmp_path / "two", None, **chosen)


def test_estimates_are_kept(toy_root, tmp_path):
    call(["irm"], toy_root, tmp_path / "scores", None, f"--keep={tmp_path / 'kept'}")
    track = load_tracks(toy_root, "test")[0]
    vocals, rest = (
        audio.read(tmp_path / "kept" / "irm" / track.name / f"{stem}.wav")[0]
        for stem in ("vocals", "accompaniment")
    )
    np.testing.assert_allclose(vocals + rest, track.mixture(), atol=1e-6)


def test_no_score_is_dropped_without_a_reason(made, space):
    places = [slice(0, RATE), slice(5 * RATE, 6 * RATE)]
    song, system = Song(made, Protocol(space, lambda *_: places)), systems.System(None)

    def reasons(estimate):
        rows = song.score("made", system, estimate)
        assert all(np.isnan(row["value"]) == bool(row["dropped_reason"]) for row in rows)
        return {(row["excerpt"], row["metric"]): row["dropped_reason"] for row in rows}

    sung = reasons(made.mixture())  # which leaves no accompaniment
    assert "never sound" in sung[0.0, "sir"] and sung[0.0, "pesq"] == "" == sung["", "usdr"]
    assert sung[5.0, "lsd"] == sung[5.0, "pesq"] == "silent reference"
    assert reasons(0 * made.mixture())[0.0, "si_sdr"] == "silent estimate"
    broken = reasons(np.full_like(made.voice, np.nan))
    assert broken[0.0, "sdr"] == broken["", "usdr"] == broken["", "silence_db"] == "estimate is not finite"
    noise = reasons(made.rest)
    assert noise[0.0, "log_f0_rmse"] in ("", "no frame voiced in both")


def test_many_steps_are_timed_by_the_step(made):
    """One step takes a second of a made-up clock, and all else two; the systems take turns."""
    now, calls = [0.0], []

    def system(name, own):
        def separate(track, steps=own):
            calls.append((name, steps))
            now[0] += 2 + steps

        return systems.System(separate, steps=own)

    of = {"many": system("many", 150), "few": system("few", 3)}
    times = scoring.clock(of, made, repeats=2, now=lambda: now[0])
    assert calls == [("many", 1), ("many", 10), ("few", 3)] * 3 + [("many", 150)]
    assert scoring.clip_seconds(times, "many", 150) == (152, 0)
    assert scoring.clip_seconds(times, "few", 3) == (5, 0)
    assert list(times[times.steps == 150].seconds) == [152] and set(times.repeat) == {1, 2}
    assert np.isnan(scoring.clip_seconds(times, "other", None)).all()
    plain = {"plain": systems.System(lambda track: now.append(now.pop() + 7))}
    assert scoring.clip_seconds(scoring.clock(plain, made, now=lambda: now[0]), "plain", None) == (7, 0)


def test_each_iterative_system_has_its_own_number_of_steps(model_folder):
    options = Options(model=str(model_folder))
    assert make_system("ldm-dmx", options).steps == 1
    assert make_system("ldm-dmx", replace(options, steps=4)).steps == 4
    assert make_system("ldm-dmx@4", options).steps == 4
    assert make_system("mixture", replace(options, steps=4)).steps is None


def test_titles_say_what_the_steps_are():
    assert full_title("ldm-dmx@1", 1) == "LDM-dmx (our recipe), 1 step (the mean)"
    assert full_title("ldm-dmx-refined", 50) == "LDM-dmx (our recipe), refined, 50 steps (sampled)"
    assert full_title("instglow", 150) == "InstGlow, 150 steps"  # a descent to the mode
    assert full_title("irm", None) == "IRM ◇" and full_title("bsrnn", None) == "BS-RNN"


def test_each_system_has_a_model_of_its_own():
    names = ["msdm@10", "msdm-refined", "bsrnn", "ldm-dmx"]
    chosen = choose_models(names, ["bsrnn=a=b", "msdm=c", "d=e"])
    assert chosen == {"msdm@10": "c", "msdm-refined": "c", "bsrnn": "a=b", "ldm-dmx": "d=e"}
    assert choose_models(names, []) == dict.fromkeys(names)
    with pytest.raises(InputError, match="--model names hdemucs, which is not among"):
        choose_models(names, ["hdemucs=x"])


@pytest.fixture
def shipped_instglow(tmp_path, monkeypatch):
    """An InstGlow with random weights where the trained ones are looked for."""
    torch.manual_seed(0)
    model = baselines.load("instglow")(blocks=1, hidden=4, chunk_samples=65_536)
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    model.save_pretrained(tmp_path / "instglow-mini")
    monkeypatch.setattr(weights, "FOLDER", tmp_path)


def test_a_baseline_is_loaded_and_refined_like_ldm_dmx(shipped_instglow, made):
    raw, refined = (make_system(name, Options(steps=2)) for name in ("instglow", "instglow-refined"))
    assert raw.steps == refined.steps == 2 and make_system("instglow", Options()).steps == 150
    assert raw.bandwidth == 11_025 and np.isinf(refined.bandwidth)
    assert not np.array_equal(raw.separate(made, steps=1), raw.separate(made))
    expected = wiener(made.mixture(), raw.separate(made), RATE, 11_025)
    np.testing.assert_array_equal(refined.separate(made), expected)


@pytest.fixture
def separated(monkeypatch):
    """Of each separation by what stands in InstGlow's row, half of the mixture, whether autocast was on."""
    separated = []

    def half(track, steps=None):
        separated.append(torch.is_autocast_enabled("cpu"))
        return track.mixture() / 2

    def build(options):
        return systems.System(half, steps=options.steps or 150, bandwidth=11_025)

    row = replace(systems.SYSTEMS["instglow"], build=build)
    monkeypatch.setitem(systems.SYSTEMS, "instglow", row)
    return separated


def test_what_is_refined_is_separated_once(separated, toy_root, tmp_path):
    call(["instglow@2", "instglow-refined@2"], toy_root, tmp_path / "others", None)
    assert separated == [False]
    separated.clear()
    call(["instglow", "instglow-refined"], toy_root, tmp_path / "scores", None)
    assert separated == [False]
    usdr = {name: rows_of(tmp_path / "scores", name) for name in ("instglow", "instglow-refined")}
    (track,) = load_tracks(toy_root, "test")
    estimate = make_system("instglow-refined", Options()).separate(track)
    expected = Song(track, Protocol(choose=nothing)).score("x", systems.System(None), estimate)
    assert [float(row["value"]) for row in usdr["instglow-refined"]] == [row["value"] for row in expected]
    assert usdr["instglow"] != usdr["instglow-refined"] and separated == [False] * 2


def test_mixed_precision_is_that_of_accelerate(separated, toy_root, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    reset_accelerate()
    try:
        call(["instglow"], toy_root, tmp_path, None)
        call(["instglow"], toy_root, tmp_path, None, "--time")  # whatever the precision of the scores is
    finally:
        reset_accelerate()
    assert separated[0] and not any(separated[1:]) and len(separated) > 1  # what is timed is not
    facts = facts_of(tmp_path, "instglow")
    assert facts["mixed_precision"] == "bf16"
    assert facts["command"].startswith(
        "accelerate launch --mixed_precision bf16 -m dmxlib.evaluation instglow"
    )
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION")
    with pytest.raises(SystemExit, match="^error: .*rows.csv has instglow of other settings"):
        call(["instglow"], toy_root, tmp_path, None)
    reset_accelerate()


def tiny_bsrnn(folder, **settings):
    torch.manual_seed(1)
    settings = {"features": 8, "pairs_of_layers": 1, "hop": 512, "chunk_samples": 16_384} | settings
    model = baselines.load("bsrnn")(**settings)
    model.save_pretrained(folder)
    return model.eval()


def test_a_baseline_is_loaded_from_a_folder_of_its_own(shipped_instglow, made, tmp_path):
    """BS-RNN at another rate, where none ships; InstGlow, where another one does and is not read."""
    model = tiny_bsrnn(tmp_path / "own", sampling_rate=16_000, channels=1, window=1024)
    system = make_system("bsrnn", Options(model=str(tmp_path / "own")))
    assert (system.parameters, system.steps, system.bandwidth) == (model.num_parameters(), None, 8000)
    estimate = system.separate(made)
    assert estimate.shape == made.voice.shape and estimate.any()
    np.testing.assert_array_equal(estimate, separate(model, made.mixture(), RATE))

    shipped = make_system("instglow", Options(steps=2))
    torch.manual_seed(1)
    model = baselines.load("instglow")(blocks=2, hidden=4, chunk_samples=8192, sampling_rate=16_000).eval()
    model.save_pretrained(tmp_path / "own-glow")
    shutil.rmtree(tmp_path / "instglow-mini")
    for name in ("instglow", "instglow-refined"):
        system = make_system(name, Options(model=str(tmp_path / "own-glow"), steps=2))
        assert system.parameters == model.num_parameters() != shipped.parameters and system.steps == 2
    raw = make_system("instglow", Options(model=str(tmp_path / "own-glow"), steps=2)).separate(made)
    np.testing.assert_array_equal(raw, separate(model, made.mixture(), RATE, 2))


def test_the_command_takes_a_baselines_folder(toy_root, tmp_path):
    model = tiny_bsrnn(tmp_path / "own", sampling_rate=16_000, channels=1)
    call(["bsrnn", "mixture"], toy_root, tmp_path / "scores", f"bsrnn={tmp_path / 'own'}")
    assert facts_of(tmp_path / "scores", "mixture")["model"] is None
    facts = facts_of(tmp_path / "scores", "bsrnn")
    assert (facts["model"], facts["bandwidth"]) == (str(tmp_path / "own"), 8000)
    assert facts["parameters"] == model.num_parameters() and facts["steps"] is None
    shutil.rmtree(tmp_path / "own")  # it is named, so what ships does not take its place
    with pytest.raises(SystemExit, match=r"\Aerror: [^\n]*own is no folder with config.json[^\n]*\Z"):
        call(["bsrnn"], toy_root, tmp_path / "others", tmp_path / "own")


@pytest.mark.parametrize("name", ["msdm", "msdm-refined", "bsrnn", "hdemucs"])
def test_a_baseline_without_weights_says_what_to_do(shipped_instglow, name):
    with pytest.raises(InputError, match=f"has no trained weights.*mini_{name.split('-')[0]}.yaml"):
        make_system(name, Options())


@pytest.mark.parametrize(
    "flags, message",
    [
        (["nonsense"], "system nonsense is unknown; choose from mixture"),
        (["ldm-dmx", "--model=nowhere"], "model nowhere cannot be loaded"),
        (["mixture", "--data=nowhere"], "nowhere holds no tracks"),
        (["mixture", "--excerpts=0"], "--excerpts is 0; choose 1 or more"),
        (["mixture", "--excerpts=-3"], "--excerpts is -3; choose 1 or more"),
        (["mixture", "--held-out=-5"], "--held-out is -5.0; choose 0 or more"),
        (["mixture", "--held-out=nan"], "--held-out is nan; choose 0 or more"),
        (["mixture", "--seed=-1"], "--seed is -1; choose 0 to"),
        (["mixture", "--out="], "--output_dir is empty; name a folder"),
        (["mixture", "--keep="], "--keep is empty; name a folder"),
    ],
)
def test_bad_calls_are_told_in_one_sentence(toy_root, tmp_path, flags, message):
    data = [] if "--data" in flags[-1] else [f"--data={toy_root}"]
    with pytest.raises(SystemExit, match=f"^error: {message}"):
        command.main([*data, f"--out={tmp_path}", *flags])


def test_best_gain_is_the_least_squares_one(made):
    scaled, v = references.at_best_gain(references.identity, made, 2.0), made.vocals()
    for start in (0, 2 * RATE):
        window = slice(start, start + 2 * RATE)
        error = [np.square((g * scaled - v)[:, window].mean(axis=0)).sum() for g in (0.99, 1, 1.01)]
        assert error[1] < min(error[0], error[2])


def test_irm_is_far_better_than_the_mixture(toy_root):
    (track,) = load_tracks(toy_root, "test")
    vocals, estimate = track.vocals(), references.ideal_ratio_mask(track)
    assert estimate.shape == vocals.shape
    assert metrics.sdr(vocals, estimate) > metrics.sdr(vocals, track.mixture()) + 6


def test_repetition_is_taken_out(rng):
    """A loop of noise under a tone that sounds once: the loop goes, the tone stays."""
    loop = np.tile(rng.standard_normal((2, 2 * RATE), np.float32), 5)
    time = np.arange(loop.shape[1]) / RATE
    voice = np.tile(np.sin(2 * np.pi * 500 * time) * (4.2 < time) * (time < 5.2), (2, 1)).astype(np.float32)
    made = Made(voice, 0.1 * loop)
    assert metrics.sdr(voice, references.repetition(made)) > metrics.sdr(voice, made.mixture()) + 6


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


@torch.no_grad()
def test_codec_ceiling_is_the_voice_at_its_level(toy_root, model_folder):
    track = load_tracks(toy_root, "test")[0]
    pipeline = VocalSeparationPipeline.from_pretrained(model_folder)
    wave = references.through_codec(pipeline, track)
    assert wave.shape == (2, track.samples) and np.isfinite(wave).all()
    levels = [10 * np.log10(np.square(signal).mean()) for signal in (wave, track.vocals())]
    assert abs(levels[0] - levels[1]) < 3


def test_held_out_ends_are_scored_and_not_learned_from(toy_root):
    training, songs = scoring.load_songs(toy_root, "test", 2.0)
    assert [song.name for song in songs] == [song.name for song in training]
    for song, kept in zip(songs, training, strict=True):
        assert song.samples == 2 * song.rate and song.first == kept.last
    learned, tested = scoring.load_songs(toy_root, "test", 0)
    assert not {song.name for song in tested} & {song.name for song in songs}
    assert scoring.load_songs(toy_root, "train", 0) == (learned, learned)


def test_spectra_are_compared_where_the_reference_is_voiced(made, space):
    """The estimate sings on where the voice has ended, and is right where the voice sings."""
    time = np.arange(6 * RATE) / RATE
    late = np.tile(0.3 * np.sin(2 * np.pi * 440 * time) * (time > 3.2), (2, 1)).astype(np.float32)
    song = Song(made, Protocol(space, lambda *_: [slice(0, 6 * RATE)]))
    rows = song.score("made", systems.System(None), made.voice + late)
    figures = {row["metric"]: row["value"] for row in rows if row["excerpt"] == 0}
    assert figures["lsd"] < 0.1 and figures["mel_mae"] < 1 and figures["lsd_250_500"] < 0.1
    assert metrics.lsd(made.voice, made.voice + late, RATE, band=(250, 500)) > 0.5  # on all frames


def test_a_difference_between_the_channels_is_not_scored(made, space):
    side = np.stack([made.rest[0], -made.rest[0]])
    song = Song(made, Protocol(space, lambda *_: [slice(0, RATE)]))
    rows = song.score("made", systems.System(None), made.voice + side)
    figures = {row["metric"]: row["value"] for row in rows if row["excerpt"] == 0}
    assert figures["sdr"] > 60 and figures["lsd"] < 0.1


def test_the_fields_protocol_has_names_of_its_own(rng, tmp_path):
    """Two made songs in stereo: museval's own figures of each, and the sums of SDX23."""
    museval = pytest.importorskip("museval")
    songs = [
        Made(*(0.1 * rng.standard_normal((2, 3 * RATE)) * scale for scale in (1, level)), name=name)
        for name, level in (("one", 0.5), ("two", 2.0))
    ]
    noise = [0.03 * rng.standard_normal(song.voice.shape) for song in songs]
    estimates = [song.voice + 0.3 * song.rest[::-1] + n for song, n in zip(songs, noise, strict=True)]
    scores = files.Scores(tmp_path, {"mixture": {"steps": None}})
    for song, estimate in zip(songs, estimates, strict=True):
        rows = Song(song, Protocol(choose=nothing, musdb=True)).score("x", systems.System(None), estimate)
        assert {row["metric"] for row in rows if row["metric"].startswith("musdb_")} == {
            "musdb_sdr", "musdb_isr", "musdb_sir", "musdb_sar", "musdb_usdr",
        }  # fmt: skip
        scores.add("mixture", [{"system": "mixture", "track": song.name, **row} for row in rows])
        found = {row["metric"]: row["value"] for row in rows}
        true = np.stack([song.voice.T, song.rest.T])
        guess = np.stack([estimate.T, (song.mixture() - estimate).T])
        expected = museval.evaluate(true, guess, win=RATE, hop=RATE, mode="v4")
        for name, frames in zip(("sdr", "isr", "sir", "sar"), expected, strict=True):
            assert found[f"musdb_{name}"] == pytest.approx(np.median(frames[0]), abs=1e-6)
        error = song.voice - estimate
        ratio = (np.square(song.voice).sum() + 1e-7) / (np.square(error).sum() + 1e-7)
        assert found["musdb_usdr"] == pytest.approx(10 * np.log10(ratio)) != found["usdr"]
    rows, facts = tables.load_scores(tmp_path)
    cells = tables.musdb_table(rows, facts).splitlines()[-1].strip("| ").split(" | ")
    usdr = rows[rows.metric == "musdb_usdr"].value.mean()
    assert cells[0] == "mixture" and cells[-1] == f"{usdr:.2f}"
    assert "musdb" not in tables.score_table(tmp_path)


def test_a_system_is_made_of_others_of_its_own_model_alone():
    made = {"bsrnn": systems.System(None), "both": systems.System(None, parts=("bsrnn", "not scored"))}
    assert systems.of_one_model(made, {"bsrnn": None, "both": None})["both"].parts == made["both"].parts
    assert systems.of_one_model(made, {"bsrnn": "another", "both": None})["both"].parts == ()


def test_recipes_side_by_side_do_not_ship(model_folder):
    """Each is what it is given, drawn and refined alike, and says so where it is given nothing."""
    for name in ("ldm-dmx-paper", "ldm-dmx-plus"):
        with pytest.raises(InputError, match=f"{name} does not ship; train it .* --model {name}=FOLDER"):
            make_system(f"{name}-refined@2", Options())
        given = {
            kind: make_system(f"{kind}@3", Options(model=str(model_folder)))
            for kind in (name, "ldm-dmx", f"{name}-refined", "ldm-dmx-refined")
        }
        assert {system.steps for system in given.values()} == {3}
        assert given[name].bandwidth == given["ldm-dmx"].bandwidth < given[f"{name}-refined"].bandwidth
        assert full_title(f"{name}@1", 1).endswith(", 1 step (the mean)")


def test_an_excerpt_is_scored_where_half_of_it_is_sung():
    length = round(scoring.EXCERPT_SECONDS * RATE)
    voice = np.zeros((2, 4 * length), np.float32)
    for number, share in enumerate((0.6, 0.4, 0.0, 1.0)):
        voice[:, number * length :][:, : round(share * length)] = 0.1
    sung = scoring.sung_excerpts(Made(voice, voice), voice)
    assert sung == [slice(0, length), slice(3 * length, 4 * length)]
