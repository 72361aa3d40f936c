"""Data sets are read lazily from every layout, prepared once, and turned into pairs that follow a seed."""

import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import soundfile as sf
import torch

from dmxlib import audio, data
from dmxlib.data.__main__ import main
from dmxlib.data.augment import AUGMENTATIONS
from dmxlib.data.preparation import SETS
from dmxlib.data.sets import toy
from dmxlib.errors import InputError
from dmxlib.reproduce import seeded_generator

needs_ffmpeg = pytest.mark.skipif(
    shutil.which("ffmpeg") is None, reason="ffmpeg, which musdb needs, is missing"
)


def tone(frequency, seconds, rate, amplitude=0.2):
    """(2, samples): a sine, the right channel at half the level."""
    return amplitude * np.outer(
        [1, 0.5], np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)
    )


def write_track(folder, vocals, accompaniment, rate, ending=".flac"):
    for stem, wave in (("mixture", vocals + accompaniment), ("vocals", vocals)):
        audio.write(folder / (stem + ending), wave.astype(np.float32), rate, "PCM_16")
    return data.Track(folder.name, folder / f"mixture{ending}", folder / f"vocals{ending}")


def spectral_peak(wave, rate):
    """Frequency in Hz of the strongest sine in (samples,)."""
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave)), 8 * len(wave)))
    return spectrum.argmax() * rate / (8 * len(wave))


def share(wave, frequency, rate):
    """Part of the energy of (samples,) within 20 Hz of a frequency."""
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave)))) ** 2
    near = np.abs(np.fft.rfftfreq(len(wave), 1 / rate) - frequency) < 20
    return spectrum[near].sum() / spectrum.sum()


@pytest.fixture
def sine_track(tmp_path):
    """3 s at 16 kHz: vocals of 440 Hz over an accompaniment of 1500 Hz."""
    return write_track(tmp_path / "sines", tone(440, 3, 16_000), tone(1500, 3, 16_000), 16_000)


# -- tracks --------------------------------------------------------------------------------------------------


def test_track_reads_excerpts(toy_root):
    track = data.load_tracks(toy_root, "test")[0]
    assert (track.name, track.rate, track.samples) == ("Toy Song 3", 44_100, 6 * 44_100)
    for read, stem in ((track.mixture, "mixture"), (track.vocals, "vocals")):
        whole = sf.read(toy_root / "test" / "Toy Song 3" / f"{stem}.wav", dtype="float32")[0].T
        assert np.array_equal(read(), whole)
        assert np.array_equal(read(1000), whole[:, 1000:])
        assert np.array_equal(read(1000, 500), whole[:, 1000:1500])
        assert np.array_equal(read(track.samples - 10, 500), whole[:, -10:])
        assert read(track.samples + 10).shape == (2, 0)


def test_part_of_a_track(toy_root):
    track = data.load_tracks(toy_root, "test")[0]
    part = replace(track, first=2000, last=5000)
    assert part.samples == 3000
    assert np.array_equal(part.mixture(), track.mixture(2000, 3000))
    assert np.array_equal(part.vocals(100, 99_999), track.vocals(2100, 2900))
    assert replace(track, first=2000).samples == track.samples - 2000


def test_hold_out_splits_in_time(toy_root):
    tracks = data.load_tracks(toy_root, "train")
    kept, held = data.hold_out(tracks, 1.5)
    for track, first, last in zip(tracks, kept, held, strict=True):
        assert last.samples == round(1.5 * 44_100) and first.samples + last.samples == track.samples
        assert np.array_equal(np.concatenate([first.vocals(), last.vocals()], axis=1), track.vocals())
    again, _ = data.hold_out(kept, 1)
    assert again[0].samples == kept[0].samples - 44_100


def test_hold_out_of_a_short_track(toy_root):
    with pytest.raises(InputError, match="Toy Song 0 is not longer than the 6"):
        data.hold_out(data.load_tracks(toy_root, "train"), 6)


@pytest.mark.parametrize("seconds, rate", [(2.9, 16_000), (3.1, 16_000), (3, 8000)])
def test_vocals_that_do_not_fit_the_mixture(sine_track, seconds, rate):
    audio.write(sine_track.vocals_path, tone(440, seconds, rate).astype(np.float32), rate)
    with pytest.raises(InputError, match=rf"{sine_track.vocals_path} differs in rate or length"):
        sine_track.vocals(0, 100)


