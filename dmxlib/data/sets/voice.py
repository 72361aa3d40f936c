"""What the sets of voices alone have in common: a recording made ready, and the terms beside it."""

from collections.abc import Iterable
from pathlib import Path

import librosa
import numpy as np
import scipy.signal

from dmxlib import audio
from dmxlib.errors import InputError

RATE = 44_100
VOICE_DBFS = -26.0  # the album's singers lie 2 to 16 dB under the accompaniment
LOWEST_RATE = 22_050  # in Hz; narrower voices would teach that there is nothing above them
SHORTEST_CLIP_SECONDS = 0.25
HIGH_PASS = scipy.signal.butter(4, 70, "highpass", fs=RATE, output="sos")  # hum and knocks lie below voices


def clean(path: Path) -> np.ndarray | None:
    """A clip as (1, samples) at RATE and VOICE_DBFS without silence around it; None if it is of no use."""
    try:
        wave, rate = audio.read(path)
    except InputError:
        return None
    if rate < LOWEST_RATE or audio.level_dbfs(wave) < audio.SILENCE_DBFS:
        return None
    voice = audio.resample(audio.match_channels(wave, 1), rate, RATE)
    voice = scipy.signal.sosfilt(HIGH_PASS, voice).astype(np.float32)
    voice, _ = librosa.effects.trim(voice, top_db=35)
    if voice.shape[1] < SHORTEST_CLIP_SECONDS * RATE:
        return None
    frames = librosa.feature.rms(y=voice)[0, 0]
    spoken = np.sqrt(np.mean(np.square(frames[frames > 0.05 * frames.max()])))
    return voice * min(10 ** (VOICE_DBFS / 20) / spoken, 0.99 / np.abs(voice).max())


def write_licences(destination: Path, changed: str, sources: Iterable) -> None:
    """Write LICENSES.md: what was `changed` of the recordings, and a line of each source, which has a `name`,
    a `repository` on GitHub, and the `terms` that allow to train on it and to pass the model on."""
    lines = [f"- {source.name} (github.com/{source.repository}): {source.terms}\n" for source in sources]
    (destination / "LICENSES.md").write_text(f"# Licences\n\n{changed}\n\n" + "".join(lines))
