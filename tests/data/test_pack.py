"""A pack is small, and read as the data set it was made of."""

import json

import numpy as np
import pytest
import soundfile as sf
from test_data import tone, write_track

from dmxlib import audio, data
from dmxlib.data import tracks
from dmxlib.data.__main__ import main
from dmxlib.errors import InputError


def voice_like(rng, seconds, rate):
    """(2, samples): other noise on each channel, under 2 kHz."""
    noise = rng.standard_normal((2, round(seconds * 4000))).astype(np.float32)
    return audio.fit(0.1 * audio.resample(noise, 4000, rate), round(seconds * rate))


@pytest.fixture
def songs(tmp_path, rng):
    """Two stereo songs at 44.1 kHz and a mono one at 16 kHz to train on, one to validate on."""
    root = tmp_path / "songs"
    for name, seconds in (("a", 3), ("b", 2)):
        sources = (voice_like(rng, seconds, 44_100) for _ in range(2))
        write_track(root / "train" / name, *sources, 44_100)
    mono = (np.repeat(voice_like(rng, 2, 16_000)[:1], 2, axis=0) for _ in range(2))
    write_track(root / "train" / "c", *mono, 16_000)
    write_track(root / "valid" / "d", *(voice_like(rng, 2, 16_000) for _ in range(2)), 16_000)
    write_track(root / "test" / "e", *(voice_like(rng, 2, 16_000) for _ in range(2)), 16_000)
    return root


def sdr(wave, coded):
    return 10 * np.log10(np.square(wave).sum() / np.square(wave - coded).sum())


def packed(root, tmp_path, *flags):
    main(["pack", str(root), str(tmp_path / "packs"), *flags])
    return tmp_path / "packs" / root.name


def test_songs_come_back_as_they_were(songs, tmp_path):
    folder = packed(songs, tmp_path, "--size", "1MB")
    assert sum(path.stat().st_size for path in folder.iterdir()) < 1e6
    assert len(list(folder.glob("*.opus"))) == 6  # of three kinds of songs
    for split, names in (("train", "abc"), ("valid", "d")):
        originals, copies = data.load_tracks(songs, split), data.load_tracks(folder, split)
        assert [track.name for track in copies] == list(names)
        for original, copy in zip(originals, copies, strict=True):
            rate = copy.rate
            assert rate == {44_100: 48_000, 16_000: 16_000}[original.rate]
            for read in ("vocals", "mixture"):
                wave = audio.resample(getattr(original, read)(), original.rate, rate)
                coded = getattr(copy, read)()
                assert coded.shape == wave.shape and sdr(wave, coded) > 20
                excerpt = getattr(copy, read)(rate // 2, rate // 4)
                assert np.abs(excerpt - coded[:, rate // 2 : rate // 2 + rate // 4]).max() < 0.01
    with pytest.raises(InputError, match="no tracks for 'test'"):
        data.load_tracks(folder, "test")


def test_a_loop_of_links_is_told(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(SystemExit, match="^error: [^\n]*loop holds no tracks[^\n]*$"):
        main(["pack", str(tmp_path / "loop"), str(tmp_path / "out")])


def test_a_pack_is_trained_and_validated_on(songs, tmp_path):
    folder = packed(songs, tmp_path, "--size", "1MB", "--mono")
    (kept,), (held,) = data.training_tracks(folder, 1)
    assert [track.name for track in kept] == ["a", "b", "c"] and [track.name for track in held] == ["d"]
    assert all(np.array_equal(*track.mixture(0, 100)) for track in kept)
    cut, ends = data.hold_out(kept, 0.5)
    assert all(isinstance(track, tracks.PackedTrack) for track in (*cut, *ends))
    assert [round(track.samples / track.rate, 2) for track in (*cut, *ends)] == [2.5, 1.5, 1.5, 0.5, 0.5, 0.5]
    assert all(sf.info(path).channels == 1 for path in folder.glob("*.opus"))


def test_voices_and_pieces_apart(tmp_path):
    root = tmp_path / "apart"
    for kind, frequency in (("voices", 440), ("music", 1500)):
        audio.write(
            root / "train" / kind / f"{frequency}.flac", np.float32(tone(frequency, 2, 16_000)), 16_000
        )
    folder = packed(root, tmp_path)
    voice, music = data.load_sources(folder, "train")
    assert voice.has_vocals and not voice.has_accompaniment and voice.vocals().any()
    assert not music.has_vocals and music.has_accompaniment and not music.vocals().any()
    assert len(json.loads((folder / tracks.PACK).read_text())) == 2


def test_without_opus_it_is_flac(songs, tmp_path, monkeypatch):
    monkeypatch.setattr(sf, "available_subtypes", lambda _: {"VORBIS": ""})
    folder = packed(songs, tmp_path)
    originals, copies = data.load_tracks(songs, "valid"), data.load_tracks(folder, "valid")
    assert np.abs(originals[0].mixture() - copies[0].mixture()).max() < 1e-4


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--size", "0.01MB"], "kbit/s"),
        (["--size", "nan"], "kbit/s"),
        ([], "written twice"),
        (["--size", "big"], "big"),
    ],
)
def test_what_cannot_be_packed(songs, tmp_path, capsys, flags, words):
    if not flags:
        (tmp_path / "packs" / "songs").mkdir(parents=True)
    with pytest.raises(SystemExit) as exit:
        packed(songs, tmp_path, *flags)
    message = exit.value.code if isinstance(exit.value.code, str) else capsys.readouterr().err
    assert words in message and "Traceback" not in message