def test_missing_file_of_a_track(sine_track):
    sine_track.vocals_path.unlink()
    with pytest.raises(InputError, match=rf"{sine_track.vocals_path} does not exist"):
        sine_track.samples  # noqa: B018


# -- folders -------------------------------------------------------------------------------------------------


def test_load_tracks_sorted_by_name(toy_root):
    assert [track.name for track in data.load_tracks(toy_root, "train")] == [
        f"Toy Song {i}" for i in range(3)
    ]
    assert [track.name for track in data.load_tracks(str(toy_root), "test")] == ["Toy Song 3"]


def test_load_tracks_of_a_folder_without_splits(sine_track, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "sines" / "cover.jpg").touch()
    assert data.load_tracks(tmp_path, "train") == [sine_track]


def test_root_without_tracks_shows_the_expected_tree(tmp_path, toy_root):
    (tmp_path / "train" / "song").mkdir(parents=True)
    (tmp_path / "file").touch()
    for root, split in (
        (tmp_path, "train"),
        (tmp_path / "none", "test"),
        (tmp_path / "file", "test"),
        (toy_root, "valid"),
    ):
        with pytest.raises(
            InputError, match=rf"{root} holds no .*{split}/<track>/mixture.wav and vocals.wav"
        ):
            data.load_tracks(root, split)


MUSDB = {
    "train": [
        "Actions - One Minute Smile",
        "Leaf - Summerghost",
        "Music Delta - Rock",
        "ANiMAL - Easy Tiger",
    ],
    "test": ["Al James - Schoolboy Facination", "Arise - Run Run Run"],
}


@pytest.fixture
def musdb_root(tmp_path, rng):
    """MUSDB18-HQ's layout, names and rate, the songs a twentieth of a second long."""
    for split, names in MUSDB.items():
        for name in names:
            stems = 0.1 * rng.uniform(-1, 1, (4, 2, 2205)).astype(np.float32)
            folder = tmp_path / "musdb18hq" / split / name
            audio.write(folder / "mixture.wav", stems.sum(0), 44_100)
            for stem, wave in zip(("vocals", "drums", "bass", "other"), stems, strict=True):
                audio.write(folder / f"{stem}.wav", wave, 44_100)
    return tmp_path / "musdb18hq"


def names(tracks):
    return [track.name for track in tracks]


@needs_ffmpeg
def test_musdb_by_its_own_splits(musdb_root):
    assert names(data.load_tracks(musdb_root, "train")) == sorted(MUSDB["train"][2:])
    assert names(data.load_tracks(musdb_root, "valid")) == sorted(MUSDB["train"][:2])
    tracks = data.load_tracks(musdb_root, "test")
    assert names(tracks) == sorted(MUSDB["test"])
    folder = musdb_root / "test" / MUSDB["test"][0]
    assert np.array_equal(tracks[0].vocals(), audio.read(folder / "vocals.wav")[0])
    assert np.array_equal(tracks[0].mixture(), audio.read(folder / "mixture.wav")[0])


@needs_ffmpeg
def test_musdb_without_a_split_or_with_a_wrong_one(musdb_root):
    shutil.rmtree(musdb_root / "test")
    for split in ("test", "training"):
        with pytest.raises(InputError, match="holds no tracks"):
            data.load_tracks(musdb_root, split)


@needs_ffmpeg
def test_prepared_musdb_keeps_its_validation_songs_apart(musdb_root, tmp_path):
    data.prepare("musdb18-hq", tmp_path / "ready", musdb_root, quiet=True)
    for split in ("train", "valid", "test"):
        originals, tracks = data.load_tracks(musdb_root, split), data.load_tracks(tmp_path / "ready", split)
        assert names(originals) == names(tracks)
        for original, track in zip(originals, tracks, strict=True):
            assert track.mixture_path.suffix == ".flac"
            assert np.array_equal(original.mixture(), track.mixture())
            assert np.array_equal(original.vocals(), track.vocals())


