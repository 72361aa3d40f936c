"""Each augmentation does to a pair what its name says, as often and as much as it says."""

import numpy as np
import pytest
from test_data import spectral_peak, tone

from dmxlib import audio
from dmxlib.data import VocalPairs, augment, load_tracks
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


@pytest.mark.parametrize("remix", augment.REMIXES.values())
def test_no_excerpt_is_read_that_a_coin_leaves_out(pair, remix):
    read = []
    for generator in seeds():
        before = len(read)
        remixed = remix(pair, lambda: read.append(pair) or pair, generator)
        assert len(read) - before == (remixed is not pair)
    assert 20 < len(read) < 44


@pytest.mark.parametrize("change", augment.VOICES.values())
def test_half_of_the_voices_change_and_keep_their_length(change, rng):
    vocals = 0.1 * rng.standard_normal((2, 16_000)).astype(np.float32)
    changed = [change(vocals, 16_000, generator) for generator in seeds()]
    assert {new.shape for new in changed} == {vocals.shape} and {new.dtype.name for new in changed} == {
        "float32"
    }
    assert 20 < sum(np.array_equal(new, vocals) for new in changed) < 44  # of 64
    assert all(np.isfinite(new).all() for new in changed)


def test_vocal_tone_has_the_gains_of_tone(rng):
    vocals = rng.standard_normal((2, 5000)).astype(np.float32)
    changed = next(
        new
        for new in (augment.vocal_tone(vocals, 16_000, generator) for generator in seeds())
        if new is not vocals
    )
    gains_db = 20 * np.log10(np.abs(np.fft.rfft(changed) / np.fft.rfft(vocals)))[:, 1:]
    assert np.abs(gains_db).max() <= augment.TONE_DB + 0.01 and np.ptp(gains_db) > 3


@pytest.mark.parametrize("semitones", [-5, 0.2, 4])
def test_second_voice_sings_another_note_in_time(semitones):
    rate, factor = 16_000, 2 ** (semitones / 12)
    vocals = np.float32(tone(440, 2, rate))
    vocals[:, : rate // 2] = vocals[:, -rate // 2 :] = 0  # sung for a second
    second = augment._shifted(vocals, factor, 0.02 * rate, augment.GRAIN_SECONDS * rate)
    assert spectral_peak(second[0], rate) == pytest.approx(440 * factor, rel=0.01)
    late = 0.02 + augment.GRAIN_SECONDS  # at most
    assert not second[:, : rate // 2].any() and not second[:, round((1.5 + late) * rate) + 1 :].any()
    assert audio.level_dbfs(second) == pytest.approx(audio.level_dbfs(vocals), abs=3)


def test_second_voice_is_quieter(rng):
    vocals = rng.standard_normal((1, 16_000)).astype(np.float32)
    added = [augment.second_voice(vocals, 16_000, generator) - vocals for generator in seeds()]
    drops = [audio.level_dbfs(part) - audio.level_dbfs(vocals) for part in added if part.any()]
    low, high = augment.SECOND_DB
    assert low - 5 <= min(drops) < max(drops) <= high, "noise between samples loses 3 dB"


def test_reverberation_leaves_the_direct_sound_and_decays():
    rate, click = 16_000, np.zeros((2, 32_000), np.float32)
    click[:, 0] = 1
    tails = [augment.reverberation(click, rate, generator)[:, 1:] for generator in seeds()]
    tails = [tail for tail in tails if tail.any()]
    for tail in tails:
        energy_db = 10 * np.log10(np.square(tail).sum(axis=1))
        assert augment.WET_DB[0] - 1 < energy_db.min() and energy_db.max() < augment.WET_DB[1] + 1
        assert np.abs(tail[:, round(augment.REVERBERATION_SECONDS[1] * rate) :]).max() < 1e-6
        end = np.flatnonzero(np.abs(tail[0]) > 1e-6)[-1]
        assert np.square(tail[:, : end // 3]).sum() > 50 * np.square(tail[:, -end // 3 + end : end]).sum()
        assert abs(np.corrcoef(tail)[0, 1]) < 0.2, "left and right apart"


def test_band_automation_moves_the_band_within_bounds(pair):
    moved = [augment.band_automation(pair, generator) for generator in seeds()]
    assert all(vocals is pair[0] for vocals, _ in moved)
    gains_db = [20 * np.log10(band / pair[1]) for _, band in moved if band is not pair[1]]
    assert 20 < len(gains_db) < 44 and np.abs(gains_db).max() <= augment.AUTOMATION_DB + 1e-3
    assert np.ptp(gains_db, axis=2).max() > 6
    assert np.abs(np.diff(gains_db, axis=2)).max() < 0.2, "no jumps"


def test_extra_augmentations_are_off_unless_named(toy_root):
    tracks = load_tracks(toy_root, "train")
    plain, extra = (
        VocalPairs(tracks, 4, 1.0, 16_000, 1, seed=0, augmentations=names) for names in ((), augment.EXTRA)
    )
    assert not {*augment.EXTRA} & {*augment.AUGMENTATIONS}
    pairs = [(plain[index]["vocals"], extra[index]["vocals"]) for index in range(len(plain))]
    assert any(not np.array_equal(first, second) for first, second in pairs)
    assert all(first.shape == second.shape == (1, 16_000) for first, second in pairs)
