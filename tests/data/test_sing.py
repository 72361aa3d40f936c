"""Speech made to sing follows the melody that was written for it."""

import numpy as np
import pytest
import scipy.signal

from dmxlib import audio
from dmxlib.data.sets import sing
from dmxlib.reproduce import seeded_generator

pyworld = pytest.importorskip("pyworld")
RATE = 16_000


def speech():
    """(samples,): three vowels of 0.5 s whose pitch falls, with silence between them."""
    time = np.arange(RATE // 2) / RATE
    pitch = 160 - 60 * time
    pulses = np.diff(np.floor(np.cumsum(pitch) / RATE), prepend=0)
    vowel = scipy.signal.sosfilt(
        scipy.signal.butter(2, [300, 3000], "bandpass", fs=RATE, output="sos"), pulses
    )
    return np.concatenate([vowel, np.zeros(RATE // 5)] * 3).astype(np.float32)


def test_the_song_has_the_melody():
    song, melody = sing.sing(speech(), RATE, seeded_generator(1))
    f0, times = pyworld.harvest(song.astype(np.float64), RATE)
    both = (f0[: len(melody)] > 0) & (melody[: len(f0)] > 0)
    cents = 1200 * np.log2(f0[: len(melody)][both] / melody[: len(f0)][both])
    assert both.sum() > 0.9 * (melody > 0).sum() and np.median(np.abs(cents)) < 15
    # the vowels are stretched, the pauses are not
    assert len(song) / RATE == pytest.approx(1.5 * sing.STRETCH + 0.6, abs=0.3)
    again, _ = sing.sing(speech(), RATE, seeded_generator(1))
    other, _ = sing.sing(speech(), RATE, seeded_generator(2))
    assert np.array_equal(song, again) and not np.array_equal(song, other)


def test_notes_are_of_the_scale_with_vibrato():
    f0 = np.full(2000, 200.0)
    f0[500:600] = 0
    line = sing.note_line(f0, seeded_generator(0))
    assert not line[500:600].any() and line[:500].all()
    semitones = 12 * np.log2(line[line > 0] / 200)
    nearest = np.abs(semitones[:, None] - np.array(sing.SCALE)).min(axis=1)
    assert np.mean(nearest < 0.51) > 0.8 and np.ptp(semitones) >= 2
    assert len(np.unique(np.round(semitones, 2))) > 50  # it swings
    assert not sing.note_line(np.zeros(10), seeded_generator(0)).any()


def test_write_sung_once(tmp_path):
    audio.write(tmp_path / "a.flac", audio.stereo(speech()[None]), RATE)
    sing.write_sung(tmp_path, quiet=True)
    song, rate = audio.read(tmp_path / "a.sung.flac")
    assert rate == RATE and song.shape[1] > 1.3 * len(speech()) and np.array_equal(song[0], song[1])
    time = (tmp_path / "a.sung.flac").stat().st_mtime_ns
    sing.write_sung(tmp_path, quiet=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.flac", "a.sung.flac"]
    assert (tmp_path / "a.sung.flac").stat().st_mtime_ns == time
