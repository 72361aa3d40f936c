"""The package: excerpts that are fair, samples that tell nothing, a folder that is whole or not there."""

import itertools
import json
import re
import shutil

import numpy as np
import pytest
import soundfile as sf
import yaml
from made_listening import BANDS, RATE, killed_at, loud, separate_all
from scipy.signal import correlate

from dmxlib import audio
from dmxlib.data import load_tracks
from dmxlib.errors import InputError
from dmxlib.evaluation.systems import SYSTEMS
from dmxlib.listening import __main__ as command
from dmxlib.listening import make, results
from dmxlib.weights import find

pytest_plugins = ["listening_fixtures"]
PAPERS_FOUR = {"ldm-dmx", "msdm", "bsrnn", "hdemucs"}  # of its section IV-C


def write_song(root, name, sung, seconds=12, rng=None):
    """A song of noise whose voice is a tone that sounds where `sung(second)`."""
    time = np.arange(seconds * RATE) / RATE
    voice = 0.3 * np.sin(2 * np.pi * 220 * time) * sung(time)
    noise = 0.05 * (rng or np.random.default_rng(0)).standard_normal((2, len(time)))
    folder = root / "test" / name
    audio.write(folder / "vocals.wav", np.tile(voice, (2, 1)).astype(np.float32), RATE)
    audio.write(folder / "mixture.wav", (voice + noise).astype(np.float32), RATE)


@pytest.fixture
def songs(tmp_path):
    """Three made songs, sung throughout, in their last third, and never."""
    root = tmp_path / "songs"
    write_song(root, "full", lambda time: time >= 0)
    write_song(root, "late", lambda time: time >= 8)
    write_song(root, "mute", lambda time: time < 0)
    separate_all(root, tmp_path / "estimates")
    return root


def test_listening_package_is_fair_and_tells_nothing(package, key, toy_root, estimates):
    page = package / "page"
    test = json.loads((page / "test.json").read_text())
    names = {path.stem for path in (page / "audio").iterdir()}
    items = [test["training"], *test["items"]]
    assert len(test["items"]) == 2 and len(names) == 3 * (len(BANDS) + 1)
    assert names == {name for item in items for name in [item["reference"], *item["samples"]]}
    assert set(key["samples"]) == {name for item in items for name in item["samples"]}
    served = " ".join(path.read_text() for path in page.iterdir() if path.is_file())
    assert not any(secret in served for secret in [*BANDS, "Toy Song", "key.json"])

    import pyloudnorm

    waves = {name: sf.read(page / "audio" / f"{name}.wav") for name in names}
    assert {(wave.shape, rate) for wave, rate in waves.values()} == {
        ((round(test["seconds"] * 44_100), 2), 44_100)
    }
    loudness = [pyloudnorm.Meter(44_100).integrated_loudness(wave) for wave, _ in waves.values()]
    assert np.ptp(loudness) < 0.05 and max(np.abs(wave).max() for wave, _ in waves.values()) <= 1
    for name, sample in key["samples"].items():
        first, last = (round(44_100 * float(second)) for second in re.findall(r"[\d.]+", sample["span"]))
        separated = audio.read(estimates / sample["system"] / sample["track"] / "vocals.wav")[0]
        near = separated[:, max(0, first - 4410) : last + 4410].mean(axis=0)  # the span is rounded to 0.1 s
        lags = correlate(near, waves[name][0].mean(axis=1)[5000:15_000], "valid")
        energy = np.sqrt(np.convolve(near**2, np.ones(10_000), "valid"))
        assert np.max(lags / energy) > 0.999 * np.linalg.norm(waves[name][0].mean(axis=1)[5000:15_000])


def test_listening_description_says_what_was_made(package, key):
    text = (package / "README.md").read_text()
    assert "come from 1 recording, of 1 at hand; none overlap" in text and "| practice |" in text
    assert "never of\nthe training songs" in text and "excerpts of 1.2 s (the paper: 6 of 30 s)" in text
    assert "--systems broad dull --recordings 2 --seconds 1.2" in text
    assert "that wording is ours" in text and all(aspect in text for aspect in key["aspects"])
    assert not any(name in text for name in key["samples"])


def test_listening_excerpts_are_voiced_apart_and_seeded(songs):
    tracks = load_tracks(songs, "test")
    chosen = make.choose(tracks, 5, 2.0, seed=1, voiced=loud)
    assert chosen == make.choose(tracks, 5, 2.0, seed=1, voiced=loud)
    assert chosen != make.choose(tracks, 5, 2.0, seed=2, voiced=loud)
    assert {excerpt.track.name for excerpt in chosen} == {"full", "late"}
    assert {excerpt.length for excerpt in chosen} == {2 * RATE}
    for excerpt in chosen:
        voice = excerpt.track.vocals(excerpt.start, excerpt.length)
        assert voice.shape[1] == 2 * RATE and np.mean(np.abs(voice[0]) > 1e-4) > 0.5
    for one, other in itertools.combinations(chosen, 2):
        assert one.track is not other.track or abs(one.start - other.start) >= 2 * RATE


