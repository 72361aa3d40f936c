"""Toy songs keep their promises: repeatable, in phrases, at a record's levels, in a singing range."""

import librosa
import numpy as np
import pytest

from dmxlib.data.sets.toy import render_song

RATE, SECONDS = 16000, 20


@pytest.fixture(scope="module", params=[0, 1, 2])
def song(request):
    return render_song(request.param, SECONDS, RATE)


def level(x):
    """RMS in dB over the last axis."""
    return 20 * np.log10(np.sqrt(np.mean(np.square(x, dtype=float), axis=-1)) + 1e-12)


def sung(vocals):
    """(frames of 50 ms,) whether the voice is heard."""
    levels = level(vocals.mean(0).reshape(-1, RATE // 20))
    return levels > levels.max() - 45


def pitch_of(vocals, rate):
    """f0 in Hz of (2, samples) by pYIN, in windows of about 80 ms; NaN where there is no voice."""
    window = 2 ** round(np.log2(rate / 12))
    return librosa.pyin(vocals.mean(0), fmin=100, fmax=640, sr=rate, frame_length=window)[0]


def test_shape_type_and_peak(song):
    for stem in song:
        assert stem.shape == (2, SECONDS * RATE) and stem.dtype == np.float32
        assert np.isfinite(stem).all()
    assert 0.1 < np.abs(sum(song)).max() < 1


def test_same_seed_same_song_and_other_seed_other_song():
    first, again, other = (render_song(seed, 2, RATE) for seed in (7, 7, 8))
    for stem, same, different in zip(first, again, other, strict=True):
        assert np.array_equal(stem, same)
        assert abs(np.corrcoef(stem[0], different[0])[0, 1]) < 0.5


def test_phrases_and_pauses(song):
    heard = sung(song[0])
    assert 0.55 < heard.mean() < 0.75
    changes = np.flatnonzero(np.diff(heard.astype(int)))
    rests = [(b - a) / 20 for a, b in zip(changes, changes[1:], strict=False) if not heard[a + 1]]
    assert sum(rest >= 1 for rest in rests) >= 2  # at least 1 s of rest, more than once in 20 s


def test_pauses_are_silent(song):
    blocks = song[0].reshape(2, -1, RATE // 20)
    assert np.mean(~blocks.any(axis=(0, 2))) > 0.2  # exact zeros: pYIN finds pitch in any residue


def test_voice_lies_under_the_band_and_both_are_stereo(song):
    vocals, band = song
    assert 4 < level(band.ravel()) - level(vocals.ravel()) < 10
    for stem in song:
        assert level(stem[0] - stem[1]) > level(stem[0]) - 40


def test_voice_is_harmonic_in_a_singing_range():
    vocals, _ = render_song(3, 6, RATE)
    pitch = pitch_of(vocals, RATE)
    assert 0.7 < np.mean(~np.isnan(pitch)) / sung(vocals).mean() < 1.25  # some reverberation counts
    assert 115 < np.nanmin(pitch) and np.nanmax(pitch) < 580
    assert np.nanstd(12 * np.log2(pitch)) > 1  # semitones: a melody, not a drone


def test_pitch_does_not_depend_on_the_rate():
    low, high = (np.nanmedian(pitch_of(render_song(4, 3, rate)[0], rate)) for rate in (16000, 32000))
    assert abs(12 * np.log2(high / low)) < 0.2  # semitones


@pytest.mark.parametrize("seed", range(5))
def test_short_songs_have_singing(seed):
    vocals, _ = render_song(seed, 4, RATE)
    assert vocals.shape == (2, 4 * RATE) and sung(vocals).mean() > 0.4
