"""Toy songs from signal processing alone: the only data that the tests, CI and the demo need.

A singer (glottal pulses through moving formants, breath, consonants, vibrato, pauses) over a small band
(chords, bass, drums). Everything is a function of the seed, so a toy data set is a list of integers.
"""

import math
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.ndimage import convolve1d
from scipy.signal import butter, istft, oaconvolve, sosfilt, stft
from scipy.special import diric

from dmxlib.data.tracks import Song

SECONDS = 20.0  # of a song that is prepared
CONTROL = 200  # Hz: pitch, loudness and formants lie on this grid, so they are the same at every rate
# Formants 1 to 5 of a man's a, e, i, o, u in Hz: three from Peterson and Barney (1952), two typical ones.
VOWELS = np.array([[730, 1090, 2440, 3400, 4500], [530, 1840, 2480, 3500, 4500],
    [270, 2290, 3010, 3600, 4500], [570, 840, 2410, 3300, 4500], [300, 870, 2240, 3300, 4500.0]])  # fmt: skip
BANDWIDTHS = (70, 90, 120, 170, 250)  # Hz
# s, sh, t, k, none: centre and width of the noise (Hz), its level, its length and the break in the voice (s).
CENTRE, WIDTH, LEVEL, BURST, BREAK = np.array([
    [7500, 2000, 4e-3, 0.12, 0.13], [3800, 1200, 4e-3, 0.12, 0.13], [4500, 2000, 6e-3, 0.03, 0.08],
    [2000, 700, 6e-3, 0.04, 0.09], [1000, 1000, 0.0, 0.00, 0.02]]).T  # fmt: skip
SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10))  # major and minor; these chords suit both:
PROGRESSIONS = [(0, 4, 5, 3), (0, 5, 3, 4), (5, 3, 0, 4), (0, 3, 5, 4), (0, 5, 2, 4), (0, 2, 3, 4)]
BAR, PHRASE = 4, 8  # beats; of a phrase, five are sung and three are rest
RHYTHMS = [(0.5, 0.5, 1, 1, 2), (1, 0.5, 0.5, 0.5, 0.5, 2), (1.5, 0.5, 1, 2), (0.5, 0.5, 0.5, 0.5, 1, 2),
           (1, 1, 0.5, 0.5, 2), (1, 1.5, 0.5, 2), (2, 0.5, 0.5, 2)]  # fmt: skip


class Score(NamedTuple):
    beat: float  # s
    chords: np.ndarray  # (4, 3) one a bar, root first; the octave is left to the players
    high: bool  # a woman's voice or a man's
    onset: np.ndarray  # (notes,) s
    length: np.ndarray  # (notes,) s
    pitch: np.ndarray  # (notes,) MIDI numbers
    vowels: np.ndarray  # (2, notes) rows of VOWELS at the note's start and end
    consonant: np.ndarray  # (notes,) which one comes before the note


def songs(destination: Path, source: Path | None, quiet: bool) -> list[Song]:
    """Four to train on, two to test on, SECONDS each."""
    splits = ["train"] * 4 + ["test"] * 2
    return [Song(split, f"Toy Song {seed}", partial(_load, seed)) for seed, split in enumerate(splits)]


def _load(seed):
    return *render_song(seed, SECONDS), 44_100


def render_song(seed: int, seconds: float, rate: int = 44100) -> tuple[np.ndarray, np.ndarray]:
    """Vocals and accompaniment, each float32 (2, round(seconds * rate)); the loudest peak is 0.9."""
    samples = round(seconds * rate)
    composer, singer, players = np.random.default_rng(seed).spawn(3)
    score = _compose(seconds, composer)
    vocals, band = _sing(score, samples, rate, singer), _play(score, samples, rate, players)
    under = 10 ** (-composer.uniform(4.5, 8.5) / 20)  # records keep the voice some dB below the band
    vocals *= under * np.sqrt(np.mean(band**2) / max(np.mean(vocals**2), 1e-12))
    gain = 0.9 / max(np.abs(x).max() for x in (vocals, band, vocals + band))
    return (gain * vocals).astype(np.float32), (gain * band).astype(np.float32)


def _compose(seconds, rng):
    """A tempo, a key, four chords, a melody of two motifs that come back over them, and its syllables."""
    beat, tonic, high = 60 / rng.uniform(80, 124), rng.integers(12), bool(rng.integers(2))
    scale, roots = SCALES[rng.integers(2)], rng.choice(PROGRESSIONS)
    chords = tonic + np.array([[scale[(root + third) % 7] for third in (0, 2, 4)] for root in roots])
    ladder = [p for p in (range(57, 72) if high else range(48, 64)) if (p - tonic) % 12 in scale]
    notes, chosen = [], rng.permutation(len(RHYTHMS))[:2]
    motifs = [(RHYTHMS[i], rng.choice([-3, -2, -1, -1, 1, 1, 2, 3], len(RHYTHMS[i]))) for i in chosen]
    for start in np.arange(rng.choice([0.5, 1]), seconds / beat + 1, PHRASE):
        notes += _phrase(start, *motifs[rng.integers(2)], ladder, chords, rng)
    onset, length, pitch = np.array(notes).T * [[beat], [beat], [1]]
    consonant = rng.choice(5, len(onset), p=(0.15, 0.1, 0.25, 0.2, 0.3))
    length[:-1] = np.minimum(length[:-1], np.diff(onset) - BREAK[consonant[1:]])
    return Score(beat, chords, high, onset, length, pitch, rng.integers(5, size=(2, len(onset))), consonant)


