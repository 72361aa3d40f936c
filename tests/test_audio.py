"""Audio comes in from every common format, goes out whole or not at all, and survives being cut up."""

import math
import resource
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from dmxlib import audio
from dmxlib.errors import InputError

RATE = 48_000
needs_ffmpeg = pytest.mark.skipif(
    shutil.which("ffmpeg") is None, reason="ffmpeg, which decodes m4a, is missing"
)


@pytest.fixture
def song():
    """(2, 24000): another sine on each side, faded in and out."""
    t = np.arange(RATE // 2) / RATE
    fade = np.sin(np.pi * t / t[-1])
    return (0.5 * fade * np.sin(2 * np.pi * t * [[440], [1000]])).astype(np.float32)


def ffmpeg(*arguments):
    subprocess.run(["ffmpeg", "-v", "error", "-y", *map(str, arguments)], check=True)


def signal_to_noise(estimate, truth):
    return 10 * np.log10(np.sum(truth**2) / (np.sum((estimate - truth) ** 2) + 1e-30))


def fails_on(path, *words):
    """pytest.raises for one sentence that names the file and holds the words."""
    pattern = ".*".join(map(_escape, (path, *words)))
    return pytest.raises(InputError, match=rf"\A(?!.*\n){pattern}[^\n]*\.\Z")


def _escape(text):
    return "".join(c if c.isalnum() else "\\" + c for c in str(text))


# -- reading -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, options, least",
    [
        ("song.wav", dict(subtype="PCM_16"), 80),
        ("song.wav", dict(subtype="PCM_24"), 120),
        ("song.wav", dict(subtype="FLOAT"), 150),
        ("song.flac", dict(subtype="PCM_16"), 80),
        ("song.aiff", dict(subtype="PCM_16"), 80),
        ("song.ogg", {}, 20),
        ("song.opus", dict(format="OGG", subtype="OPUS"), 20),
        ("song.mp3", {}, 20),
    ],
)
def test_reads_what_soundfile_knows(tmp_path, song, name, options, least):
    sf.write(tmp_path / name, song.T, RATE, **options)
    wave, rate = audio.read(tmp_path / name)
    assert rate == RATE and wave.dtype == np.float32 and wave.shape == song.shape
    assert signal_to_noise(wave, song) > least
    excerpt, _ = audio.read(tmp_path / name, 5000, 4000)
    settled = 1152 if name.endswith("mp3") else 0  # a frame of mp3 needs the one before it
    assert np.allclose(excerpt[:, settled:], wave[:, 5000 + settled : 9000], atol=1e-5)


@needs_ffmpeg
def test_reads_m4a_through_ffmpeg(tmp_path, song):
    sf.write(tmp_path / "song.wav", song.T, RATE)
    ffmpeg("-i", tmp_path / "song.wav", "-b:a", "192k", tmp_path / "song.m4a")
    wave, rate = audio.read(tmp_path / "song.m4a")
    assert rate == RATE and song.shape[1] <= wave.shape[1] < song.shape[1] + 2048
    assert signal_to_noise(audio.fit(wave, song.shape[1]), song) > 20
    excerpt, _ = audio.read(tmp_path / "song.m4a", 5000, 700)
    assert np.array_equal(excerpt, wave[:, 5000:5700])


def test_without_ffmpeg_says_to_install_it(tmp_path, monkeypatch):
    (tmp_path / "song.m4a").write_bytes(b"\x00\x00\x00\x20ftypM4A ")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with fails_on(tmp_path / "song.m4a", "install ffmpeg"):
        audio.read(tmp_path / "song.m4a")


def test_excerpts_end_with_the_file(tmp_path, song):
    sf.write(tmp_path / "song.wav", song.T, RATE, subtype="FLOAT")
    samples = song.shape[1]
    assert np.array_equal(audio.read(tmp_path / "song.wav", samples - 10)[0], song[:, -10:])
    assert np.array_equal(audio.read(tmp_path / "song.wav", samples - 10, 100)[0], song[:, -10:])
    assert audio.read(tmp_path / "song.wav", 10, 0)[0].shape == (2, 0)
    for start in (samples, samples + 1000):
        assert audio.read(tmp_path / "song.wav", start)[0].shape == (2, 0)