def test_a_name_of_musdb_alone_is_not_musdb(tmp_path):
    folder = tmp_path / "train" / MUSDB["train"][0]
    write_track(folder, tone(440, 0.1, 16_000), tone(1500, 0.1, 16_000), 16_000)
    assert names(data.load_tracks(tmp_path, "train")) == MUSDB["train"][:1]


# -- preparation ---------------------------------------------------------------------------------------------


rendered = []  # names of the songs of `counted`


def counted(*arguments):
    """The toy set's songs, which tell when they are rendered."""

    def load(song):
        rendered.append(song.name)
        return song.load()

    return [replace(song, load=partial(load, song)) for song in toy.songs(*arguments)]


@pytest.fixture
def quick_toy(monkeypatch):
    """A toy set of 0.3 s a song; the list of those that were rendered."""
    monkeypatch.setattr(toy, "SECONDS", 0.3)
    monkeypatch.setitem(SETS, "toy", f"{__name__}:counted")
    rendered.clear()
    return rendered


def test_prepare_writes_each_song_once(tmp_path, quick_toy):
    data.prepare("toy", tmp_path, quiet=True)
    assert quick_toy == [f"Toy Song {seed}" for seed in range(6)]
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert [len(data.load_tracks(tmp_path, split)) for split in ("train", "test")] == [4, 2] and len(
        files
    ) == 12
    times = [path.stat().st_mtime_ns for path in files]
    data.prepare("toy", tmp_path, quiet=True)
    assert [path.stat().st_mtime_ns for path in files] == times and len(quick_toy) == 6
    (tmp_path / "test" / "Toy Song 4" / "vocals.wav").unlink()
    data.prepare("toy", tmp_path, quiet=True)
    assert quick_toy[6:] == ["Toy Song 4"] and all(path.is_file() for path in files)


def test_prepare_toy_by_command(tmp_path, monkeypatch):
    monkeypatch.setattr(toy, "SECONDS", 0.3)
    main(["prepare", "toy", str(tmp_path)])
    track = data.load_tracks(tmp_path, "train")[3]
    vocals, accompaniment = toy.render_song(3, 0.3)
    assert track.rate == 44_100
    assert np.abs(track.vocals() - vocals).max() < 1e-4
    assert np.abs(track.mixture() - vocals - accompaniment).max() < 1e-4


def test_prepare_divides_by_a_peak_above_one(tmp_path):
    for stem, amplitude in (("mixture", 2.5), ("vocals", 0.5)):
        folder = tmp_path / "source" / "train" / "loud"
        audio.write(
            folder / f"{stem}.wav", tone(440, 0.1, 16_000, amplitude).astype(np.float32), 16_000, "FLOAT"
        )
    data.prepare("folder", tmp_path / "ready", tmp_path / "source", quiet=True)
    track = data.load_tracks(tmp_path / "ready", "train")[0]
    peaks = [np.abs(wave).max() for wave in (track.mixture(), track.vocals())]
    assert np.allclose(peaks, [1, 0.2], atol=1e-5)


@needs_ffmpeg
def test_everything_is_free(tmp_path):
    stems = {"VOX LEAD": 300, "BGVOX 1": 500, "DRUMS": 1000}
    for song in ("1.Hydrogen", "6.Caesium"):
        folder = tmp_path / "clone" / "src" / song
        for name, frequency in stems.items():
            seconds = 0.5 if name == "DRUMS" else 0.4
            stem = folder / f"{song}_Stem_{name}_mobile.m4a"
            audio.write(
                stem.with_suffix(".wav"), tone(frequency, seconds, 44_100, 0.7).astype(np.float32), 44_100
            )
            subprocess.run(["ffmpeg", "-v", "error", "-i", stem.with_suffix(".wav"), stem], check=True)
        shutil.copy(stem, folder / f"{song}_Stem_DRUMS.m4a")
        shutil.copy(stem, folder / f"{song}_Master_mobile.m4a")
    main(["prepare", "everything-is-free", str(tmp_path / "ready"), "--source", str(tmp_path / "clone")])
    assert names(data.load_tracks(tmp_path / "ready", "train")) == ["1.Hydrogen"]
    (track,) = data.load_tracks(tmp_path / "ready", "test")
    assert track.name == "6.Caesium" and track.rate == 48_000 and 0.5 <= track.samples / 48_000 < 0.55
    vocals, accompaniment = track.vocals(), track.mixture() - track.vocals()
    assert np.abs(track.mixture()).max() == pytest.approx(1, abs=1e-3)
    middle = slice(2000, 18_000)
    for frequency, wave, other in ((300, vocals, 0.5), (500, vocals, 0.5), (1000, accompaniment, 1)):
        assert share(wave[0, middle], frequency, 48_000) == pytest.approx(other, abs=0.02)
    levels = [np.sqrt(np.mean(wave[0, middle] ** 2)) for wave in (vocals, accompaniment)]
    assert levels[0] / levels[1] == pytest.approx(np.sqrt(2), rel=0.03)  # both divided alike