def _phrase(start, rhythm, steps, ladder, chords, rng):
    """[(onset in beats, length in beats, pitch)]: a walk on the scale; long notes fit the chord below."""
    place, notes = len(ladder) // 2 + rng.integers(-1, 2), []
    for length, step in zip(rhythm, steps, strict=True):
        place += step if 0 <= place + step < len(ladder) else -step
        if length >= 1:
            chord = chords[int(start // BAR) % len(chords)] % 12
            place = min((abs(i - place), i) for i, pitch in enumerate(ladder) if pitch % 12 in chord)[1]
        notes.append((start, length, ladder[place]))
        start += length
    return notes


def _smooth(x, seconds):
    """Glide between the steps of x (..., time) on the control grid."""
    window = np.hanning(round(seconds * CONTROL) + 2)
    return convolve1d(x, window / window.sum(), mode="nearest")


def _gestures(score, t, rng):
    """What the singer does at the times t: f0 (T,) in Hz, loudness (T,), formants (5, T) in Hz."""
    note = np.maximum(np.searchsorted(score.onset - 0.05, t) - 1, 0)  # singers slide before the beat
    age = t - score.onset[note]
    part = np.clip(age / score.length[note], 0, 1)
    drift, jitter, shimmer = rng.standard_normal((3, len(t)))
    vibrato = 0.7 * np.clip((age - 0.2) / 0.5, 0, 1) * np.sin(2 * np.pi * rng.uniform(5, 6) * t)
    midi = _smooth(score.pitch[note] + vibrato, 0.1) + 0.5 * _smooth(drift, 0.3) + 0.03 * jitter
    f0 = 440 * 2 ** ((midi - 69) / 12)
    accent = rng.uniform(0.7, 1, len(score.onset))[note] * (1 - 0.4 * part)
    loudness = _smooth(accent * ((age >= 0) & (age < score.length[note])), 0.05) * (1 + 0.03 * shimmer)
    first, last = VOWELS[score.vowels][:, note]
    formants = _smooth((first + 0.6 * part[:, None] * (last - first)).T, 0.1)
    formants *= rng.uniform(0.95, 1.05) * (1.17 if score.high else 1)
    formants[0] = np.maximum(formants[0], f0)  # as singers do on high notes
    return f0, loudness, formants


def _consonants(score, t):
    """Loudness (4, T) of s, sh, t and k at the times t: each sounds right before its note."""
    coming = np.minimum(np.searchsorted(score.onset, t), len(score.onset) - 1)
    wait, kind = score.onset[coming] - t, score.consonant[coming]
    sounding = (wait >= 0) & (wait < BURST[kind]) & (kind == np.arange(4)[:, None])
    return _smooth(sounding.astype(float), 0.02)


def _tract(f, formants):
    """Complex response (bins, T) at the frequencies f (bins, 1) of a tract with formants (5, T), in Hz."""
    # The formants above the fifth stand still; without them the response falls far too fast.
    poles = [(at, at / 12) for at in range(5500, 60000, 1000)] + list(zip(formants, BANDWIDTHS, strict=True))
    return math.prod(centre**2 / (centre**2 - f**2 + 1j * f * width) for centre, width in poles)


def _sing(score, samples, rate, rng):
    """The voice, (2, samples): pulses and breath through the tract, consonants, a small room."""
    t, now = np.arange(0, samples / rate + 0.1, 1 / CONTROL), np.arange(samples) / rate
    f0, loudness, formants = _gestures(score, t, rng)
    pitch, loud = np.interp(now, t, f0), np.interp(now, t, loudness)
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    count = 2 * (0.45 * rate // pitch) + 1
    pulses = loud * (count * diric(phase, count) - 1)  # every harmonic below Nyquist, all equally strong
    hiss = np.sqrt(rate) * rng.standard_normal(samples)  # as strong per Hz at every rate
    breath = 1.5e-4 * loud * hiss * (1 + 0.7 * np.cos(phase))
    window = 2 ** round(np.log2(rate / 43))  # 23 ms: the formants hardly move within
    grid = dict(fs=rate, nperseg=window, noverlap=window * 3 // 4)
    f, times, pulses = stft(pulses, **grid)  # (bins, T)
    rows = np.array([np.interp(times, t, row) for row in (*formants, *_consonants(score, t))])
    glottis = 1j * f / 250 / (1 + 1j * f / 250) ** 2  # -12 dB an octave, of which the lips give 6 back
    tract = _tract(f[:, None], rows[:5])
    tract /= np.linalg.norm(glottis[:, None] * tract, axis=0) ** 0.6  # singers even out their vowels
    voice = (glottis[:, None] * pulses + stft(breath, **grid)[2]) * tract
    colours = LEVEL[:4] * np.exp(-(((f[:, None] - CENTRE[:4]) / WIDTH[:4]) ** 2))  # (bins, 4)
    voice += colours @ rows[5:] * stft(hiss, **grid)[2]
    return _room(istft(voice, **grid)[1][:samples], rate, rng)


def _room(mono, rate, rng):
    """(samples,) -> (2, samples): the direct sound, six early reflections and a short tail on each side."""
    t = np.arange(rate // 4) / rate
    response = 1.5 / np.sqrt(rate) * rng.standard_normal((2, len(t))) * np.exp(-t / 0.035)
    for side in response:
        side[rng.integers(0.008 * rate, 0.05 * rate, 6)] += rng.uniform(-0.15, 0.15, 6)
    response[:, 0] = 1
    wet = oaconvolve(mono[None], response, axes=1)[:, : len(mono)]
    return np.where(np.abs(wet) < 1e-4, 0, wet)  # digital silence: pYIN finds pitch in any residue


def _play(score, samples, rate, rng):
    """The band, (2, samples): each instrument is a sound struck at its places in every bar."""
    beat, bars = score.beat, np.arange(0, samples / rate, BAR * score.beat)  # s
    groove = [(0, 1.5, 2, 3.5), (0, 0.75, 2, 2.75), (0, 1, 2, 3), (0, 2, 2.5)][rng.integers(4)]  # beats
    strums = [(0,), (0, 1.5, 3), (0, 1, 2, 3), (0.5, 1.5, 2.5, 3.5)][rng.choice(4, p=(0.4, 0.2, 0.2, 0.2))]
    groove, strums, held = beat * np.array(groove), beat * np.array(strums), len(strums) == 1
    bass, chords = np.zeros((2, 2, samples))
    for bar, chord in zip(bars, np.resize(score.chords, (len(bars), 3)), strict=True):  # over and over
        _strike(bass, _string(28 + (chord[0] - 28) % 12, beat, False, rate), bar + groove, rate, rng)
        for pitch in 53 + (chord - 53) % 12:
            _strike(chords, _string(pitch, beat, held, rate), bar + strums, rate, rng)
    bass = sosfilt(butter(2, 300, fs=rate, output="sos"), bass)
    chords = sosfilt(butter(2, rng.uniform(1000, 2200), fs=rate, output="sos"), chords)
    return 3 * bass + chords + _drums(bars, groove, beat, samples, rate, rng)


def _strike(track, sound, times, rate, rng):
    """Add the sound (2, n) to the track (2, samples) at the times in s, never twice equally hard."""
    for start in np.round(times * rate).astype(int):
        left = max(track.shape[1] - start, 0)
        track[:, start : start + sound.shape[1]] += rng.uniform(0.8, 1) * sound[:, :left]


def _string(midi, beat, held, rate):
    """One note, (2, n): detuned saws spread over the channels, held for a bar or plucked."""
    t, pitch = np.arange(int((BAR if held else 1.5) * beat * rate)) / rate, 440 * 2 ** ((midi - 69) / 12)
    saws = np.array([pitch * 2**detune * (t + detune) % 1 - 0.5 for detune in (-0.007, -0.002, 0.003, 0.008)])
    shape = 0.22 * np.clip(t / 0.15, 0, 1) if held else 0.36 * np.clip(t / 0.005, 0, 1) * np.exp(-t / 0.25)
    return [[1, 0.8, 0.3, 0.1], [0.1, 0.3, 0.8, 1]] @ saws * shape * np.clip((t[-1] - t) / 0.1, 0, 1)


def _drums(bars, groove, beat, samples, rate, rng):
    """(2, samples): kick with the bass, snare on two and four, hi-hat on the quavers."""
    t, track = np.arange(int(0.3 * rate)) / rate, np.zeros((2, samples))
    rattle, metal = np.sqrt(rate / 44100) * rng.standard_normal((2, len(t)))
    kick = np.sin(2 * np.pi * (48 * t - 5 * np.exp(-t / 0.03))) * np.exp(-t / 0.09)
    snare = sosfilt(butter(1, (900, 3000), "band", fs=rate, output="sos"), rattle) * np.exp(-t / 0.045)
    snare += 0.6 * np.sin(2 * np.pi * 190 * t) * np.exp(-t / 0.05)
    hat = sosfilt(butter(4, min(7000, 0.4 * rate), "high", fs=rate, output="sos"), metal) * np.exp(-t / 0.02)
    backbeat, quavers = beat * np.array([1, 3]), beat * np.arange(0, BAR, 0.5)
    kit = [(kick, 0.8, 0.8, groove), (snare, 0.4, 0.35, backbeat), (hat, 0.08, 0.14, quavers)]
    for sound, left, right, places in kit:
        _strike(track, np.outer((left, right), sound), np.add.outer(bars, places).ravel(), rate, rng)
    return track