def test_blocks_add_up_to_the_file(tmp_path, song):
    sf.write(tmp_path / "song.wav", song.T, RATE, subtype="FLOAT")
    with audio.open_audio(tmp_path / "song.wav") as file:
        file.seek(100)
        blocks = list(audio.read_blocks(file, 5000))
        assert [block.shape[1] for block in blocks] == [5000] * 4 + [3900]
        assert np.array_equal(np.concatenate(blocks, axis=1), song[:, 100:])
        file.seek(7)
        assert [block.shape[1] for block in audio.read_blocks(file, 400, 1000)] == [400, 400, 200]


def test_mono_is_doubled_and_of_more_channels_two_are_taken(tmp_path, song):
    assert np.array_equal(audio.stereo(song[:1]), song[[0, 0]])
    assert np.array_equal(audio.stereo(song), song)
    sf.write(tmp_path / "surround.wav", np.concatenate([song, 0 * song]).T, RATE, subtype="FLOAT")
    with pytest.warns(UserWarning, match="4 channels: the first two"):
        assert np.array_equal(audio.read(tmp_path / "surround.wav")[0], song)


def made(folder, song, name, *options):
    """The song as ffmpeg writes it."""
    sf.write(folder / "original.wav", song.T, RATE, subtype="FLOAT")
    ffmpeg("-i", folder / "original.wav", *options, folder / name)
    return folder / name


@needs_ffmpeg
@pytest.mark.parametrize("ending, options", [("wav", {"format": "WAVEX"}), ("flac", {})])
def test_surround_is_mixed_down_as_ffmpeg_does(tmp_path, song, ending, options):
    """The singer of a film is in the centre, the third channel of six."""
    silence = np.zeros_like(song[:1])
    surround = np.concatenate([0.1 * song, song[:1], silence, silence, silence])
    sf.write(tmp_path / f"film.{ending}", surround.T, RATE, subtype="PCM_16", **options)
    with pytest.warns(UserWarning, match="5.1.* mixed down to two"):
        wave, _ = audio.read(tmp_path / f"film.{ending}")
    centre = 0.5**0.5 * surround[2]
    assert np.allclose(wave, (surround[:2] + centre) / (1 + 2 * 0.5**0.5), atol=1e-4)


@needs_ffmpeg
@pytest.mark.parametrize(
    "name, options",
    [
        ("song.mp3", []),
        ("song.mp3", ["-write_xing", "0"]),
        ("song.m4a", []),
        ("song.aac", []),
        ("song.ogg", []),
        ("song.opus", []),
    ],
)
def test_lossy_audio_is_aligned_with_the_original(tmp_path, rng, name, options):
    """Neither the encoder's delay nor, without a tag of the length, a frame is missing or too many."""
    noise = 0.1 * rng.standard_normal((2, RATE)).astype(np.float32)
    noise = audio.resample(audio.resample(noise, RATE, 16_000), 16_000, RATE)  # what the coders keep
    wave, _ = audio.read(made(tmp_path, noise, name, "-b:a", "192k", *options))
    # where nothing says how long it is a player plays it too
    delay = 1105 if options else 1024 if name == "song.aac" else 0
    wave = wave[:, delay:]
    assert 0 <= wave.shape[1] - RATE < 2400
    assert signal_to_noise(wave[:, 2000 : RATE - 2000], noise[:, 2000 : RATE - 2000]) > 10


