"""MIR-1K: a thousand clips of 110 Chinese pop songs that 19 people sang at karaoke, in a clone.

`python -m dmxlib.data prepare mir-1k DST --source CLONE` joins each song's clips, which lay apart in it, in
their order, each faded into the next over FADE_SECONDS. The left channel of a clip is the accompaniment, the
right one the voice. Split by singer, so that no voice is in two. With `--split huang` the data of the
benchmark that others published: voice and accompaniment of each clip at 0 dB; to train on, two singers' clips
but for the four that Huang and others chose by, which are to validate on; to test on, the other 17 singers'
825 clips, one by one.

MIR-1K is for research. Source: Hsu and Jang, "On the improvement of singing voice separation for monaural
recordings using the MIR-1K dataset", IEEE Trans. ASLP 2010; the benchmark: Huang, Kim, Hasegawa-Johnson and
Smaragdis, "Singing-voice separation from monaural recordings using deep recurrent neural networks", ISMIR
2014.
"""

import re
import sys
import wave
from collections import defaultdict
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from dmxlib import audio
from dmxlib.data.tracks import Song
from dmxlib.errors import InputError

RATE = 16_000
FADE_SECONDS = 0.05
CLIPS = {  # of each singer
    "Ani": 38, "Kenshin": 52, "abjones": 43, "amy": 132, "annar": 42, "ariel": 40, "bobon": 50, "bug": 38,
    "davidson": 52, "fdps": 48, "geniusturtle": 69, "heycat": 40, "jmzen": 52, "khair": 44, "leon": 97,
    "stool": 45, "tammy": 8, "titon": 45, "yifen": 65,
}  # fmt: skip
BY_SINGER = dict.fromkeys(CLIPS, "train") | {
    **dict.fromkeys(("Ani", "annar", "bug", "khair", "titon", "yifen"), "test"),
    **dict.fromkeys(("ariel", "heycat"), "valid"),
}
HUANG_SINGERS = ("abjones", "amy")
HUANG_VALID = ("abjones_5_08", "abjones_5_09", "amy_9_08", "amy_9_09")  # their footnote


def songs(destination: Path, source: Path | None, quiet: bool, split: str = "singers") -> list[Song]:
    """The songs of `split`, "singers" or "huang"; clips that are missing or no good are named on stderr.

    Raises InputError where the source holds none.
    """
    clips = sound_clips(source)
    if split == "huang":
        return _huang_songs(clips)
    return [
        Song(BY_SINGER[name.partition("_")[0]], name, partial(_join, paths, read_clip))
        for name, paths in by_song(clips).items()
    ]


def _huang_songs(clips):
    trained = [clip for clip in clips if clip.stem.startswith(HUANG_SINGERS) and clip.stem not in HUANG_VALID]
    songs = [Song("train", name, partial(_join, paths, at_0_db)) for name, paths in by_song(trained).items()]
    for clip in clips:
        if clip not in trained:
            split = "valid" if clip.stem in HUANG_VALID else "test"
            songs.append(Song(split, clip.stem, partial(_join, [clip], at_0_db)))
    return songs


def sound_clips(source: Path | None) -> list[Path]:
    """The clips of a clone that are whole, by singer, song and number."""
    names = re.compile(rf"({'|'.join(CLIPS)})_\d+_\d+\.wav")
    folders = {path.parent for path in Path(source or ".").rglob("Wavfile/*.wav")}
    if len(folders) > 1:
        raise InputError(f"--source {source} holds {len(folders)} folders Wavfile/; name the folder of one.")
    found = [path for folder in folders for path in folder.iterdir() if names.fullmatch(path.name)]
    good = [path for path in found if _complaint(path) is None]
    if not good:
        raise InputError(
            f"--source {source} holds no whole Wavfile/<singer>_<song>_<clip>.wav; clone "
            "github.com/andabi/music-source-separation and name its folder with --source."
        )
    for path in sorted(set(found) - set(good)):
        print(f"{path.name} is left out: {_complaint(path)}.", file=sys.stderr)
    for singer, count in CLIPS.items():
        missing = count - sum(path.name.startswith(f"{singer}_") for path in found)
        if missing > 0:
            print(f"{missing} of the {count} clips of {singer} are missing.", file=sys.stderr)
    return sorted(good, key=lambda path: [int(x) if x.isdigit() else x for x in path.stem.split("_")])


def _complaint(path: Path) -> str | None:
    """What is wrong with a clip, if anything."""
    try:
        with wave.open(str(path)) as file:
            kind = file.getnchannels(), file.getframerate(), 8 * file.getsampwidth()
            if kind != (2, RATE, 16):
                return "it is {} channels at {} Hz, {} bit, not stereo at 16000 Hz, 16 bit".format(*kind)
            whole = len(file.readframes(file.getnframes())) == 4 * file.getnframes() > 0
            return None if whole else "it is empty or cut short"
    except (wave.Error, EOFError, OSError) as error:
        return f"it is no wav file of PCM samples ({error or 'empty'})"


def by_song(clips: list[Path]) -> dict[str, list[Path]]:
    """ "<singer>_<song>" -> its clips."""
    found = defaultdict(list)
    for clip in clips:
        found[clip.stem.rpartition("_")[0]].append(clip)
    return found


def read_clip(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """A clip's (voice, accompaniment), each (samples,) at RATE."""
    accompaniment, voice = audio.read(path)[0]
    return voice, accompaniment


def at_0_db(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The same with the voice as loud as the accompaniment, in RMS over the clip."""
    voice, accompaniment = read_clip(path)
    return voice * np.float32(np.linalg.norm(accompaniment) / max(np.linalg.norm(voice), 1e-9)), accompaniment


def _join(paths, read) -> tuple[np.ndarray, np.ndarray, int]:
    """Clips as one (vocals, accompaniment, rate), each faded into the next."""
    pairs = [np.stack(read(path)) for path in paths]  # (2 sources, samples)
    fade = round(FADE_SECONDS * RATE)
    ramp = (np.arange(fade, dtype=np.float32) + 0.5) / fade
    for before, after in pairwise(pairs):
        after[:, :fade] = before[:, -fade:] * (1 - ramp) + after[:, :fade] * ramp
    joined = np.concatenate([*(pair[:, :-fade] for pair in pairs[:-1]), pairs[-1]], axis=1)
    vocals, accompaniment = (audio.stereo(source[None]) for source in joined)
    return vocals, accompaniment, RATE