def test_listening_hiss_is_not_voiced(tmp_path, rng):
    """Loud enough to be sung, but by pYIN without a pitch."""
    voice = 0.1 * rng.standard_normal((2, 2 * RATE))
    voice[:, RATE:] = 0.3 * np.sin(2 * np.pi * 220 * np.arange(RATE) / RATE)
    for stem in ("vocals", "mixture"):
        audio.write(tmp_path / "test" / "song" / f"{stem}.wav", voice.astype(np.float32), RATE)
    (track,) = load_tracks(tmp_path, "test")
    voiced = make.voiced_tenths(track)
    assert voiced[0].all() and voiced[1, :10].mean() < 0.5 < voiced[1, 10:].mean()
    assert loud(track).all()


def test_listening_excerpts_are_as_many_as_there_can_be(songs):
    """4 s are sung at the end of 12: three excerpts of 1.5 s fit only if the first begins before."""
    (track,) = [track for track in load_tracks(songs, "test") if track.name == "late"]
    starts = sorted(excerpt.start / RATE for excerpt in make.choose([track], 3, 1.5, seed=0, voiced=loud))
    assert starts == pytest.approx([7.3, 8.8, 10.3])


def test_listening_songs_come_once_each_before_any_twice(songs):
    chosen = make.choose(load_tracks(songs, "test"), 2, 2.0, seed=0, voiced=loud)
    assert {excerpt.track.name for excerpt in chosen} == {"full", "late"}


def test_listening_excerpts_are_shorter_where_songs_hold_no_more(songs, tmp_path):
    chosen = make.choose(load_tracks(songs, "test"), 4, 6.0, seed=0, voiced=loud)
    assert len({excerpt.length for excerpt in chosen}) == 1 and 2 * RATE <= chosen[0].length < 6 * RATE
    make.make(tmp_path / "estimates", tmp_path / "out", songs, list(BANDS), 3, 6.0, voiced=loud)
    text = (tmp_path / "out" / "README.md").read_text()
    assert "instead of 6 s: not enough longer ones" in text and "from 2 recordings, of 3 at hand" in text


def test_listening_test_is_by_default_of_the_papers_four_as_they_ship(tmp_path):
    """The folders that `python -m dmxlib.evaluation` keeps for them are all that is asked for."""
    songs = tmp_path / "songs"
    write_song(songs, "short", lambda time: time >= 0, seconds=3)
    separate_all(songs, tmp_path / "estimates")
    for system in PAPERS_FOUR:
        assert SYSTEMS[system].name == system and find(f"{system}-mini", "about.json")
        shutil.copytree(tmp_path / "estimates" / "broad", tmp_path / "kept" / system)
    options = ["--data_root", songs, "--recordings", 1, "--seconds", 1.2]
    argv = ["make", *map(str, [tmp_path / "kept", tmp_path / "out", *options])]
    with pytest.raises(SystemExit, match="two different systems"):
        command.main([*argv, "--systems", "bsrnn", "bsrnn"])
    command.main(argv)
    key = results.read_key(tmp_path / "out" / "key.json")
    assert {*key["systems"]} == {sample["system"] for sample in key["samples"].values()} == PAPERS_FOUR