@needs_ffmpeg
@pytest.mark.parametrize(
    "form, codec",
    [("flac", "flac"), ("wav", "pcm_s16le"), ("aiff", "pcm_s16be"), ("matroska", "flac"), ("ogg", "flac")],
)
def test_stream_whose_header_was_written_before_its_end(tmp_path, song, form, codec):
    sf.write(tmp_path / "song.wav", song.T, RATE)
    command = ["ffmpeg", "-v", "error", "-i", str(tmp_path / "song.wav"), "-c:a", codec, "-f", form, "-"]
    (tmp_path / f"stream.{form}").write_bytes(subprocess.run(command, capture_output=True).stdout)
    wave, _ = audio.read(tmp_path / f"stream.{form}")
    assert wave.shape == song.shape and signal_to_noise(wave, song) > 80


@needs_ffmpeg
@pytest.mark.parametrize(
    "options", [["-c:a", "pcm_f64le"], ["-c:a", "pcm_s32le"], ["-rf64", "always"]], ids=str
)
def test_wide_samples_and_rf64(tmp_path, song, options):
    wave, _ = audio.read(made(tmp_path, song, "song.wav", *options))
    assert wave.shape == song.shape and signal_to_noise(wave, song) > 80


def more_than_4_gb(path, last, riff):
    """A sparse 16-bit wav of 5 GB, zeros but for the last samples; its header in 64 bits, or what is left of
    them in 32."""
    size = 5 * 10**9
    rates = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 2, RATE, 4 * RATE, 4, 16)
    long = struct.pack("<4sIQQQI", b"ds64", 28, size + 72, size, size // 4, 0)
    content = b"WAVE" + (b"" if riff else long) + rates + b"data"
    of_all, of_data = (36 + size, size) if riff else (-1, -1)
    head = (b"RIFF" if riff else b"RF64") + struct.pack("<I", of_all % 2**32) + content
    with open(path, "wb") as file:
        file.write(head + struct.pack("<I", of_data % 2**32))
        file.truncate(file.tell() + size - last.nbytes)
        file.seek(0, 2)
        file.write(last.tobytes())
    return path


def test_wav_of_more_than_4_gb(tmp_path, rng):
    last = rng.integers(-3000, 3000, (1000, 2)).astype("<i2")
    with audio.open_audio(more_than_4_gb(tmp_path / "long.wav", last, riff=False)) as file:
        assert file.frames == 5 * 10**9 // 4
        file.seek(-1000, 2)
        assert np.array_equal(next(audio.read_blocks(file, 1000)).T * 2**15, last)
    path = more_than_4_gb(tmp_path / "long.wav", last, riff=True)
    with fails_on(path, "longer than a wav's header can say"), audio.open_audio(path):
        pass


@needs_ffmpeg
def test_24_bits_in_32(tmp_path, song):
    path = made(tmp_path, song, "song.wav", "-c:a", "pcm_s32le")
    content = bytearray(path.read_bytes())
    assert content[20:22] == b"\xfe\xff" and content[38] == 32  # of an extensible header, the valid bits
    content[38] = 24
    path.write_bytes(content)
    wave, _ = audio.read(path)
    assert wave.shape == song.shape and signal_to_noise(wave, song) > 120


@needs_ffmpeg
def test_audio_tracks_of_a_video(tmp_path, song):
    for name, wave in (("first", song), ("second", song[::-1])):
        sf.write(tmp_path / f"{name}.wav", wave.T, RATE)
    picture = ["-f", "lavfi", "-i", "color=size=64x64:duration=0.5"]
    inputs = ["-i", tmp_path / "first.wav", "-i", tmp_path / "second.wav"]
    ffmpeg(*picture, *inputs, "-map", "0", "-map", "1", "-map", "2", "-c:a", "flac", tmp_path / "video.mkv")
    for track, wave in ((1, song), (2, song[::-1])):
        with audio.open_audio(tmp_path / "video.mkv", track) as file:
            assert signal_to_noise(next(audio.read_blocks(file, RATE)), wave) > 60
    with fails_on(tmp_path / "video.mkv", "no audio track 3"), audio.open_audio(tmp_path / "video.mkv", 3):
        pass


def test_match_channels(song):
    assert audio.match_channels(song, 2) is song
    assert np.allclose(audio.match_channels(song, 1), (song[:1] + song[1:]) / 2)


# -- bad input -----------------------------------------------------------------------------------------------


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / "none.wav", tmp_path):
        with fails_on(path, "does not exist"):
            audio.read(path)


