"""Each augmentation does to a pair what its name says, as often and as much as it says."""

import numpy as np
import pytest
from test_data import spectral_peak, tone

from dmxlib import audio
from dmxlib.data import augment
from dmxlib.reproduce import seeded_generator, uniform


def seeds(count=64):
    return [seeded_generator(seed) for seed in range(count)]


@pytest.fixture
def pair(rng):
    return tuple(0.2 * rng.uniform(-1, 1, (2, 2, 500)).astype(np.float32))


def choices(transform, pair, options):
    """Which option each source took, for 64 seeds; fails where it took none."""
    taken = []
    for generator in seeds():
        changed = transform(pair, generator)
        taken.append(
            tuple(
                [np.array_equal(option(source), new) for option in options].index(True)
                for source, new in zip(pair, changed, strict=True)
            )
        )
    return taken


@pytest.mark.parametrize(
    "transform, options",
    [
        (augment.polarity, (lambda source: source, lambda source: -source)),
        (augment.channel_flip, (lambda source: source, lambda source: source[::-1])),
    ],
)
def test_polarity_and_channel_flip_of_each_source(pair, transform, options):
    taken = choices(transform, pair, options)
    assert set(taken) == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert all(20 < sum(choice) < 44 for choice in zip(*taken, strict=True))  # of 64


def test_pitch_shift_moves_both_sources_by_the_drawn_factor():
    pair, rate = (tone(440, 1, 16_000), tone(1500, 1, 16_000)), 16_000
    factors = []
    for generator, twin in zip(seeds(8), seeds(8), strict=True):
        semitones = uniform(twin, -augment.PITCH_SEMITONES, augment.PITCH_SEMITONES)
        factors.append(2 ** (semitones / 12))
        shifted = augment.pitch_shift(pair, generator)
        assert shifted[0].shape == shifted[1].shape
        assert shifted[0].shape[1] == pytest.approx(rate / factors[-1], abs=2)
        for source, frequency in zip(shifted, (440, 1500), strict=True):
            assert spectral_peak(source[0], rate) == pytest.approx(frequency * factors[-1], rel=1e-3)
    assert min(factors) < 0.95 and max(factors) > 1.05


def test_tone_changes_magnitudes_within_bounds_and_no_phase(rng):
    pair = tuple(rng.normal(size=(2, 2, 5000)).astype(np.float32))  # of a length that FFTs are quick at
    for before, after in zip(pair, augment.tone(pair, seeded_generator(1)), strict=True):
        ratio = (np.fft.rfft(after) / np.fft.rfft(before))[:, 1:]
        gains_db = 20 * np.log10(np.abs(ratio))
        assert np.abs(np.angle(ratio)).max() < 1e-2
        assert np.abs(gains_db).max() <= augment.TONE_DB + 0.01 and np.ptp(gains_db) > 3
        assert np.allclose(gains_db[0], gains_db[1], atol=0.1), "left and right alike"
        assert np.abs(np.diff(gains_db[0])[1000:]).max() < 0.1, "smooth"


def level_over(pair):
    return audio.level_dbfs(pair[0]) - audio.level_dbfs(pair[1])


def test_levels_draws_the_vocals_level_over_the_accompaniment(pair):
    drawn = []
    for generator, twin in zip(seeds(), seeds(), strict=True):
        leveled = augment.levels(pair, generator)
        drawn.append(level_over(leveled))
        assert drawn[-1] == pytest.approx(uniform(twin, *augment.LEVEL_DB), abs=1e-3)
        assert np.array_equal(leveled[1], pair[1])  # quiet enough not to be touched
    assert augment.LEVEL_DB[0] <= min(drawn) < -9 and 3 < max(drawn) <= augment.LEVEL_DB[1]


def test_levels_leaves_silence_alone(pair):
    for quiet in ((0 * pair[0], pair[1]), (1e-5 * pair[0], pair[1]), (pair[0], 0 * pair[1])):
        assert all(map(np.array_equal, augment.levels(quiet, seeded_generator(1)), quiet))


def test_levels_keeps_the_peak_below_one(pair):
    loud = tuple(50 * source for source in pair)
    for generator, twin in zip(seeds(16), seeds(16), strict=True):
        vocals, accompaniment = augment.levels(loud, generator)
        assert np.abs(vocals + accompaniment).max() == pytest.approx(1, abs=1e-6)
        drawn = uniform(twin, *augment.LEVEL_DB)
        assert level_over((vocals, accompaniment)) == pytest.approx(drawn, abs=1e-3)


def test_stem_remix_takes_the_others_accompaniment(pair, rng):
    other = tuple(rng.uniform(-1, 1, (2, 2, 500)).astype(np.float32))
    remixed = [augment.stem_remix(pair, lambda: other, generator) for generator in seeds()]
    assert all(np.array_equal(vocals, pair[0]) for vocals, _ in remixed)
    taken = [np.array_equal(accompaniment, other[1]) for _, accompaniment in remixed]
    kept = [np.array_equal(accompaniment, pair[1]) for _, accompaniment in remixed]
    assert 20 < sum(taken) < 44 and sum(taken) + sum(kept) == 64


def test_layer_puts_another_accompaniment_under_half_of_them(pair, rng):
    other = tuple(rng.uniform(-1, 1, (2, 2, 500)).astype(np.float32))
    layered = [augment.layer(pair, lambda: other, generator) for generator in seeds()]
    assert all(np.array_equal(vocals, pair[0]) for vocals, _ in layered)
    added = [accompaniment - pair[1] for _, accompaniment in layered if accompaniment is not pair[1]]
    drops = [audio.level_dbfs(part) - audio.level_dbfs(pair[1]) for part in added]
    assert 20 < len(added) < 44
    assert augment.LAYER_DB[0] - 0.1 <= min(drops) < -9 and -3 < max(drops) <= augment.LAYER_DB[1] + 0.1
    assert all(abs(np.corrcoef(part[0], other[1][0])[0, 1]) > 0.999 for part in added)
