"""The listening test: from separated songs to a package, listeners, and their mean opinion scores."""

import contextlib
import csv
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import browser
import numpy as np
import pandas
import pytest
import soundfile as sf
import yaml
from scipy import stats
from scipy.signal import butter, correlate, sosfilt

from dmxlib import audio, metrics
from dmxlib.data import load_tracks
from dmxlib.errors import InputError
from dmxlib.evaluation.scoring import above
from dmxlib.listening import __main__ as command
from dmxlib.listening import analyse, make, results

BANDS = {"broad": (150, 3500), "dull": (150, 900)}  # Hz: stand-ins for systems, the mixture filtered
RATE = 8000  # of what is made here


def filtered(mixture, band, rate):
    return sosfilt(butter(2, band, "bandpass", fs=rate, output="sos"), mixture).astype(np.float32)


def separate_all(data_root, estimates):
    """Let the stand-ins separate each test song into museval's layout."""
    for track in load_tracks(data_root, "test"):
        for system, band in BANDS.items():
            wave = filtered(track.mixture(), band, track.rate)
            audio.write(estimates / system / track.name / "vocals.wav", wave, track.rate)


@pytest.fixture(scope="module")
def estimates(toy_root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("estimates")
    separate_all(toy_root, folder)
    return folder


def loud(voice, rate):
    """pYIN is slow; where there is no noise the level says as well what is voiced."""
    return above(voice, rate, -40.0)


@pytest.fixture(scope="module")
def package(toy_root, estimates, tmp_path_factory):
    """A test of two systems, two excerpts of 1.2 s and one for practice, all of the one toy song."""
    folder = tmp_path_factory.mktemp("package") / "test"
    options = ["--data_root", toy_root, "--systems", *BANDS, "--recordings", 2, "--seconds", 1.2]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "voiced_mask", loud)
        command.main(["make", *map(str, [estimates, folder, *options])])
    return folder


@pytest.fixture(scope="module")
def key(package):
    return results.read_key(package / "key.json")


def submission(key, rating=3, listener="0" * 32):
    """What the page sends where each answer is the same, or a function of (sample, aspect)."""
    choose = rating if callable(rating) else lambda sample, aspect: rating
    pairs = itertools.product(results.rated_samples(key), key["aspects"])
    ratings = [{"sample": s, "aspect": a, "rating": choose(s, a)} for s, a in pairs]
    return {"test": key["id"], "listener": listener, "ratings": ratings}


# -- make ----------------------------------------------------------------------------------------------------


def write_song(root, name, sung, seconds=12, rng=None):
    """A song of noise whose voice is a tone that sounds where `sung(second)`."""
    time = np.arange(seconds * RATE) / RATE
    voice = 0.3 * np.sin(2 * np.pi * 220 * time) * sung(time)
    noise = 0.05 * (rng or np.random.default_rng(0)).standard_normal((2, len(time)))
    folder = root / "test" / name
    audio.write(folder / "vocals.wav", np.tile(voice, (2, 1)).astype(np.float32), RATE)
    audio.write(folder / "mixture.wav", (voice + noise).astype(np.float32), RATE)


@pytest.fixture
def songs(tmp_path, monkeypatch):
    """Three made songs, sung throughout, in their last third, and never."""
    monkeypatch.setattr(metrics, "voiced_mask", loud)
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
    chosen = make.choose(tracks, 5, 2.0, seed=1)
    assert chosen == make.choose(tracks, 5, 2.0, seed=1)
    assert chosen != make.choose(tracks, 5, 2.0, seed=2)
    assert {excerpt.track.name for excerpt in chosen} == {"full", "late"}
    assert {excerpt.frames for excerpt in chosen} == {2 * RATE}
    for excerpt in chosen:
        voice = excerpt.track.vocals(excerpt.start, excerpt.frames)
        assert voice.shape[1] == 2 * RATE and np.mean(np.abs(voice[0]) > 1e-4) > 0.5
    for one, other in itertools.combinations(chosen, 2):
        assert one.track is not other.track or abs(one.start - other.start) >= 2 * RATE


