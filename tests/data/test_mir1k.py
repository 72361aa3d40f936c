"""MIR-1K's clips become songs, split by singer or as the published benchmark is; a bad clip is named."""

import collections

import numpy as np
import pytest
import soundfile as sf

from dmxlib import audio, data
from dmxlib.data.__main__ import main
from dmxlib.data.sets import mir1k
from dmxlib.errors import InputError

RATE, SECONDS = 16_000, 0.5
FADE = round(mir1k.FADE_SECONDS * RATE)


def sine(frequency, seconds=SECONDS, rate=RATE):
    return np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


@pytest.fixture
def write_clip(tmp_path):
    """Write a clip into the clone: a voice over an accompaniment, both (samples,)."""

    def write(name, voice, accompaniment, rate=RATE, subtype="PCM_16"):
        path = tmp_path / "clone" / "dataset" / "mir-1k" / "Wavfile" / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        sf.write(path, np.stack([accompaniment, voice], axis=1), rate, subtype)
        return path

    return write


@pytest.fixture
def clone(tmp_path, write_clip):
    """Clips of four singers, of 300 Hz over 1 kHz."""
    for name in ("Ani_1_01", "ariel_1_01", "leon_2_01", "leon_10_01", "amy_9_07", "amy_9_08", "abjones_5_09"):
        write_clip(name, 0.1 * sine(300), 0.3 * sine(1000))
    return tmp_path / "clone"


def prepare(clone, folder, split="singers"):
    data.prepare("mir-1k", folder, clone, split=split, quiet=True)
    return {
        path.parent.relative_to(folder).as_posix(): path.parent
        for path in sorted(folder.rglob("mixture.flac"))
    }


def read(folder):
    """(voice, accompaniment) of a song, each (samples,)."""
    track = data.folder_track(folder)
    assert track.rate == RATE
    vocals, mixture = track.vocals()[0], track.mixture()[0]
    return vocals, mixture - vocals


def strength(wave, frequency):
    """Amplitude of a sine in (samples,)."""
    return 2 * np.abs(np.vdot(np.exp(2j * np.pi * frequency * np.arange(len(wave)) / RATE), wave)) / len(wave)


def test_every_singer_is_in_one_split():
    assert len(mir1k.CLIPS) == len(mir1k.BY_SINGER) == 19 and sum(mir1k.CLIPS.values()) == 1000
    singers = collections.defaultdict(set)
    for singer, split in mir1k.BY_SINGER.items():
        singers[split].add(singer)
    assert singers["test"] == {"Ani", "annar", "bug", "khair", "titon", "yifen"}
    assert singers["valid"] == {"ariel", "heycat"} and len(singers["train"]) == 11


def test_songs_by_singer(clone, tmp_path):
    songs = prepare(clone, tmp_path / "songs")
    assert [*songs] == [
        "test/Ani_1", "train/abjones_5", "train/amy_9", "train/leon_10", "train/leon_2", "valid/ariel_1",
    ]  # fmt: skip


def test_the_left_channel_is_the_accompaniment_and_the_right_one_the_voice(clone, tmp_path):
    voice, accompaniment = read(prepare(clone, tmp_path / "songs")["test/Ani_1"])
    assert strength(voice, 300) == pytest.approx(0.1, abs=1e-3) and strength(voice, 1000) < 1e-3
    assert strength(accompaniment, 1000) == pytest.approx(0.3, abs=1e-3)
    assert strength(accompaniment, 300) < 1e-3


def test_clips_are_joined_in_the_order_of_their_numbers(write_clip, tmp_path):
    frequencies = {"bug_1_02": 200, "bug_1_9": 400, "bug_1_10": 800}
    for name, frequency in frequencies.items():
        write_clip(name, 0.2 * sine(frequency), 0.1 * sine(1500))
    voice, _ = read(prepare(tmp_path / "clone", tmp_path / "songs")["test/bug_1"])
    clip = round(SECONDS * RATE)
    assert len(voice) == 3 * clip - 2 * FADE
    for start, frequency in zip(range(0, len(voice), clip - FADE), frequencies.values(), strict=False):
        inside = voice[start + FADE : start + clip - FADE]
        assert strength(inside, frequency) == pytest.approx(0.2, rel=0.02)