@needs_ffmpeg
def test_stems_are_sources_without_silence_and_ends(tmp_path):
    for song in ("1.Hydrogen", "6.Caesium"):
        for name, sound in {"VOX LEAD": 12, "DRUMS": 20, "SWEEP": 5}.items():
            stem = tmp_path / "clone" / "src" / song / f"{song}_Stem_{name}_mobile.m4a"
            wave = np.zeros((2, 70 * 8000), np.float32)
            wave[:, 10 * 8000 : (10 + sound) * 8000] = tone(440, sound, 8000, 0.7)
            wave[:, 32 * 8000 :] = tone(440, 38, 8000, 0.7)  # of the end nothing is heard
            audio.write(stem.with_suffix(".wav"), wave, 8000)
            subprocess.run(["ffmpeg", "-v", "error", "-i", stem.with_suffix(".wav"), stem], check=True)
    arguments = ["prepare", "everything-is-free-stems", str(tmp_path / "ready"), "--source"]
    main([*arguments, str(tmp_path / "clone")])
    voice, drums = data.load_sources(tmp_path / "ready", "train")
    assert (voice.name, drums.name) == ("1.Hydrogen VOX LEAD", "1.Hydrogen DRUMS")
    assert voice.has_vocals and not drums.has_vocals and voice.rate == 48_000
    assert 11 < voice.samples / 48_000 < 15 and 19 < drums.samples / 48_000 < 23
    times = [path.stat().st_mtime_ns for path in (tmp_path / "ready").rglob("*.flac")]
    main([*arguments, str(tmp_path / "clone")])
    assert [path.stat().st_mtime_ns for path in (tmp_path / "ready").rglob("*.flac")] == times


@pytest.mark.parametrize(
    "arguments, word",
    [
        (["everything-is-free", "--source", "nowhere"], "nowhere"),
        (["everything-is-free-stems"], "clone"),
        (["everything-is-free"], "clone"),
        (["musdb18-hq", "--source", "nowhere"], "nowhere"),
        (["folder"], "--source"),
    ],
)
def test_missing_source_is_one_sentence(tmp_path, monkeypatch, arguments, word):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit:
        main(["prepare", arguments[0], "ready", *arguments[1:]])
    message = exit.value.code  # a text: Python prints it and ends with code 1
    assert message.startswith("error: ") and word in message and "\n" not in message
    assert list(tmp_path.iterdir()) == []


def test_an_empty_name_is_not_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="error: the folder to write to is empty; name a folder."):
        main(["prepare", "toy", ""])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["prepare", "musdb19", "ready"], ["prepare", "toy"], [], ["paint"]])
def test_wrong_command_line(capsys, arguments):
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == 2 and "Traceback" not in capsys.readouterr().err


# -- pairs ---------------------------------------------------------------------------------------------------


def make_pairs(tracks, **options):
    settings = dict(length=8, seconds=0.25, rate=16_000, channels=1, seed=3)
    return data.VocalPairs(tracks, **settings | options)


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in ("vocals", "mixture"))


def test_pairs_follow_from_seed_epoch_and_index(toy_root):
    tracks = data.load_tracks(toy_root, "train")
    pairs, again = make_pairs(tracks), make_pairs(tracks)
    items = [pairs[i] for i in range(4)]
    assert all(same(items[i], again[i]) for i in (3, 1, 0, 2))
    assert len({item["vocals"].abs().sum().item() for item in items}) == 4
    pairs.set_epoch(1)
    assert not same(items[0], pairs[0])
    pairs.set_epoch(0)
    assert same(items[0], pairs[0])
    assert not same(items[0], make_pairs(tracks, seed=4)[0])