def test_listening_hiss_is_not_voiced(tmp_path, rng, monkeypatch):
    """Loud enough to be sung, but by pYIN without a pitch."""
    voice = 0.1 * rng.standard_normal((2, 2 * RATE))
    voice[:, RATE:] = 0.3 * np.sin(2 * np.pi * 220 * np.arange(RATE) / RATE)
    for stem in ("vocals", "mixture"):
        audio.write(tmp_path / "test" / "song" / f"{stem}.wav", voice.astype(np.float32), RATE)
    (track,) = load_tracks(tmp_path, "test")
    voiced = make.voiced_tenths(track)
    assert voiced[0].all() and voiced[1, :10].mean() < 0.5 < voiced[1, 10:].mean()
    monkeypatch.setattr(metrics, "voiced_mask", loud)
    assert make.voiced_tenths(track).all()


def test_listening_excerpts_are_as_many_as_there_can_be(songs):
    """4 s are sung at the end of 12: three excerpts of 1.5 s fit only if the first begins before."""
    (track,) = [track for track in load_tracks(songs, "test") if track.name == "late"]
    starts = sorted(excerpt.start / RATE for excerpt in make.choose([track], 3, 1.5, seed=0))
    assert starts == pytest.approx([7.3, 8.8, 10.3])


def test_listening_songs_come_once_each_before_any_twice(songs):
    chosen = make.choose(load_tracks(songs, "test"), 2, 2.0, seed=0)
    assert {excerpt.track.name for excerpt in chosen} == {"full", "late"}


def test_listening_excerpts_are_shorter_where_songs_hold_no_more(songs, tmp_path):
    chosen = make.choose(load_tracks(songs, "test"), 4, 6.0, seed=0)
    assert len({excerpt.frames for excerpt in chosen}) == 1 and 2 * RATE <= chosen[0].frames < 6 * RATE
    make.make(tmp_path / "estimates", tmp_path / "out", songs, list(BANDS), 3, 6.0)
    text = (tmp_path / "out" / "README.md").read_text()
    assert "instead of 6 s: not enough longer ones" in text and "from 2 recordings, of 3 at hand" in text


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
        (None, {"seconds": float("nan")}, "1.2 seconds"),
        (None, {"seconds": float("inf")}, "1.2 seconds"),
        (None, {"seconds": 1.1}, "1.2 seconds"),
        (None, {"recordings": 50}, "are needed .*; ask for fewer --recordings"),
        (None, {"destination": "."}, "exists already"),
        (None, {"estimates": "nowhere"}, "does not exist: .* holds no systems"),
        (cut_short, {}, "dull/full/vocals.wav has 95999 frames at 8000 Hz, its mixture 96000"),
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
        make.make(**paths, **{"systems": list(BANDS), "recordings": 2, "seconds": 2.0, **given})
    assert sorted(tmp_path.rglob("*")) == before


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


# -- what listeners send -------------------------------------------------------------------------------------


def changed(document, **changes):
    return {**document, **changes}


def changed_rating(document, **changes):
    return {**document, "ratings": [{**document["ratings"][0], **changes}, *document["ratings"][1:]]}


DOCTORED = {
    "no object": lambda document: [document],
    "another test": lambda document: changed(document, test="listening-other"),
    "a path": lambda document: changed(document, listener="../../../../../etc/passwd"),
    "a listener that is no string": lambda document: changed(document, listener=7),
    "something more": lambda document: changed(document, comment="x"),
    "ratings that are no list": lambda document: changed(document, ratings={}),
    "a rating missing": lambda document: changed(document, ratings=document["ratings"][1:]),
    "a rating twice": lambda document: changed(
        document, ratings=document["ratings"] + document["ratings"][:1]
    ),
    "a rating of 6": lambda document: changed_rating(document, rating=6),
    "a rating of true": lambda document: changed_rating(document, rating=True),
    "a rating of 3.5": lambda document: changed_rating(document, rating=3.5),
    "an unknown sample": lambda document: changed_rating(document, sample="x00000000"),
    "a sample that is a list": lambda document: changed_rating(document, sample=[]),
}


