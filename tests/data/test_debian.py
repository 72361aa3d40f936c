"""The open corpus: packages that the test builds are fetched, cleaned, split and read as a data set."""

import os
import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

from dmxlib import audio, data
from dmxlib.data.__main__ import main
from dmxlib.data.sets import debian, voice
from dmxlib.data.sets.debian import Package

RATE = 44_100
pytestmark = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is on Debian alone")

COPYRIGHT = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Source: https://example.org/{name}

Files: *
License: GPL-2+

Files: debian/*
License: CC0-1.0
"""


def word(seconds, frequency=200, level=0.3, silence=0.4, rate=RATE):
    """(1, samples): a harmonic tone between two silences, over a hum of 20 Hz."""
    time = np.arange(round((seconds + 2 * silence) * rate)) / rate
    spoken = (time > silence) & (time < silence + seconds)
    tone = sum(np.sin(2 * np.pi * k * frequency * time) / k for k in range(1, 6))
    return (level * spoken * tone / 3 + 0.001 * np.sin(40 * np.pi * time))[None]


def piece(seconds, rng, channels=2, rate=RATE):
    return 0.1 * rng.uniform(-1, 1, (channels, round(seconds * rate)))


def write(path, wave, rate=RATE):
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, wave.T, rate)


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """Adds packages to a folder that stands for the archive: apt's two commands look there."""
    pool, commands = tmp_path / "pool", tmp_path / "bin"
    pool.mkdir()
    commands.mkdir()
    scripts = {
        "apt-cache": f'ls {pool} | sed "s/_.*/ - a package/" | grep -E "$(echo "$3" | sed s/.$//) "',
        "apt-get": f'echo "$4" >> {pool}.log; cp {pool}/"$4"_* . || exit 100',
    }
    for name, script in scripts.items():
        (commands / name).write_text(f"#!/bin/sh\n{script}\ntrue\n")
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")

    def build(name, files):
        tree = tmp_path / "build" / name
        for path, wave in files.items():
            write(tree / "usr/share" / path, wave)
        for path, text in {
            f"usr/share/doc/{name}/copyright": COPYRIGHT.format(name=name),
            "DEBIAN/control": f"Package: {name}\nVersion: 2:1.5-1\nArchitecture: all\n"
            "Maintainer: nobody <nobody@example.org>\nDescription: a test\n",
        }.items():
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_text(text)
        command = [
            "dpkg-deb",
            "--root-owner-group",
            "-Znone",
            "--build",
            tree,
            pool / f"{name}_1.5-1_all.deb",
        ]
        subprocess.run(command, check=True, capture_output=True)

    build.downloads = tmp_path / "pool.log"
    return build


@pytest.fixture
def corpus(archive, monkeypatch, rng):
    """Packages of two speakers and of pieces for each split, one of them missing; short pieces are enough."""
    monkeypatch.setattr(debian, "SHORTEST_VOICE_SECONDS", 1.0)
    monkeypatch.setattr(debian, "SHORTEST_PIECE_SECONDS", 1.0)
    monkeypatch.setattr(debian, "EXCERPT_SECONDS", 2.0)
    monkeypatch.setattr(debian, "SONG_SECONDS", 1.5)
    monkeypatch.setattr(debian, "LANGUAGES", {"valid": ("el",), "test": ("de",)})
    monkeypatch.setattr(debian, "EXCLUDED", ["/choir"])
    voices = r".*/(?P<language>[a-z]{2})/(?P<speaker>\w)_.*"
    packages = [Package("speakers", voices=voices), Package("gone", music=".*")]
    packages += [Package(f"game-[0-9.]+-{split}", music=r".*/music/.*", split=split) for split in data.SPLITS]
    monkeypatch.setattr(debian, "PACKAGES", packages)
    files = {
        f"speakers/{language}/a_{i}.ogg": word(0.5 + 0.1 * i)
        for language in ("fr", "el", "de")
        for i in (0, 1, 2)
    }
    files["speakers/fr/b_0.wav"] = word(1.2, 300, level=0.02)
    files["speakers/fr/c_0.wav"] = word(0.4, 300)  # too little of a speaker
    archive("speakers", files)
    for split in data.SPLITS:
        files = {
            "game/music/long.ogg": piece(5, rng),
            "game/music/short.ogg": piece(0.5, rng),
            "game/music/choir.ogg": piece(2, rng),
            "game/sounds/bang.ogg": piece(2, rng),
            "doc/notes.wav": piece(2, rng, channels=1),
        }
        archive(f"game-1.2-{split}", files)
    return archive


def prepare(folder, **options):
    data.prepare("debian", folder, quiet=True, **options)