def test_pairs_do_not_depend_on_the_worker(toy_root):
    pairs = make_pairs(data.load_tracks(toy_root, "train"))
    pairs.set_epoch(2)
    loader = torch.utils.data.DataLoader(pairs, batch_size=None, num_workers=2)
    assert len(pairs) == 8 and all(same(item, pairs[i]) for i, item in enumerate(loader))


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("augmentations", [AUGMENTATIONS, ()])
def test_pairs_shape_and_range(toy_root, channels, augmentations):
    pairs = make_pairs(data.load_tracks(toy_root, "train"), channels=channels, augmentations=augmentations)
    for i in range(4):
        item = pairs[i]
        for wave in item.values():
            assert wave.shape == (channels, 4000) and wave.dtype == torch.float32
        assert item["mixture"].abs().max() <= 1 + 1e-6


@pytest.mark.parametrize("augmentations", [AUGMENTATIONS, ()])
def test_mixture_is_vocals_and_accompaniment(sine_track, augmentations):
    pairs = make_pairs([sine_track], augmentations=augmentations)
    for i in range(4):
        item = pairs[i]
        vocals, accompaniment = item["vocals"][0].numpy(), (item["mixture"] - item["vocals"])[0].numpy()
        low, high = spectral_peak(vocals, 16_000), spectral_peak(accompaniment, 16_000)
        assert high / low == pytest.approx(1500 / 440, rel=0.02)  # both shifted alike
        assert share(vocals, low, 16_000) > 0.98 and share(accompaniment, high, 16_000) > 0.98
        if not augmentations:
            assert low == pytest.approx(440, rel=5e-3)


def test_only_the_named_augmentations_are_applied(sine_track):
    plain, turned = (make_pairs([sine_track], augmentations=names) for names in ((), ["polarity"]))
    signs = set()
    for i in range(8):
        before, after = (
            torch.stack([p[i]["vocals"], p[i]["mixture"] - p[i]["vocals"]]) for p in (plain, turned)
        )
        sign = (before * after).sum(dim=(1, 2)).sign()
        assert torch.allclose(after, sign[:, None, None] * before, atol=1e-6)
        signs.add(tuple(sign.tolist()))
    assert len(signs) > 2
    with pytest.raises(InputError, match="unknown augmentation reverb; choose from stem_remix, layer"):
        make_pairs([sine_track], augmentations=["reverb"])


@pytest.fixture
def narrow_voice_wide_band(tmp_path):
    """A voice of 440 Hz alone, recorded at 16 kHz, and a band of 1.5 and 10 kHz alone, recorded at 44.1."""
    voice, band = tmp_path / "voice.flac", tmp_path / "band.flac"
    audio.write(voice, tone(440, 3, 16_000).astype(np.float32), 16_000)
    audio.write(band, (tone(1500, 3, 44_100) + tone(10_000, 3, 44_100)).astype(np.float32), 44_100)
    return [data.Track("voice", voice, voice), data.Track("band", band, None)]


@pytest.mark.parametrize(
    "augmentations,rate,kept",
    [(["one_band"], 44_100, False), ([], 44_100, True), (["one_band"], 24_000, False)],
)
def test_a_pair_goes_as_far_up_as_the_narrowest_of_its_tracks(
    narrow_voice_wide_band, augmentations, rate, kept
):
    pairs = data.VocalPairs(narrow_voice_wide_band, 4, 0.25, rate, 1, seed=3, augmentations=augmentations)
    for i in range(4):
        band = (pairs[i]["mixture"] - pairs[i]["vocals"])[0].numpy()
        assert share(band, 1500, rate) == pytest.approx(0.5 if kept else 1, abs=0.03)
        assert share(band, 10_000, rate) == pytest.approx(0.5 if kept else 0, abs=0.03)
        assert share(pairs[i]["vocals"][0].numpy(), 440, rate) > 0.97


