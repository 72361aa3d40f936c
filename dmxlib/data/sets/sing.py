"""Speech made to sing: WORLD (Morise and others 2016) takes it apart, and its pitch becomes a melody."""

import zlib
from pathlib import Path

import numpy as np
import soundfile as sf
import torch
from tqdm import tqdm

from dmxlib import audio
from dmxlib.errors import InputError
from dmxlib.reproduce import choice, seeded_generator, uniform

FRAME_SECONDS = 0.005
STRETCH = 2.0  # of voiced frames; consonants and pauses keep their length
NOTE_SECONDS = (0.25, 0.9)
SCALE = (-7, -5, -3, 0, 2, 4, 5, 7, 9, 12)  # semitones around the speaker's own pitch, a major scale
GLIDE_SECONDS = 0.06
VIBRATO_HZ, VIBRATO_SEMITONES, VIBRATO_DELAY_SECONDS = 5.5, 0.5, 0.2
SUNG_SECONDS = 90.0  # of speech that are sung of each voice


def sing(speech: np.ndarray, rate: int, generator: torch.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Sing what is said in (samples,): (song (samples,), its f0 in Hz every FRAME_SECONDS, 0 where unvoiced).

    Raises InputError where pyworld is missing.
    """
    try:
        import pyworld
    except ImportError as error:
        raise InputError("making speech sing needs pyworld; pip install pyworld.") from error
    speech = speech.astype(np.float64)
    f0, times = pyworld.dio(speech, rate, frame_period=1000 * FRAME_SECONDS)
    f0 = pyworld.stonemask(speech, f0, times, rate)
    spectrum, aperiodicity = (
        analyse(speech, f0, times, rate) for analyse in (pyworld.cheaptrick, pyworld.d4c)
    )
    ends = np.cumsum(np.where(f0 > 0, STRETCH, 1))
    frames = np.searchsorted(ends, np.arange(int(ends[-1])), side="right")  # what each new frame is made of
    melody = note_line(f0[frames], generator)
    song = pyworld.synthesize(melody, spectrum[frames], aperiodicity[frames], rate, 1000 * FRAME_SECONDS)
    return song.astype(np.float32), melody


def note_line(f0: np.ndarray, generator: torch.Generator, scale: tuple[int, ...] = SCALE) -> np.ndarray:
    """f0 of speech (F,) -> of a melody (F,): notes of a scale, in semitones from the median, with glides and
    vibrato, 0 where it was 0."""
    if not f0.any():
        return f0
    notes, age = np.zeros((2, len(f0)))  # in semitones, in seconds
    degree, start = len(scale) // 2, 0
    while start < len(f0):
        degree = int(np.clip(degree + choice((-2, -1, -1, 0, 1, 1, 2), generator), 0, len(scale) - 1))
        end = start + round(uniform(generator, *NOTE_SECONDS) / FRAME_SECONDS)
        notes[start:end] = scale[degree]
        age[start:end] = FRAME_SECONDS * np.arange(len(notes[start:end]))
        start = end
    width = round(GLIDE_SECONDS / FRAME_SECONDS) | 1
    notes = np.convolve(np.pad(notes, width // 2, mode="edge"), np.ones(width) / width, "valid")
    depth = VIBRATO_SEMITONES * np.clip(age / VIBRATO_DELAY_SECONDS - 1, 0, 1)
    vibrato = depth * np.sin(2 * np.pi * VIBRATO_HZ * age)
    return np.where(f0 > 0, np.median(f0[f0 > 0]) * 2 ** ((notes + vibrato) / 12), 0)


def write_sung(folder: Path, quiet: bool = False) -> None:
    """Write `<voice>.sung.flac` beside every voice of a folder, once; the melody follows from the name."""
    voices = [path for path in sorted(folder.glob("*.flac")) if not path.stem.endswith(".sung")]
    for path in tqdm(voices, desc="sing", unit="voice", disable=quiet):
        sung = path.with_suffix(".sung.flac")
        if not sung.exists():
            rate = sf.info(path).samplerate
            speech, _ = audio.read(path, 0, round(SUNG_SECONDS * rate))
            song, _ = sing(speech[0], rate, seeded_generator(zlib.crc32(path.stem.encode())))
            song = song / max(1, np.abs(song).max())
            audio.write(sung, audio.stereo(song[None]), rate, "PCM_16")
