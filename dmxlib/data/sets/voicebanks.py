"""Nine singers' voicebanks for singing synthesis: strings of syllables, each sung on one steady pitch.

`python -m dmxlib.data prepare voicebanks DST --source DIR` reads the clones of BANKS in DIR and writes
`train/voices/<bank>.flac`: each string cleaned and at varispeed along a melody of its own, so that pitch,
vibrato and the size of the singer vary. A bank that is not there is named and left out.
"""

import itertools
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.ndimage
import torch
from tqdm import tqdm

from dmxlib import audio
from dmxlib.data.sets import voice
from dmxlib.data.sets.sing import FRAME_SECONDS, note_line
from dmxlib.data.tracks import Song
from dmxlib.errors import InputError
from dmxlib.reproduce import seeded_generator, uniform

SHORTEST_SECONDS = 1.0  # of a string; what is shorter is a breath or a single syllable
LONGEST_MINUTES = 60  # of a bank, the pauses apart
TRANSPOSED, MELODY = 3.0, (-4, -2, -1, 0, 1, 3, 5)  # semitones: of a whole string either way, of its notes
BREATH_SECONDS = 0.2  # from string to string
CHANGED = """No voice here is as its author recorded it: each string was cut, filtered, brought to one level,
and changed in pitch and speed."""


@dataclass(frozen=True)
class Bank:
    """A voicebank.

    Args:
        repository: on GitHub.
        terms: what allows to train on it and to pass the model on.
        left_out: parts of the paths that do not hold what is sung.
    """

    repository: str
    terms: str
    left_out: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Of its folder and its voice."""
        return self.repository.partition("/")[2]


BANKS = (
    Bank(
        "oxygen-dioxide/hitsuboku-kumi-ja-act4",
        "Hitsuboku Kumi by Cubialpha, https://cubialpha.wixsite.com/koomstar/character: use in other "
        "software, commercial use and edited samples allowed where name and edits are stated",
        left_out=("Whisper", "Other"),
    ),
    Bank(
        "oxygen-dioxide/scottpoid-ja",
        "SCOTTPOID by Scott, https://nonclione.neocities.org/utau: editing, commercial use and use outside "
        "of synthesizers allowed where the name is stated",
    ),
    Bank(
        "oxygen-dioxide/ALYS-DB-001-JA",
        "ALYS-DB-001-JPN by Lucien Cartier-Tilet: GPL-3.0",
        left_out=("breaths",),
    ),
    Bank(
        "oxygen-dioxide/dorodoro-ja-vcv",
        "Dorodoro by Cerenothoa, https://chongzhen.wikidot.com/files:8940236: use as you like",
    ),
    Bank(
        "oxygen-dioxide/viki-hopper-ja",
        "Viki Hopper by Seiun Virtual Idols, http://www.seiun.co: editing and use outside of synthesizers "
        "allowed where name and author are stated, commercial use of the voicebank asks for approval",
    ),
    Bank("RyuuseiKang/ibuki", "Ibuki by RyuuseiKang: GPL-2.0"),
    Bank("ErithacusProject/ErithacusVB", "Erithacus by the Erithacus Project: CC BY 4.0"),
    Bank("kgs233/UTAU-Yuki", "Yuki by kgs233: public domain"),
    Bank("gansaibow/torone_rei", "Torone Rei by Tatsuya Iwama: MIT"),
)


def voices(destination: Path, source: Path | None, quiet: bool) -> list[Song]:
    """Write what is missing of the voices, 44.1 kHz, 16-bit flac, and their terms; there are no songs.

    Raises InputError where there is no bank at all.
    """
    paths = {bank: destination / "train" / "voices" / f"{bank.name}.flac" for bank in BANKS}
    bar = tqdm(paths.items(), desc="prepare voicebanks", unit="bank", disable=quiet)
    for bank, path in bar:
        if not path.exists():
            write_voice(path, strings(Path(source or ".") / bank.name, bank))
        if not path.exists():
            bar.write(f"left out: {bank.name}; {source} holds no string of it.", file=sys.stderr)
    there = [bank for bank, path in paths.items() if path.exists()]
    if not there:
        raise InputError(
            f"--source {source} holds no folder {BANKS[0].name} or another voicebank with .wav files; clone "
            "what data/README.md names and give the folder above the clones with --source."
        )
    voice.write_licences(destination, CHANGED, there)
    return []


def strings(folder: Path, bank: Bank) -> list[Path]:
    """The .wav files of a clone that hold what is sung, sorted."""
    paths = sorted(folder.rglob("*.wav"))
    return [
        path for path in paths if not any(part in str(path.relative_to(folder)) for part in bank.left_out)
    ]


def write_voice(path: Path, clips: list[Path]) -> None:
    """Write a bank's strings, each with a pause after it; no file where none is of use."""
    sung = singing(clips, seeded_generator(zlib.crc32(path.stem.encode())))
    first = next(sung, None)
    if first is None:
        return
    pause = np.zeros((2, round(BREATH_SECONDS * voice.RATE)), np.float32)
    with audio.open_for_writing(path, voice.RATE, "PCM_16") as file:
        for wave in itertools.chain([first], sung):
            audio.write_block(file, audio.stereo(wave))
            audio.write_block(file, pause)


def singing(clips: list[Path], generator: torch.Generator) -> Iterator[np.ndarray]:
    """The strings (1, samples) in random order, each with a melody, until LONGEST_MINUTES are full."""
    left = LONGEST_MINUTES * 60 * voice.RATE
    for index in torch.randperm(len(clips), generator=generator).tolist():
        wave = voice.clean(clips[index])
        if wave is not None and wave.shape[1] > SHORTEST_SECONDS * voice.RATE:
            wave = with_melody(wave, voice.RATE, generator)
            left -= wave.shape[1]
            yield wave
        if left <= 0:
            return


def with_melody(wave: np.ndarray, rate: int, generator: torch.Generator) -> np.ndarray:
    """(1, samples) on one pitch -> the same at varispeed, its pitch now notes with glides and vibrato."""
    slowest = 2 ** ((TRANSPOSED - MELODY[0] + 1) / 12)
    frames = round(slowest * wave.shape[1] / (FRAME_SECONDS * rate)) + 1
    speed = note_line(np.ones(frames), generator, MELODY)
    speed *= 2 ** (uniform(generator, -TRANSPOSED, TRANSPOSED) / 12)
    samples = np.arange(round(slowest * wave.shape[1]))
    places = np.cumsum(np.interp(samples / rate / FRAME_SECONDS, np.arange(frames), speed))
    places = places[places < wave.shape[1] - 1]
    return scipy.ndimage.map_coordinates(wave[0], [places], order=3)[None].clip(-1, 1)