def test_pairs_of_one_rate_are_left_as_they_are(sine_track):
    plain, one = (make_pairs([sine_track], augmentations=names) for names in ([], ["one_band"]))
    assert all(same(plain[i], one[i]) for i in range(4))


def test_pairs_without_augmentation_are_excerpts(sine_track):
    pairs = make_pairs([sine_track], augmentations=(), channels=2)
    whole, item = sine_track.mixture(), pairs[0]["mixture"].numpy()
    windows = np.lib.stride_tricks.sliding_window_view(whole[0], 4000)
    start = np.abs(windows[:, ::100] - item[0, ::100]).max(axis=1).argmin()
    assert np.abs(whole[:, start : start + 4000] - item).max() < 1e-6


def test_songs_shorter_than_an_excerpt_are_padded(sine_track, tmp_path):
    short = write_track(tmp_path / "short", tone(440, 0.1, 16_000), tone(1500, 0.1, 16_000), 16_000)
    pairs = make_pairs([sine_track, short], length=16)
    assert all(item["mixture"].shape == (1, 4000) for item in (pairs[i] for i in range(16)))


def test_most_silent_excerpts_are_drawn_again(tmp_path, rng):
    vocals = 0.1 * rng.uniform(-1, 1, (2, 16_000))
    vocals[:, :8000] = 0  # half of the excerpts
    track = write_track(tmp_path / "half", vocals, tone(1500, 2, 8000), 8000, ".wav")
    pairs = make_pairs([track], length=500, seconds=0.05, rate=8000, augmentations=())
    silent = np.mean([not item["vocals"].any() for item in (pairs[i] for i in range(500))])
    assert 0.02 < silent < 0.08  # 1 / 21 is expected


def test_wholly_silent_vocals_end(tmp_path):
    track = write_track(tmp_path / "silent", 0 * tone(440, 1, 8000), tone(1500, 1, 8000), 8000)
    item = make_pairs([track], rate=8000)[0]
    assert not item["vocals"].any() and item["mixture"].any()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_song_is_named_once_and_left_out(tmp_path, sine_track, workers, capfd):
    bad = sine_track.vocals()
    bad[:, ::100] = np.nan
    folder = tmp_path / "damaged"
    folder.mkdir()
    for stem in ("mixture", "vocals"):
        sf.write(folder / f"{stem}.wav", bad.T, sine_track.rate, "FLOAT")
    damaged = data.folder_track(folder)
    pairs = make_pairs([sine_track, damaged], length=24)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *_: print(message, file=sys.stderr)
        items = list(torch.utils.data.DataLoader(pairs, batch_size=None, num_workers=workers))
    assert len(items) == 24 and all(item["mixture"].isfinite().all() for item in items)
    (told,) = [line for line in capfd.readouterr().err.splitlines() if "left out" in line]
    assert str(folder) in told and "NaN" in told
    with pytest.raises(InputError, match="NaN"), pytest.warns(UserWarning, match="left out"):
        make_pairs([damaged])[0]


def test_songs_that_nobody_sings_in_are_refused(tmp_path):
    silence = np.zeros((2, 8000 * 4))
    for name in ("a", "b"):
        write_track(tmp_path / "train" / name, silence, tone(1500, 4, 8000), 8000)
    with pytest.raises(InputError, match="nobody sings; [^\n]*[.]$"):
        data.training_tracks(tmp_path, 1)
    sung = np.concatenate([silence, tone(440, 2, 8000)], axis=1)
    write_track(tmp_path / "train" / "c", sung, 0 * sung, 8000)
    with pytest.raises(InputError, match="nobody sings"):
        data.training_tracks(tmp_path, 2)  # that is held out
    assert len(data.training_tracks(tmp_path, 1)[0][0]) == 3


def test_level_dbfs():
    assert audio.level_dbfs(np.full((2, 100), 0.1)) == pytest.approx(-20)
    assert audio.level_dbfs(np.zeros((2, 100))) == -np.inf


# -- voices and pieces apart, several data sets --------------------------------------------------------------