@pytest.mark.parametrize("name", ["empty.wav", "empty.mp3", "empty.m4a"])
def test_empty_file(tmp_path, name):
    (tmp_path / name).touch()
    with fails_on(tmp_path / name, "empty"):
        audio.read(tmp_path / name)


@needs_ffmpeg
@pytest.mark.parametrize("name", ["text.wav", "text.mp3", "text.m4a", "text.txt"])
def test_text_is_not_audio(tmp_path, name):
    (tmp_path / name).write_text("This is a song, is it not?\n" * 100)
    with fails_on(tmp_path / name, "not audio"):
        audio.read(tmp_path / name)


@pytest.mark.parametrize("name", ["cut.flac", "cut.mp3"])
def test_truncated_file(tmp_path, song, name):
    sf.write(tmp_path / name, song.T, RATE)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with fails_on(tmp_path / name, "truncated"):
        audio.read(tmp_path / name)


@needs_ffmpeg
def test_truncated_m4a(tmp_path, rng):
    sf.write(tmp_path / "song.wav", 0.1 * rng.standard_normal((RATE, 2)), RATE)
    ffmpeg("-i", tmp_path / "song.wav", "-movflags", "+faststart", tmp_path / "cut.m4a")
    content = (tmp_path / "cut.m4a").read_bytes()
    (tmp_path / "cut.m4a").write_bytes(content[: len(content) // 2])
    with fails_on(tmp_path / "cut.m4a", "damaged"):
        audio.read(tmp_path / "cut.m4a")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_not_numbers(tmp_path, song, value):
    song[1, 300] = value
    sf.write(tmp_path / "bad.wav", song.T, RATE, subtype="FLOAT")
    with fails_on(tmp_path / "bad.wav", "NaN"):
        audio.read(tmp_path / "bad.wav")
    assert audio.read(tmp_path / "bad.wav", 301)[0].shape == (2, song.shape[1] - 301)


def test_a_sample_or_a_rate_that_is_no_sound(tmp_path, song):
    sf.write(tmp_path / "loud.wav", 1e20 * song.T, RATE, subtype="FLOAT")
    with fails_on(tmp_path / "loud.wav", "full scale"):
        audio.read(tmp_path / "loud.wav")
    sf.write(tmp_path / "slow.wav", song.T, 1)
    with fails_on(tmp_path / "slow.wav", "1 samples a second"):
        audio.read(tmp_path / "slow.wav")


def test_refusal_of_a_format_names_the_file_alone(tmp_path, song):
    with fails_on(tmp_path / "song.mp3", "MPEG"):
        audio.write(tmp_path / "song.mp3", song, 96_000)


@needs_ffmpeg
def test_error_about_a_decoded_file_names_the_users(tmp_path, song):
    song[1, 300] = np.nan
    sf.write(tmp_path / "bad.wav", song.T, RATE, subtype="FLOAT")
    ffmpeg("-i", tmp_path / "bad.wav", "-c:a", "copy", tmp_path / "bad.mka")
    with fails_on(tmp_path / "bad.mka", "NaN"):
        audio.read(tmp_path / "bad.mka")


def test_zero_frames(tmp_path):
    sf.write(tmp_path / "none.wav", np.zeros((0, 2)), RATE)
    with fails_on(tmp_path / "none.wav", "no audio frames"):
        audio.read(tmp_path / "none.wav")


# -- writing -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, subtype, written, least",
    [
        ("out.wav", None, "PCM_16", 80),
        ("out.wav", "PCM_24", "PCM_24", 120),
        ("out.wav", "FLOAT", "FLOAT", 300),
        ("out.flac", None, "PCM_16", 80),
        ("out.flac", "PCM_24", "PCM_24", 120),
        ("out.mp3", None, "MPEG_LAYER_III", 20),
    ],
)
def test_writes_every_format(tmp_path, song, name, subtype, written, least):
    path = tmp_path / "new" / "folder" / name
    audio.write(path, song, RATE, subtype)
    assert sf.info(path).subtype == written and sf.info(path).samplerate == RATE
    wave, _ = audio.read(path)
    assert wave.shape == song.shape
    assert signal_to_noise(wave, song) > least
    assert [file.name for file in path.parent.iterdir()] == [name]


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
def test_integer_samples_come_back_unchanged(tmp_path, song, subtype):
    audio.write(tmp_path / "a.wav", song, RATE, subtype)
    first = audio.read(tmp_path / "a.wav")[0]
    assert np.array_equal(first, audio.quantize(song, subtype))
    audio.write(tmp_path / "b.wav", first, RATE, subtype)
    assert np.array_equal(first, audio.read(tmp_path / "b.wav")[0])


def test_what_passes_full_scale_is_clamped_with_a_warning(tmp_path, song):
    with pytest.warns(UserWarning, match="full scale"):
        audio.write(tmp_path / "loud.wav", 4 * song, RATE)
    assert np.abs(audio.read(tmp_path / "loud.wav")[0] - np.clip(4 * song, -1, 1)).max() < 1e-4
    audio.write(tmp_path / "loud.wav", 4 * song, RATE, "FLOAT")
    assert np.array_equal(audio.read(tmp_path / "loud.wav")[0], 4 * song)


def test_file_appears_only_when_all_is_written(tmp_path, song):
    with audio.open_for_writing(tmp_path / "out.wav", RATE) as file:
        audio.write_block(file, song)
        assert not (tmp_path / "out.wav").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out.wav"]


@pytest.mark.parametrize("error", [ValueError, TypeError, OSError, KeyboardInterrupt, InputError])
def test_error_in_the_body_leaves_nothing_and_stays_what_it_is(tmp_path, song, error):
    with pytest.raises(error) as caught, audio.open_for_writing(tmp_path / "out.wav", RATE) as file:
        audio.write_block(file, song)
        raise error("of the body")
    assert type(caught.value) is error and str(caught.value) == "of the body"
    assert list(tmp_path.iterdir()) == []


def test_error_in_the_body_keeps_the_old_file(tmp_path, song):
    audio.write(tmp_path / "out.wav", song, RATE)
    with pytest.raises(RuntimeError), audio.open_for_writing(tmp_path / "out.wav", RATE) as file:
        audio.write_block(file, 0 * song)
        raise RuntimeError
    assert np.abs(audio.read(tmp_path / "out.wav")[0] - song).max() < 1e-4


def test_unwritable_folder(tmp_path, song):
    (tmp_path / "folder").write_text("a file in its place")
    for path in (tmp_path / "folder" / "out.wav", tmp_path / "folder" / "deeper" / "out.wav"):
        with fails_on(path, "cannot be written"):
            audio.write(path, song, RATE)


def test_folder_in_the_place_of_the_file(tmp_path, song):
    (tmp_path / "out.wav").mkdir()
    with fails_on(tmp_path / "out.wav", "cannot be written"):
        audio.write(tmp_path / "out.wav", song, RATE)
    assert [path.name for path in tmp_path.iterdir()] == ["out.wav"]


@pytest.mark.parametrize(
    "name, rate, subtype", [("out.xyz", RATE, None), ("out", RATE, None), ("out.flac", RATE, "FLOAT")]
)
def test_format_that_cannot_be_written(tmp_path, song, name, rate, subtype):
    with fails_on(tmp_path / name, "cannot be written"):
        audio.write(tmp_path / name, song, rate, subtype)
    assert list(tmp_path.iterdir()) == []


def test_full_disk(tmp_path, rng):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with fails_on(tmp_path / "out.wav", "cannot be written (file too large)"):
            audio.write(tmp_path / "out.wav", rng.uniform(-1, 1, (2, RATE)).astype(np.float32), RATE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


@needs_ffmpeg
def test_no_room_to_decode_in(tmp_path, song):
    path = made(tmp_path, song, "song.m4a")
    with fails_on(path, "no space left in /dev"):
        audio._decode(path, Path("/dev/full"), 1, ("-f", "wav"))


# -- resampling ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rate, new_rate", [(44_100, 48_000), (48_000, 24_000), (24_000, 44_100), (8000, 8000)]
)
@pytest.mark.parametrize("samples", [1, 7, 1000, 44_101])
def test_resampled_length(rng, rate, new_rate, samples):
    wave = rng.standard_normal((2, samples)).astype(np.float32)
    resampled = audio.resample(wave, rate, new_rate)
    assert resampled.shape == (2, math.ceil(samples * new_rate / rate)) and resampled.dtype == np.float32


def test_resampling_keeps_the_sound_and_drops_what_does_not_fit():
    def tone(frequency, rate):
        return np.sin(2 * np.pi * frequency * np.arange(rate) / rate)[None].astype(np.float32)

    resampled = audio.resample(tone(1000, 44_100), 44_100, 24_000)
    middle = slice(2000, -2000)
    assert np.abs(resampled - tone(1000, 24_000))[:, middle].max() < 1e-3
    assert np.abs(audio.resample(tone(15_000, 44_100), 44_100, 24_000))[:, middle].max() < 1e-3


def test_fit(song):
    assert np.array_equal(audio.fit(song, 10), song[:, :10])
    assert np.array_equal(audio.fit(song[:, :10], 12), np.pad(song[:, :10], ((0, 0), (0, 2))))


# -- chunks --------------------------------------------------------------------------------------------------

LENGTH = 100


def split(wave, cuts):
    return np.split(wave, np.sort(cuts), axis=1)


@pytest.mark.parametrize("overlap", [0, 0.2, 0.5])
@pytest.mark.parametrize("samples", [1, 50, 99, 100, 101, 120, 150, 180, 181, 200, 260, 500, 1003])
def test_unchanged_chunks_give_back_the_input(rng, overlap, samples):
    wave, hop = rng.standard_normal((2, samples)).astype(np.float32), round(LENGTH * (1 - overlap))
    count = max(1, math.ceil((samples - LENGTH) / hop) + 1)  # as few as cover it
    for cuts in ([], [samples // 3], rng.integers(0, samples + 1, 7), range(1, samples)):
        parts = list(audio.chunks(split(wave, cuts), LENGTH, hop))
        assert len(parts) == count
        for k, part in enumerate(parts):
            assert np.array_equal(part, audio.fit(wave[:, k * hop :], LENGTH))
        joined = np.concatenate(list(audio.overlap_add(parts, hop)), axis=1)
        assert joined.shape[1] == (count - 1) * hop + LENGTH
        assert np.abs(joined[:, :samples] - wave).max() < 1e-6
        assert not joined[:, samples:].any()


def test_chunks_come_before_the_stream_ends(rng):
    read = []

    def blocks():
        for number in range(100):
            read.append(number)
            yield rng.standard_normal((1, 40)).astype(np.float32)

    joined = audio.overlap_add(audio.chunks(blocks(), LENGTH, 80), 80)
    next(joined)
    assert len(read) == 3


def test_chunks_of_nothing():
    assert list(audio.overlap_add(audio.chunks([], LENGTH, 80), 80)) == []


def test_cross_fade_is_linear_and_sums_to_one():
    parts = [np.full((1, 10), value, np.float32) for value in (1, 3)]
    joined = np.concatenate(list(audio.overlap_add(parts, 6)), axis=1)[0]
    assert np.allclose(joined, [1] * 6 + [1.25, 1.75, 2.25, 2.75] + [3] * 6)