def test_the_corpus_end_to_end(corpus, tmp_path, capsys):
    prepare(tmp_path / "ready")
    root = tmp_path / "ready"
    assert "gone" in capsys.readouterr().err
    names = {split: [track.name for track in data.load_sources(root, split)] for split in data.SPLITS}
    assert names == {
        "train": ["speakers-fr-a", "speakers-fr-b", "game-1.2-train-music-long"],
        "valid": ["speakers-el-a", "game-1.2-valid-music-long"],
        "test": ["speakers-de-a", "game-1.2-test-music-long"],
    }
    for split, voices in (("train", 2), ("valid", 1), ("test", 1)):
        songs = data.load_tracks(root, split)
        assert [song.name for song in songs] == names[split][:voices]
        for song in songs:
            assert song.rate == RATE and 1 < song.samples / RATE <= 1.5
            assert audio.level_dbfs(song.vocals()) > -40
            assert audio.level_dbfs(song.mixture() - song.vocals()) > -40
    table = pd.read_csv(root / "manifest.csv")
    sources = [path.relative_to(root).as_posix() for path in root.glob("*/*/*-*.flac")]
    assert sorted(table.file) == sorted(sources) and set(table.version) == {"2:1.5-1"}
    assert table.set_index("file").files["train/voices/speakers-fr-a.flac"] == 3
    text = (root / "LICENSES.md").read_text()
    assert re.search(
        r"\| speakers \| 2:1.5-1 \| https://example.org/speakers \| 0.2 \| 0.0 \| CC0-1.0, GPL-2\+ \|", text
    )
    assert (root / "packages/speakers/copyright").read_text() == COPYRIGHT.format(name="speakers")
    assert not (root / ".cache").exists()


def test_it_is_resumed(corpus, tmp_path, rng):
    root = tmp_path / "ready"
    prepare(root)
    times = {path: path.stat().st_mtime_ns for path in root.glob("*/*/*.flac")}
    before = corpus.downloads.read_text().split()
    corpus("gone", {"music/found.ogg": piece(2, rng)})
    record = root / "packages/speakers/manifest.csv"  # as if it had been broken off there
    record.unlink()
    gone = root / "train/voices/speakers-fr-b.flac"
    gone.unlink()
    prepare(root)
    assert corpus.downloads.read_text().split()[len(before) :] == ["speakers", "gone"]
    assert gone.exists() and record.exists() and (root / "train/music/gone-music-found.flac").exists()
    assert all(path.stat().st_mtime_ns == time for path, time in times.items() if path != gone)


def test_voices_are_cleaned(tmp_path):
    write(tmp_path / "quiet.wav", word(1.0, level=0.02))
    write(tmp_path / "narrow.wav", word(1.0, rate=8000), 8000)
    write(tmp_path / "silent.wav", np.zeros((1, RATE)))
    write(tmp_path / "click.wav", word(0.1))
    (tmp_path / "damaged.wav").write_text("no audio")
    clean = voice.clean(tmp_path / "quiet.wav")
    assert clean.shape[0] == 1 and 1.0 <= clean.shape[1] / RATE < 1.15
    assert audio.level_dbfs(clean[:, 4000:-4000]) == pytest.approx(voice.VOICE_DBFS, abs=0.5)
    for name in ("narrow", "silent", "click", "damaged"):
        assert voice.clean(tmp_path / f"{name}.wav") is None


def test_pieces_are_cut_out_of_the_middle(tmp_path, monkeypatch, rng):
    monkeypatch.setattr(debian, "EXCERPT_SECONDS", 2.0)
    monkeypatch.setattr(debian, "SHORTEST_PIECE_SECONDS", 1.0)
    wave = piece(6, rng, rate=48_000)
    wave[:, : 48_000 * 2] = wave[:, 48_000 * 4 :] = 0.5
    write(tmp_path / "piece.flac", wave, 48_000)
    assert debian.write_piece(tmp_path / "out.flac", tmp_path / "piece.flac") == pytest.approx(2, abs=1e-3)
    cut, rate = audio.read(tmp_path / "out.flac")
    assert rate == RATE and audio.level_dbfs(cut) == pytest.approx(debian.MUSIC_DBFS, abs=0.1)
    assert abs(cut[:, 1000:-1000].mean()) < 0.01


def test_no_package_at_all(archive, tmp_path):
    with pytest.raises(SystemExit) as exit:
        main(["prepare", "debian", str(tmp_path / "ready")])
    assert "apt-get update" in exit.value.code and "\n" not in exit.value.code


def test_no_speaker_and_no_package_in_two_splits():
    languages = [language for split in debian.LANGUAGES.values() for language in split]
    assert len(languages) == len(set(languages))
    for package in debian.PACKAGES:
        assert package.voices or package.music
        assert package.split in data.SPLITS and re.compile(package.voices) and re.compile(package.music)
    assert {package.split for package in debian.PACKAGES if package.music} == set(data.SPLITS)


def test_sung_copies_lie_beside_the_spoken(corpus, tmp_path):
    pytest.importorskip("pyworld")
    root = tmp_path / "ready"
    prepare(root, sing=True)
    voices = [path.name for path in sorted((root / "train/voices").iterdir())]
    assert voices == [f"speakers-fr-{speaker}{kind}.flac" for speaker in "ab" for kind in ("", ".sung")]
    assert len(data.load_tracks(root, "train")) == 2  # songs are spoken