@pytest.fixture
def sources_root(tmp_path):
    """A data set of a voice of 440 Hz and a piece of 1500 Hz, with one song of both to validate on."""
    root = tmp_path / "apart"
    for kind, frequency in (("voices", 440), ("music", 1500)):
        wave = tone(frequency, 3, 16_000).astype(np.float32)
        audio.write(root / "train" / kind / f"{frequency}.flac", wave, 16_000)
    write_track(root / "valid" / "song", tone(440, 3, 16_000), tone(1500, 3, 16_000), 16_000)
    return root


def test_sources_are_tracks_of_one_stem(sources_root, toy_root):
    voice, music = data.load_sources(sources_root, "train")
    assert voice.has_vocals and not voice.has_accompaniment and music.has_accompaniment
    assert np.array_equal(voice.vocals(100, 500), voice.mixture(100, 500)) and voice.vocals(0, 500).any()
    assert not music.has_vocals and music.mixture(0, 500).any()
    assert music.vocals(40_000).shape == music.mixture(40_000).shape and not music.vocals().any()
    assert data.load_sources(toy_root, "train") == []


@pytest.mark.parametrize("augmentations", [AUGMENTATIONS, ()])
def test_a_voice_alone_is_always_remixed(sources_root, augmentations):
    tracks = data.load_sources(sources_root, "train")
    pairs = make_pairs(tracks, length=12, augmentations=augmentations)
    for item in (pairs[i] for i in range(12)):
        vocals, mixture = item["vocals"][0].numpy(), item["mixture"][0].numpy()
        voice, music = (spectral_peak(wave, 16_000) for wave in (vocals, mixture - vocals))
        assert music / voice == pytest.approx(1500 / 440, rel=0.02)  # never the piece as vocals


def test_data_sets_are_drawn_equally_often(sources_root, toy_root, sine_track):
    few, many = [sine_track], [replace(sine_track, first=i) for i in range(1, 31)]
    pairs = make_pairs([few, many])
    drawn = [pairs._choose(pairs.singers, generator) for generator in map(seeded_generator, range(200))]
    assert 80 < sum(track in few for track in drawn) < 120 and len(set(drawn)) > 20
    sets, _ = data.training_tracks([toy_root, sources_root], 1)
    pairs = make_pairs(sets)
    assert [len(tracks) for tracks in pairs.singers] == [3, 1]
    assert [len(tracks) for tracks in pairs.bands] == [3, 1]
    assert all(pairs[i]["vocals"].abs().max() > 0 for i in range(4))


def test_one_data_set_in_a_list_is_the_data_set(toy_root):
    tracks = data.load_tracks(toy_root, "train")
    assert same(make_pairs(tracks)[5], make_pairs([tracks])[5])


def test_training_and_validation_tracks(sources_root, toy_root):
    tracks = data.load_tracks(toy_root, "train")
    kept, held = data.hold_out(tracks, 1)
    assert data.training_tracks(toy_root, 1) == ([kept], [held])
    sources, valid = data.load_sources(sources_root, "train"), data.load_tracks(sources_root, "valid")
    assert data.training_tracks([str(sources_root)], 1) == ([sources], [valid])
    assert data.training_tracks([toy_root, sources_root], 1) == ([kept, sources], [held, valid])
    twice = data.training_tracks([sources_root, toy_root, sources_root], 1)
    assert twice == ([sources, kept, sources], [valid, held])  # trained on twice, validated on once


def test_voices_and_pieces_apart_have_no_ends_to_validate_on(sources_root, toy_root):
    shutil.rmtree(sources_root / "valid")
    sources = data.load_sources(sources_root, "train")
    trained, validated = data.training_tracks([toy_root, sources_root], 1)
    assert trained[1] == sources and len(validated) == 1
    with pytest.raises(InputError, match=r"\A[^\n]*apart: no songs to validate on; [^\n]*\Z"):
        data.training_tracks(sources_root, 1)


def test_songs_kept_for_validation_come_before_the_ends_of_others(tmp_path):
    for split in ("train", "valid"):
        write_track(tmp_path / split / split, tone(440, 3, 16_000), tone(1500, 3, 16_000), 16_000)
    tracks = [data.load_tracks(tmp_path, split) for split in ("train", "valid")]
    assert data.training_tracks(tmp_path, 1) == ([tracks[0]], [tracks[1]])
