"""Songs sung alone become voices, one a song; what a clone holds beside them is left out."""

import numpy as np
import pytest
import soundfile as sf

from dmxlib import audio, data
from dmxlib.data.sets import voice
from dmxlib.errors import InputError

PJS = "TEST/PJS/PJS_corpus_ver1.1/wav/pjs001.wav"
RATE = 48_000


def write(path, amplitude=0.05):
    """A sine of 2 s with half a second of silence before and after it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tone = amplitude * np.sin(2 * np.pi * 300 / RATE * np.arange(2 * RATE))
    sf.write(path, np.pad(tone, RATE // 2), RATE)


def test_a_voice_is_a_song_without_silence_around_it_at_one_level(tmp_path, capsys):
    for name in (PJS, "TEST/PJS/pjs001_speech.wav", "SSVD-v2.0/test/1011.flac", "SSVD-v2.0/test/99.flac"):
        write(tmp_path / "clones" / name)
    data.prepare("solo-singing", tmp_path / "ready", tmp_path / "clones", quiet=True)
    voices = {path.stem: path for path in (tmp_path / "ready" / "train" / "voices").iterdir()}
    assert voices.keys() == {"pjs-pjs001", "hust-1011"}, "speech and other people's songs are left out"
    for path in voices.values():
        wave, rate = audio.read(path)
        assert (rate, len(wave)) == (voice.RATE, 2) and abs(wave.shape[1] / rate - 2) < 0.2
        assert abs(audio.level_dbfs(wave) - voice.VOICE_DBFS) < 1
    terms = (tmp_path / "ready" / "LICENSES.md").read_text()
    assert "CC BY-SA 4.0" in terms and "MIT" in terms and "left out" not in capsys.readouterr().err


def test_a_corpus_that_is_not_there_is_named(tmp_path, capsys):
    write(tmp_path / "clones" / PJS)
    data.prepare("solo-singing", tmp_path / "ready", tmp_path / "clones", quiet=True)
    assert "left out: hust;" in capsys.readouterr().err
    assert "hust" not in (tmp_path / "ready" / "LICENSES.md").read_text().lower()


def test_no_corpus_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="clone what data/README.md names"):
        data.prepare("solo-singing", tmp_path / "ready", tmp_path, quiet=True)