@pytest.mark.parametrize("name", DOCTORED)
def test_listening_doctored_ratings_are_refused(name, key, tmp_path):
    results.check(submission(key), key)
    with pytest.raises(InputError):
        results.check(DOCTORED[name](submission(key)), key)
    (tmp_path / "doctored.json").write_text(json.dumps(DOCTORED[name](submission(key))))
    sentence = "holds no complete ratings" if name == "another test" else "doctored.json: "
    with pytest.raises(InputError, match=sentence):
        results.read_results(tmp_path, key)


def test_listening_save_never_overwrites_and_survives_a_failure(key, tmp_path, monkeypatch):
    first, second = submission(key, 3), submission(key, 4)
    assert results.save(first, tmp_path) and results.save(first, tmp_path)
    assert not results.save(second, tmp_path)
    assert json.loads((tmp_path / f"{'0' * 32}.json").read_text()) == first
    monkeypatch.setattr(os, "fsync", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        results.save(submission(key, listener="1" * 32), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f"{'0' * 32}.json"]


def write_page_csv(document, path):
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(results.PAGE_COLUMNS)
        writer.writerows(
            [document["test"], document["listener"], *rating.values()] for rating in document["ratings"]
        )


def test_listening_json_and_csv_say_the_same(key, tmp_path):
    grade = {name: 1 + number % 5 for number, name in enumerate(results.rated_samples(key))}
    document = submission(key, lambda sample, aspect: grade[sample])
    write_page_csv(document, tmp_path / "sent.csv")
    ratings, notes = results.read_results(tmp_path, key)
    assert not notes and len(ratings) == len(document["ratings"])
    assert all(row.rating == grade[row.sample] for row in ratings.itertuples())
    assert all(row.system == key["samples"][row.sample]["system"] for row in ratings.itertuples())
    results.save(document, tmp_path)
    both, notes = results.read_results(tmp_path, key)
    assert len(both) == len(ratings) and notes == ["12 ratings were sent more than once and count once."]


def lms_lines(key, listener, rating, aspects=None, sends=1, training=True):
    """The lines that webMUSHRA's write.php adds: each send again puts the listener's name in once more."""
    samples = key["samples"] if training else results.rated_samples(key)
    for send in range(1, sends + 1):
        for aspect, (name, sample) in itertools.product(aspects or key["aspects"], samples.items()):
            names = [listener] * send
            yield [f"{key['id']}_{aspect}", *names, sample["item"], f" {rating} ", name, 12_345]


def write_lms(path, lines, header=("session_test_id", "participant_id")):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([[*header, *results.WEBMUSHRA_COLUMNS], *lines])


def test_listening_webmushra_results(key, tmp_path):
    anna, ben = lms_lines(key, "anna", 4, sends=2), list(lms_lines(key, "ben", 2, training=False))
    ben[0][-3] = " NA "
    nobody = list(lms_lines(key, " ", 3, ["artifacts"], training=False))
    other = [["somebody-elses-test", "cleo", "page1", " 3 ", "C1", 1]]
    write_lms(tmp_path / "listening" / "lms.csv", [*anna, *ben, *nobody, *other])
    ratings, notes = results.read_results(tmp_path, key)
    assert len(ratings[ratings.listener == "anna"]) == 12 and set(ratings.rating) == {2, 4}
    assert set(ratings["sample"]) == set(results.rated_samples(key))
    assert set(ratings[ratings.listener == "ben"].aspect) == set(key["aspects"][1:])
    said = " ".join(notes)
    assert '1 ratings are missing ("NA")' in said and "12 ratings were sent more than once" in said
    assert "ben rated 3 of 4 samples on intelligibility; that listener is left out there." in said
    assert "1 x a rating of another test." in said and "4 x a rating without participant_id." in said


def test_listening_webmushra_with_session_numbers_and_a_second_try(key, tmp_path):
    first, second = lms_lines(key, "anna", 5), lms_lines(key, "anna", 1)
    lines = [[*line[:2], "uuid", *line[2:]] for line in [*first, *second]]
    write_lms(tmp_path / "lms.csv", lines, ("session_test_id", "participant_id", "session_uuid"))
    ratings, notes = results.read_results(tmp_path, key)
    assert set(ratings.rating) == {5} and notes == [
        "12 ratings differ from an earlier one of the same listener; that counts."
    ]


@pytest.mark.parametrize(
    "spoil, sentence",
    [
        (lambda line: line[:-4] + ["item", " 9 ", *line[-2:]], "lms.csv: the rating '9' is not 1 to 5"),
        (lambda line: [*line[:-2], "C1", 1], "no sample 'C1'"),
        (lambda line: [line[0] + "x", *line[1:]], "no aspect 'intelligibilityx'"),
        (lambda line: line[:3], "a line has 3 fields"),
    ],
)
def test_listening_doctored_webmushra_results_are_refused(key, tmp_path, spoil, sentence):
    lines = list(lms_lines(key, "anna", 4))
    write_lms(tmp_path / "lms.csv", [spoil(lines[0]), *lines[1:]])
    with pytest.raises(InputError, match=sentence):
        results.read_results(tmp_path, key)


def test_listening_wrong_folders_are_one_sentence(package, key, tmp_path):
    for arguments, sentence in {
        ("analyse", "nowhere"): "nowhere is no folder",
        ("analyse", tmp_path): "key.json does not exist; name the test's key.json",
        ("analyse", tmp_path, "--key", package / "key.json"): "holds no complete ratings of the test",
        ("analyse", tmp_path, "--key", package / "page" / "test.json"): "is not the key",
        ("serve", tmp_path): "key.json does not exist",
        ("proxy", tmp_path): "key.json does not exist",
    }.items():
        with pytest.raises(SystemExit, match=f"^error: .*{sentence}"):
            command.main(list(map(str, arguments)))
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    for line in ("x,y,z", f"{key['id']},{'0' * 32},x,artifacts,{'9' * 5000}"):
        (tmp_path / "sent.csv").write_text(",".join(results.PAGE_COLUMNS) + f"\n{line}\n")
        with pytest.raises(InputError, match="sent.csv: a line is not"):
            results.read_results(tmp_path, key)


# -- the server ----------------------------------------------------------------------------------------------


class Server:
    """`python -m dmxlib.listening serve` on a free port, as a process of its own."""

    def __init__(self, folder):
        arguments = [sys.executable, "-m", "dmxlib.listening", "serve", str(folder), "--port", "0"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        self.process = subprocess.Popen(arguments, **pipes)
        self.url = re.search(r"http://[\d.]+:\d+", self.process.stdout.readline())[0]

    def get(self, path, **headers):
        return urllib.request.urlopen(urllib.request.Request(self.url + path, headers=headers), timeout=30)

    def post(self, document, kind="application/json", path="/results"):
        """(status, answer) of sending a document, or bytes as they are."""
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        request = urllib.request.Request(self.url + path, body, {"Content-Type": kind})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with contextlib.suppress(ConnectionError):  # it may hang up on what is too long
                return error.code, error.read().decode()
        except OSError:
            pass
        return None, ""


@pytest.fixture
def server(package):
    started = Server(package)
    yield started
    started.process.kill()
    started.process.communicate()  # closes the pipe as well
    for path in (package / "results").glob("*"):
        path.unlink()


def test_listening_server_accepts_what_it_expects_and_nothing_else(server, package, key):
    assert server.url.startswith("http://127.0.0.1:")
    assert b"<title>Listening test" in server.get("/").read()
    sample = next(iter(key["samples"]))
    with server.get(f"/audio/{sample}.wav", Range="bytes=0-3") as answer:
        assert answer.status == 206 and answer.read() == b"RIFF"
    for path in ("/key.json", "/../key.json", "/%2e%2e/key.json", "/audio/", "/results", "/results/x"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            server.get(path)
        assert refused.value.code in (403, 404, 405)

    saved = package / "results" / f"{'0' * 32}.json"
    for name in DOCTORED:
        assert server.post(DOCTORED[name](submission(key)))[0] == 400
    for body in (b"", b"{", b"\xff", b"[" * 100_000):
        assert server.post(body)[0] == 400
    assert server.post(submission(key), kind="text/plain")[0] == 415
    assert server.post(b"[" * 2_000_000)[0] != 200
    assert server.post(submission(key), path="/index.html")[0] == 405
    assert not saved.exists()

    assert server.post(submission(key)) == (200, {"saved": True})
    assert server.post(submission(key)) == (200, {"saved": True})  # an answer that got lost
    status, answer = server.post(submission(key, 5))
    assert status == 409 and "saved already" in answer
    assert json.loads(saved.read_text()) == submission(key)


def test_listening_server_killed_after_saving_loses_nothing(server, package, key):
    listeners = [f"{number:032x}" for number in range(5)]
    for listener in listeners:
        assert server.post(submission(key, listener=listener))[0] == 200
    server.process.send_signal(signal.SIGKILL)
    assert sorted(path.stem for path in (package / "results").iterdir()) == listeners
    ratings, notes = results.read_results(package / "results", key)
    assert ratings.listener.nunique() == 5 and not notes


def test_listening_server_says_where_it_cannot_save(server, package, key):
    shutil.rmtree(package / "results", ignore_errors=True)
    (package / "results").touch()  # a file where the folder should be
    status, answer = server.post(submission(key))
    (package / "results").unlink()
    assert status == 500 and "could not be saved" in answer
    assert server.post(submission(key))[0] == 200  # once that is mended the page's "Try again" works


def test_listening_server_says_where_its_port_is_taken(package):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with pytest.raises(SystemExit, match=f"^error: 127.0.0.1:{port} cannot be had"):
            command.main(["serve", str(package), "--port", port])


# -- the statistics ------------------------------------------------------------------------------------------

SYSTEMS = ("good", "fair", "poor")
PLAN = {  # a test of three systems and six items, without sounds
    "id": "listening-planned",
    "systems": list(SYSTEMS),
    "aspects": ["intelligibility", "artifacts"],
    "samples": {
        f"{system}{item}": {
            "system": system,
            "item": f"item{item}",
            "track": "song",
            "span": "",
            "training": item == 6,
        }
        for system in SYSTEMS
        for item in range(7)
    },
}


def expected_rating(quality, deviation):
    """The mean of a normal variable rounded to 1 to 5."""
    return 1 + sum(stats.norm.sf(step + 0.5, quality, deviation) for step in (1, 2, 3, 4))


def test_listening_coverage_of_the_interval(rng):
    """Over 4000 studies of 12 listeners the 95 % interval holds the truth 95 % of the time.

    One that takes each rating for an independent one does not.
    """
    studies, listeners, items = 4000, 12, 6
    offset = rng.normal(0, 0.6, (listeners, studies, 1))
    ratings = np.clip(np.round(3.2 + offset + rng.normal(0, 0.8, (listeners, studies, items))), 1, 5)
    truth = expected_rating(3.2, np.hypot(0.6, 0.8))

    def coverage(observations):
        mean, half = analyse.t_interval(observations)
        return np.mean(np.abs(mean - truth) <= half)

    assert 0.94 < coverage(ratings.mean(axis=2)) < 0.96
    assert coverage(ratings.transpose(0, 2, 1).reshape(-1, studies)) < 0.85


def test_listening_coverage_of_the_bootstrap(rng):
    """The percentile bootstrap covers somewhat less with few listeners: it only stands beside."""
    means = rng.normal(0, 1, (150, 20))
    intervals = np.array([analyse.bootstrap_interval(study) for study in means])
    covered = np.mean((intervals[:, 0] <= 0) & (0 <= intervals[:, 1]))
    assert 0.88 < covered < 0.97


def test_listening_interval_is_students(rng):
    values = rng.normal(3, 1, 9)
    mean, half = analyse.t_interval(values)
    low, high = stats.t.interval(0.95, 8, values.mean(), stats.sem(values))
    assert (mean - half, mean + half) == pytest.approx((low, high))
    assert (
        np.isnan(analyse.t_interval(values[:1])[1]) and np.isnan(analyse.bootstrap_interval(values[:1])).all()
    )


def test_listening_analysis_finds_known_means(rng):
    quality = {"good": 4.2, "fair": 3.0, "poor": 2.4}
    ratings = analyse.simulate(PLAN, quality, 40, rng)
    assert len(ratings) == 40 * 2 * 3 * 6 and ratings.rating.between(1, 5).all()
    scores = analyse.opinion_scores(ratings, PLAN)
    assert list(scores.system) == list(SYSTEMS) * 2 and set(scores.listeners) == {40}
    for row in scores.itertuples():
        truth = expected_rating(quality[row.system], np.hypot(0.5, 0.8))
        assert abs(row.mos - truth) < 2 * row.half_width < 0.6
        assert row.bootstrap_low < row.mos < row.bootstrap_high
        assert row.bootstrap_high - row.bootstrap_low == pytest.approx(2 * row.half_width, rel=0.2)
    tests = analyse.comparisons(ratings, PLAN)
    assert len(tests) == 2 * (1 + 3) and (tests.p < 0.01).all()
    assert (tests.p_holm.dropna() >= tests.p[tests.p_holm.notna()]).all()


def test_listening_mean_is_over_listeners_of_their_means():
    """A listener counts once, whatever the others do."""
    rows = [("a", "i", "good", 5), ("a", "j", "good", 4), ("b", "i", "good", 1), ("b", "j", "good", 2)]
    ratings = pandas.DataFrame(rows, columns=["listener", "item", "system", "rating"]).assign(
        aspect="artifacts"
    )
    (row,) = analyse.opinion_scores(ratings, {**PLAN, "systems": ["good"]}).itertuples()
    assert row.mos == 3 and row.half_width == pytest.approx(stats.t.ppf(0.975, 1) * 1.5)


def test_listening_equal_systems_rarely_differ(rng):
    """Of 60 studies without any difference Holm lets about three find one."""
    key = {**PLAN, "aspects": ["artifacts"]}
    found = 0
    for _ in range(60):
        tests = analyse.comparisons(analyse.simulate(key, dict.fromkeys(SYSTEMS, 3.0), 14, rng), key)
        found += (tests.p_holm < 0.05).any()
    assert found <= 7


def test_listening_holm():
    assert analyse.holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert analyse.holm(np.array([0.9, 0.8])).max() == 1
    assert analyse.wilcoxon(np.zeros(5)) == 1


def test_listening_agreement_is_one_for_one_opinion_and_names_the_odd_one_out(rng):
    ratings = analyse.simulate(PLAN, {"good": 5, "fair": 3, "poor": 1}, 6, rng, spread=0, noise=0)
    (kendall,) = set(analyse.agreement(ratings).kendall_w.round(6))
    assert kendall == 1
    odd = ratings.listener == "simulated-003"
    ratings.loc[odd, "rating"] = 6 - ratings.loc[odd, "rating"]
    fit = analyse.agreement(ratings)
    assert set(fit.least_listener) == {"simulated-003"} and fit.least_spearman.max() == pytest.approx(-1)
    assert (fit.kendall_w < 0.6).all()
    noise = analyse.agreement(analyse.simulate(PLAN, dict.fromkeys(SYSTEMS, 3), 6, rng, spread=0, noise=1.5))
    assert (noise.kendall_w < 0.5).all()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("listeners", [1, 2])
def test_listening_few_or_flat_listeners_end_in_a_table(listeners, tmp_path, rng):
    ratings = analyse.simulate(PLAN, dict.fromkeys(SYSTEMS, 3.0), listeners, rng, spread=0, noise=0)
    text = analyse.report(ratings, PLAN, [], tmp_path)
    assert "| good | 3.00 ±" in text and "Nothing." in text and "None." in text


def test_listening_analyse_writes_table_three(package, key, tmp_path, capsys):
    good = {name for name, sample in key["samples"].items() if sample["system"] == "broad"}
    for listener in range(4):
        document = submission(key, lambda sample, aspect: 5 if sample in good else 2, f"{listener:032x}")
        results.save(document, tmp_path / "results")
    write_lms(tmp_path / "results" / "webmushra" / "lms.csv", lms_lines(key, "anna", 4, ["artifacts"]))
    arguments = ["--key", package / "key.json", "--output_dir", tmp_path / "out"]
    command.main(list(map(str, ["analyse", tmp_path / "results", *arguments])))
    text = capsys.readouterr().out
    assert "| system | intelligibility | interference | artifacts |" in text and "5 listeners" in text
    assert "| broad | 5.00 ± 0.00 (5.00 to 5.00) |" in text and "4.80 ± 0.56" in text
    assert (tmp_path / "out" / "table3.md").read_text().strip() == text.strip()
    assert len(pandas.read_csv(tmp_path / "out" / "ratings.csv")) == 4 * 12 + 4
    assert (tmp_path / "out" / "mos.png").stat().st_size > 5000
    tests = pandas.read_csv(tmp_path / "out" / "comparisons.csv")
    assert list(tests.test) == ["Wilcoxon"] * 3  # two systems: Friedman's test wants three


def test_listening_proxy_is_named_so(package, key, monkeypatch, capsys):
    monkeypatch.setattr(metrics, "dnsmos", lambda wave, rate: {"sig": 1 + wave.shape[1] / rate, "bak": 3.0})
    command.main(["proxy", str(package)])
    text = capsys.readouterr().out
    assert text.startswith("# Proxy, not listeners: DNSMOS") and "| broad | 2.20 | 3.00 |" in text
    scores = pandas.read_csv(package / "dnsmos.csv")
    assert len(scores) == 4 and set(scores.system) == set(BANDS)


# -- the page, in a real browser -----------------------------------------------------------------------------

needs_chromium = pytest.mark.skipif(
    not browser.INSTALLED,
    reason="chromium and chromedriver are not installed; `make test-browser` installs them",
)
QUESTION = "return document.querySelector('h1').textContent"
STATE = "return JSON.parse(localStorage[localStorage.key(0)])"


def set_volume(window):
    window.click(".play")
    window.wait("return document.querySelector('.heard.yes')")
    window.click("#next")


def listen(window, card):
    """Play a card's sample to its end."""
    assert window.run("return document.querySelector(arguments[0]).disabled", f"{card} fieldset")
    window.click(f"{card} .play")
    window.wait("return !document.querySelector(arguments[0]).disabled", f"{card} fieldset")


def answer(window, grades, listened=False):
    """Rate each sample of the page by `grades`, a function of its name; the first one from the keyboard."""
    names = window.run(
        "return [...document.querySelectorAll('.samples fieldset')].map(f => f.elements[0].name)"
    )
    for number, name in enumerate(names, 1):
        card = f".samples .card:nth-child({number})"
        if not listened:
            listen(window, card)
        if number == 1:
            window.run("document.querySelector(arguments[0]).focus()", f"{card} .play")
            window.press(str(grades(name)))
        else:
            window.click(f"{card} input[value='{grades(name)}']")
    return names


@needs_chromium
def test_listening_browser_walks_a_listener_through(server, package, key, tmp_path):
    broad = {name for name, sample in key["samples"].items() if sample["system"] == "broad"}

    def grades(name):
        return 5 if name in broad else 2

    with browser.Browser(tmp_path / "profile", 1280, 900) as window:
        window.open(server.url)
        window.wait("return document.querySelector('h1')")
        window.click("#next")  # without consent
        assert "tick the box" in window.run("return document.getElementById('status').textContent")
        window.press(" ")  # the box has the focus
        window.click("#next")
        assert window.run(QUESTION) == "Set the volume"
        window.click("#next")  # without having listened
        assert "play the song first" in window.run("return document.getElementById('status').textContent")
        set_volume(window)

        questions, rated = [], []
        for page in range(9):  # practice and two items, three questions each
            questions.append(window.run(QUESTION))
            assert window.run("return document.activeElement.tagName") == "H1"
            if page == 0:
                window.click("#next")  # nothing rated yet
                status = window.run("return document.getElementById('status').textContent")
                assert status == "Still to be rated: A, B." and window.run(QUESTION) == questions[0]
                assert window.run("return document.activeElement.ariaLabel") == "Play Sample A"
            rated.append(answer(window, grades, listened=page % 3 > 0))
            if page == 4:  # in the middle of an item, rated but not gone on
                before = window.run(STATE)
                window.reload()
                window.wait("return document.querySelector('.samples')")
                assert window.run(STATE) == before and window.run(QUESTION) == questions[-1]
                checked = window.run(
                    "return [...document.querySelectorAll(':checked')].map(i => [i.name, +i.value])"
                )
                assert dict(checked) == {name: grades(name) for name in rated[-1]}
            last = "Finish and send" if page == 8 else "Next"
            assert window.run("return document.getElementById('next').textContent") == last
            window.click("#next")
        assert questions == [aspect.question for aspect in make.ASPECTS] * 3  # intelligibility first
        assert rated[0] == rated[1] == rated[2] and set(rated[3]) != set(rated[6])
        window.wait("return document.querySelector('.outcome').textContent.includes('are saved')")
        state, errors = window.run(STATE), window.log()
        requests = window.run("return performance.getEntriesByType('resource').map(entry => entry.name)")
        window.reload()  # does not send again
        window.wait("return document.querySelector('.outcome').textContent.includes('are saved')")

    assert not errors and all(url.startswith(server.url) for url in requests)
    (path,) = (package / "results").iterdir()
    assert path.stem == state["listener"]
    ratings, notes = results.read_results(package / "results", key)
    assert not notes and len(ratings) == 12
    assert all(row.rating == (5 if row.system == "broad" else 2) for row in ratings.itertuples())


@needs_chromium
def test_listening_browser_on_a_phone_without_a_server_to_save(package, key, tmp_path):
    """On a plain web server, at a phone's width: nothing sticks out, and the ratings can be downloaded."""
    arguments = ["-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(package / "page")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    process = subprocess.Popen([sys.executable, "-u", *arguments], **pipes)
    try:
        url = re.search(r"http://[\d.:]+", process.stdout.readline())[0]
        with browser.Browser(tmp_path / "profile", 390, 844) as window:
            window.open(url)
            window.wait("return document.querySelector('h1')")
            fits = "return document.documentElement.scrollWidth <= 390"
            assert window.run(fits)
            # A browser that keeps nothing says so.
            window.run("Storage.prototype.setItem = () => { throw new Error('full') }")
            window.click("#agree")
            window.click("#next")
            assert not window.run("return document.getElementById('warning').hidden") and window.run(fits)
            window.reload()
            window.wait("return document.getElementById('agree')")
            # A listener who has rated everything, as an earlier visit left it.
            document = submission(key, 4)
            ratings = {rating["sample"]: dict.fromkeys(key["aspects"], 4) for rating in document["ratings"]}
            window.click("#agree")
            window.click("#next")
            set_volume(window)
            assert window.run(fits) and len(window.run("return [...document.querySelectorAll('.play')]")) == 3
            window.run(
                "const state = JSON.parse(localStorage[arguments[0]]);"
                "localStorage[arguments[0]] = JSON.stringify({...state, ratings: arguments[1], page: 11})",
                key["id"],
                ratings,
            )
            window.reload()
            window.wait("return document.querySelector('.outcome')?.textContent.includes('takes no ratings')")
            assert window.run(fits)
            folder = {"behavior": "allow", "downloadPath": str(tmp_path)}
            command = {"cmd": "Page.setDownloadBehavior", "params": folder}
            window.call("POST", "/goog/cdp/execute", command)
            window.click("#download")
            name = f"{window.run(STATE)['listener']}.csv"
            end = time.monotonic() + 30
            while not (tmp_path / name).exists() and time.monotonic() < end:
                time.sleep(0.05)
    finally:
        process.kill()
        process.communicate()
    (tmp_path / "sent").mkdir()
    (tmp_path / name).rename(tmp_path / "sent" / name)
    sent, notes = results.read_results(tmp_path / "sent", key)
    assert not notes and set(sent.rating) == {4} and len(sent) == 12