def test_listening_loudness_is_lowered_for_all_where_one_would_clip(tmp_path, rng):
    noise = 0.01 * rng.standard_normal((2, make.RATE)).astype(np.float32)
    spiky = noise.copy()
    spiky[:, make.RATE // 2] = 1.0
    waves = {"noise": make.equally_loud(noise, ""), "spiky": make.equally_loud(spiky, "")}
    make.write_page(tmp_path / "page", {}, waves)
    written = {name: audio.read(tmp_path / "page" / "audio" / f"{name}.wav")[0] for name in waves}
    assert np.abs(written["spiky"]).max() == pytest.approx(1, abs=1e-4)
    gains = [np.std(written[name]) / np.std(waves[name]) for name in waves]
    assert gains[0] == pytest.approx(gains[1], rel=1e-3) and gains[0] < 0.9


def cut_short(songs, estimates):
    path = estimates / "dull" / "full" / "vocals.wav"
    audio.write(path, audio.read(path)[0][:, :-1], RATE)


def resampled(songs, estimates):
    path = estimates / "dull" / "full" / "vocals.wav"
    audio.write(path, audio.read(path)[0], 2 * RATE)


def silenced(songs, estimates):
    path = estimates / "dull" / "full" / "vocals.wav"
    audio.write(path, 0 * audio.read(path)[0], RATE)


def damaged(songs, estimates):
    (estimates / "dull" / "full" / "vocals.wav").write_bytes(b"RIFF")


def unsung(songs, estimates):
    for name in ("full", "late"):
        for path in (songs / "test" / name).iterdir():
            path.unlink()


@pytest.mark.parametrize(
    "spoil, options, sentence",
    [
        (None, {"data_root": "train"}, "has no folder test/"),
        (None, {"systems": ["broad", "loud"]}, "loud does not exist: .* holds broad, dull; see --systems"),
        (None, {"systems": ["broad"]}, "two different systems"),
        (None, {"systems": ["broad", "broad"]}, "two different systems"),
        (None, {"recordings": 0}, "at least one recording"),
        (None, {"seed": -1}, "--seed is -1; choose 0 to"),
        (None, {"seconds": float("nan")}, "1.2 seconds"),
        (None, {"seconds": float("inf")}, "1.2 seconds"),
        (None, {"seconds": 1.1}, "1.2 seconds"),
        (None, {"recordings": 50}, "are needed .*; ask for fewer --recordings"),
        (None, {"destination": "."}, "exists already"),
        (None, {"estimates": "nowhere"}, "does not exist: .* holds no systems"),
        (cut_short, {}, "dull/full/vocals.wav has 95999 samples at 8000 Hz, its mixture 96000"),
        (resampled, {}, "at 16000 Hz"),
        (silenced, {}, "dull/full/vocals.wav from .* s is silent"),
        (damaged, {}, "dull/full/vocals.wav"),
        (unsung, {}, "mute: 0 excerpts of .* are voiced"),
    ],
)
def test_listening_make_refuses(songs, tmp_path, spoil, options, sentence):
    if spoil:
        spoil(songs, tmp_path / "estimates")
    before = sorted(tmp_path.rglob("*"))
    given = {"estimates": "estimates", "destination": "out", "data_root": "songs", **options}
    paths = {name: tmp_path / given.pop(name) for name in ("estimates", "destination", "data_root")}
    with pytest.raises(InputError, match=sentence):
        make.make(
            **paths, **{"systems": list(BANDS), "recordings": 2, "seconds": 2.0, "voiced": loud, **given}
        )
    assert sorted(tmp_path.rglob("*")) == before


def test_listening_make_killed_at_any_write_is_made_anew(songs, tmp_path):
    out = tmp_path / "out"

    def make_it():
        make.make(tmp_path / "estimates", out, songs, list(BANDS), 1, 2.0, voiced=loud)

    write = 0
    while killed_at(write, make_it):
        assert not out.exists()
        write += 4
    assert write > 8 and results.read_key(out / "key.json")["systems"] == list(BANDS)
    assert {path.name for path in out.iterdir()} == {"page", "webmushra", "key.json", "README.md"}
    assert {path.name for path in tmp_path.iterdir()} == {"estimates", "out", "songs"}, "nothing is left over"


def test_listening_song_that_one_system_lacks_is_left_out(songs, tmp_path):
    (tmp_path / "estimates" / "dull" / "late" / "vocals.wav").unlink()
    tracks = make.separated_tracks(tmp_path / "estimates", list(BANDS), songs)
    assert [track.name for track in tracks] == ["full", "mute"]
    for path in (tmp_path / "estimates" / "dull").rglob("*.wav"):
        path.unlink()
    with pytest.raises(InputError, match="every system separated"):
        make.separated_tracks(tmp_path / "estimates", list(BANDS), songs)


def test_listening_webmushra_configs(package, key):
    folder = package / "webmushra" / "configs"
    configs = [yaml.safe_load(path.read_text()) for path in sorted(folder.glob("*.yaml"))]
    assert [config["testId"] for config in configs] == [f"{key['id']}_{aspect}" for aspect in key["aspects"]]
    for config in configs:
        *_, practice, (order, *rated), finish = config["pages"]
        assert order == "random" and len(rated) == 2
        for page in [practice, *rated]:
            assert (
                page["type"] == "likert_multi_stimulus"
                and page["mustRate"]
                and page["mustPlayback"] == "ended"
            )
            mixture = re.search(r'<audio controls [^>]*src="configs/(.*?)"', page["content"])[1]
            for path in [mixture, *(path.removeprefix("configs/") for path in page["stimuli"].values())]:
                assert (folder / path).is_file()
            assert [answer["value"] for answer in page["response"]] == [5, 4, 3, 2, 1]
        rated = {name for page in rated for name in page["stimuli"]}
        assert rated == set(results.rated_samples(key)) and set(practice["stimuli"]).isdisjoint(rated)
        assert finish["questionnaire"][0]["name"] == "participant_id" and finish["writeResults"]