def test_a_clip_fades_into_the_next(write_clip, tmp_path):
    level = np.full(round(SECONDS * RATE), 0.25)
    write_clip("bug_1_01", level, level)
    write_clip("bug_1_02", -level, level)
    voice, accompaniment = read(prepare(tmp_path / "clone", tmp_path / "songs")["test/bug_1"])
    fade = voice[len(level) - FADE : len(level)]
    assert np.allclose(fade, 0.25 - 0.5 * (np.arange(FADE) + 0.5) / FADE, atol=1e-4)
    assert np.allclose(accompaniment, 0.25, atol=1e-4)  # and so the fades add up to one


def test_a_mixture_that_passes_1_is_divided_by_its_peak(write_clip, tmp_path):
    write_clip("bug_1_01", 0.8 * sine(300), 0.8 * sine(300))
    folder = prepare(tmp_path / "clone", tmp_path / "songs")["test/bug_1"]
    track = data.folder_track(folder)
    assert np.abs(track.mixture()).max() == pytest.approx(1, abs=1e-4)
    assert np.abs(track.vocals()).max() == pytest.approx(0.5, abs=1e-4)


def test_huangs_split(clone, tmp_path):
    songs = prepare(clone, tmp_path / "songs", "huang")
    assert [*songs] == [
        "test/Ani_1_01", "test/ariel_1_01", "test/leon_10_01", "test/leon_2_01",
        "train/amy_9", "valid/abjones_5_09", "valid/amy_9_08",
    ]  # fmt: skip
    assert len(read(songs["train/amy_9"])[0]) == round(SECONDS * RATE)  # without the clip of valid
    for folder in songs.values():
        voice, accompaniment = read(folder)
        assert audio.level_dbfs(voice) == pytest.approx(audio.level_dbfs(accompaniment), abs=0.01)


def test_a_voice_that_is_silent_stays_so(write_clip, tmp_path):
    write_clip("bug_1_01", 0 * sine(300), 0.3 * sine(1000))
    voice, accompaniment = read(prepare(tmp_path / "clone", tmp_path / "songs", "huang")["test/bug_1_01"])
    assert not voice.any() and accompaniment.any()


def test_bad_clips_are_named_and_the_others_go_on(clone, write_clip, tmp_path, capsys):
    wave = sine(300)
    cut = write_clip("Ani_1_02", wave, wave)
    cut.write_bytes(cut.read_bytes()[:-100])
    write_clip("Ani_1_03", wave, wave, rate=44_100)
    write_clip("Ani_1_04", wave, wave, subtype="PCM_24")
    write_clip("Ani_1_05", wave, wave).write_bytes(b"")
    write_clip("Ani_1_06", wave, wave).write_bytes(b"<html>not found</html>")
    sf.write(cut.with_name("Ani_1_07.wav"), wave, RATE)
    songs = prepare(clone, tmp_path / "songs")
    assert len(read(songs["test/Ani_1"])[0]) == round(SECONDS * RATE)
    lines = capsys.readouterr().err.splitlines()
    for name, words in {
        "Ani_1_02": "cut short",
        "Ani_1_03": "44100 Hz",
        "Ani_1_04": "24 bit",
        "Ani_1_05": "no wav file",
        "Ani_1_06": "no wav file",
        "Ani_1_07": "1 channels",
    }.items():
        (line,) = [line for line in lines if line.startswith(name)]
        assert words in line
    assert "31 of the 38 clips of Ani are missing." in lines
    assert "8 of the 8 clips of tammy are missing." in lines


def test_no_clip_at_all_is_one_sentence(tmp_path):
    for source in (None, tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match="clone github.com/andabi/music-source-separation"):
            mir1k.songs(None, source, True)


def test_two_preparations_are_alike_and_a_song_that_is_there_stays(clone, tmp_path):
    first, second = (prepare(clone, tmp_path / name) for name in ("first", "second"))
    for name, folder in first.items():
        for path in folder.iterdir():
            assert path.read_bytes() == (second[name] / path.name).read_bytes()
    before = (first["test/Ani_1"] / "vocals.flac").stat().st_mtime_ns
    prepare(clone, tmp_path / "first")
    assert (first["test/Ani_1"] / "vocals.flac").stat().st_mtime_ns == before


@pytest.mark.parametrize("flags,song", [([], "train/amy_9"), (["--split", "huang"], "valid/amy_9_08")])
def test_command_line(clone, tmp_path, flags, song):
    folder = tmp_path / "songs"
    main(["prepare", "mir-1k", str(folder), "--source", str(clone), *flags])
    assert {path.name for path in (folder / song).iterdir()} == {"mixture.flac", "vocals.flac"}
