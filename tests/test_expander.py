"""The vocals are turned down where nobody sings, and nowhere else."""

import numpy as np
import pytest

from dmxlib.expander import expand, expanded

RATE = 8000
SECOND = RATE


def song(*levels_db, seconds=4, rate=RATE):
    """Noise of a steady level, and vocals that lie so many dB over it for `seconds` each; (2, samples)."""
    gains = np.repeat(10 ** (np.array(levels_db) / 20), seconds * rate).astype(np.float32)
    mixture = np.random.default_rng(0).choice(np.float32([-0.1, 0.1]), (2, len(gains)))
    return mixture, mixture * gains


def gain_db(mixture, vocals, rate=RATE):
    """(samples,): what both channels are turned down by."""
    gains = expand(mixture, vocals, rate, slope=0.5) / vocals
    assert np.allclose(gains[0], gains[1], rtol=1e-5)
    return 20 * np.log10(gains[0])


@pytest.mark.parametrize(("level_db", "expected_db"), [(-49, -20), (-19, -5), (-10, -0.5), (-8, 0), (3, 0)])
def test_each_db_under_the_threshold_turns_down_by_half_a_db(level_db, expected_db):
    assert gain_db(*song(level_db, seconds=40)) == pytest.approx(expected_db, abs=0.1)


def test_a_steeper_slope_turns_down_by_as_much_more():
    mixture, vocals = song(-19, seconds=40)
    steep = 20 * np.log10(expand(mixture, vocals, RATE, slope=2.0) / vocals)
    assert steep[0] == pytest.approx(4 * gain_db(mixture, vocals), abs=1e-3)


def test_what_is_sung_stays_as_it_is_with_three_quarters_of_a_second_around():
    mixture, vocals = song(-30, -3, -30)
    out = expand(mixture, vocals, RATE)
    kept = slice(4 * SECOND - 3 * SECOND // 4, 8 * SECOND + 3 * SECOND // 4)
    assert np.array_equal(out[:, kept], vocals[:, kept])
    gain = gain_db(mixture, vocals)
    assert gain[: 3 * SECOND] == pytest.approx(-10.5, abs=0.1)
    assert gain[9 * SECOND :] == pytest.approx(-10.5, abs=0.1)


def test_the_mixture_counts_as_loud_as_the_passage_around():
    mixture, vocals = song(-10, seconds=60)
    vocals /= 10
    mixture[:, 30 * SECOND :] /= 10  # the vocals lie 30 dB under the mixture, and later 10 dB
    gain = gain_db(mixture, vocals)
    assert gain[5 * SECOND] == pytest.approx(-10.5, abs=0.1)
    assert gain[55 * SECOND] == pytest.approx(-0.5, abs=0.1)
    assert -9.2 < gain[30 * SECOND] < -8.8, "half of the passage is 3 dB quieter than all of it"


def test_a_short_quiet_place_between_words_stays():
    mixture, vocals = song(-3, -30, -3, seconds=1)
    assert np.array_equal(expand(mixture, vocals, RATE), vocals)


def test_the_gain_has_no_step():
    gain = 10 ** (gain_db(*song(-30, -3, -30)) / 20)
    assert np.abs(np.diff(gain)).max() < 1.01 / (0.125 * RATE)


@pytest.mark.parametrize("rate", [8000, 44_100])
@pytest.mark.parametrize("seconds", [0, 1e-4, 0.1, 60.03])
def test_any_rate_and_length_whole_or_in_blocks(rate, seconds):
    waves = song(-3, -20, -3, -30, seconds=20, rate=rate)
    mixture, vocals = (wave[:, : round(seconds * rate)] for wave in waves)
    whole = expand(mixture, vocals, rate)
    assert whole.shape == mixture.shape and whole.dtype == np.float32
    for blocks in (1, 2, 13):
        pairs = zip(*(np.array_split(wave, blocks, axis=1) for wave in (mixture, vocals)), strict=True)
        parts = [np.concatenate(part, axis=1) for part in zip(*expanded(pairs, rate), strict=True)]
        assert np.array_equal(parts[0], mixture)
        assert np.array_equal(parts[1], whole)


def test_a_stream_is_held_for_no_longer_than_it_has_to():
    mixture, vocals = song(-3, -20, -3, -30, seconds=20)
    blocks = zip(np.array_split(mixture, 64, axis=1), np.array_split(vocals, 64, axis=1), strict=True)
    came_out, longest, went_in = 0, 0, 0

    def counted():
        nonlocal went_in
        for pair in blocks:
            went_in += pair[0].shape[1]
            yield pair

    for part, _ in expanded(counted(), RATE):
        came_out += part.shape[1]
        longest = max(longest, went_in - came_out)
    assert longest <= 18 * SECOND


def test_silence_stays_silence():
    nothing = np.zeros((2, 3 * SECOND), np.float32)
    assert not expand(nothing, nothing, RATE).any()
    mixture, _ = song(0)
    assert not expand(mixture, np.zeros_like(mixture), RATE).any()
