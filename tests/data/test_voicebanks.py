"""Voicebanks' strings become voices with melodies; a bank that is not there is named and left out."""

import numpy as np
import pytest
import scipy.signal
import soundfile as sf

from dmxlib import audio, data
from dmxlib.data.__main__ import main
from dmxlib.data.sets import sing, voice, voicebanks
from dmxlib.data.sets.sing import VIBRATO_SEMITONES, note_line
from dmxlib.data.sets.voicebanks import BANKS, BREATH_SECONDS, MELODY, TRANSPOSED
from dmxlib.errors import InputError
from dmxlib.reproduce import seeded_generator, uniform

RATE, PITCH = voice.RATE, 300.0
KUMI, ALYS, IBUKI = (next(bank for bank in BANKS if name in bank.name) for name in ("kumi", "ALYS", "ibuki"))


def tone(seconds, frequency=PITCH, rate=RATE):
    """(1, samples): a sine."""
    return 0.2 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)[None]


@pytest.fixture
def clones(tmp_path):
    """Strings of two banks, of 1.5 s; what is left out of a bank has another pitch."""
    folder = tmp_path / "clones"
    for path, frequency in {
        f"{KUMI.name}/_Core_A3/_ka.wav": PITCH,
        f"{KUMI.name}/_Core_D5/_ki.wav": PITCH,
        f"{KUMI.name}/_Whisper_High/_ka.wav": 2500,
        f"{KUMI.name}/Other/clap.wav": 2500,
        f"{IBUKI.name}/C3/ka.wav": PITCH,
        f"{IBUKI.name}/C3/ki.wav": PITCH,
        "a-folder-of-my-own/song.wav": 2500,
    }.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        sf.write(folder / path, tone(1.5, frequency).T, RATE)
    return folder


def prepare(clones, folder):
    """name -> file of the voices."""
    data.prepare("voicebanks", folder, clones, quiet=True)
    return {path.stem: path for path in (folder / "train" / "voices").iterdir()}


def pitch(wave):
    """Instantaneous frequency of a sine (samples,) in Hz, without its ends."""
    phase = np.unwrap(np.angle(scipy.signal.hilbert(wave)))
    return np.diff(phase)[RATE // 20 : -RATE // 20] * RATE / (2 * np.pi)


def test_a_voice_is_a_banks_strings_one_after_the_other(clones, tmp_path):
    voices = prepare(clones, tmp_path / "ready")
    assert voices.keys() == {KUMI.name, IBUKI.name}
    for path in voices.values():
        wave, rate = audio.read(path)
        assert (rate, sf.info(path).subtype, len(wave)) == (RATE, "PCM_16", 2)
        pause = round(BREATH_SECONDS * RATE)
        silent = np.convolve(wave[0] == 0, np.ones(pause - 2), "valid") == pause - 2
        assert np.sum(np.diff(silent.astype(int)) == 1) == 2  # two strings, each with its pause
        assert not wave[:, -pause:].any() and np.array_equal(wave[0], wave[1])
        strength = np.abs(np.fft.rfft(wave[0]))
        beyond = np.fft.rfftfreq(wave.shape[1], 1 / RATE) > 1500  # where the strings left out would be
        assert strength[beyond].max() < 0.02 * strength.max()
    # a voice that nothing is mixed with, as training takes it
    assert [track.name for track in data.load_sources(tmp_path / "ready", "train")] == sorted(voices)


def test_what_is_left_out_of_each_bank(tmp_path):
    for path in ("a/_ka.wav", "Whisper/_ka.wav", "breaths/_ka.wav", "a/_ka.frq", "Other/a/_ka.wav"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    found = {
        bank: [str(path.relative_to(tmp_path)) for path in voicebanks.strings(tmp_path, bank)]
        for bank in (KUMI, ALYS, IBUKI)
    }
    assert found == {
        KUMI: ["a/_ka.wav", "breaths/_ka.wav"],
        ALYS: ["Other/a/_ka.wav", "Whisper/_ka.wav", "a/_ka.wav"],
        IBUKI: ["Other/a/_ka.wav", "Whisper/_ka.wav", "a/_ka.wav", "breaths/_ka.wav"],
    }


def test_what_is_missing_is_named_and_the_terms_are_of_what_is_there(clones, tmp_path, capsys):
    (clones / ALYS.name).mkdir()
    (clones / ALYS.name / "pointer.wav").write_text("version https://git-lfs.github.com/spec/v1")
    sf.write(clones / ALYS.name / "short.wav", tone(0.8).T, RATE)
    voices = prepare(clones, tmp_path / "ready")
    told = capsys.readouterr().err.splitlines()
    for bank in BANKS:
        lines = [line for line in told if line.startswith(f"left out: {bank.name};")]
        assert len(lines) == (bank.name not in voices)
    terms = (tmp_path / "ready" / "LICENSES.md").read_text()
    assert all((bank.terms in terms) == (bank.name in voices) for bank in BANKS)


def test_no_bank_at_all_is_one_sentence(tmp_path):
    for source in (None, tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match=r"clone what data/README.md names [^.]*--source\.$"):
            voicebanks.voices(tmp_path / "ready", source, True)
    assert not (tmp_path / "ready").exists()


def test_two_preparations_are_alike_and_a_voice_that_is_there_stays(clones, tmp_path):
    first, second = (prepare(clones, tmp_path / name) for name in ("first", "second"))
    for name, path in first.items():
        assert path.read_bytes() == second[name].read_bytes()
    waves = [audio.read(path)[0] for path in first.values()]
    assert waves[0].shape != waves[1].shape  # each bank has melodies of its own
    before, terms = first[KUMI.name].stat().st_mtime_ns, (tmp_path / "first" / "LICENSES.md").read_text()
    (clones / KUMI.name).rename(tmp_path / "away")
    prepare(clones, tmp_path / "first")
    assert first[KUMI.name].stat().st_mtime_ns == before
    assert (tmp_path / "first" / "LICENSES.md").read_text() == terms


def test_a_bank_is_no_longer_than_the_longest(clones, monkeypatch):
    clips = voicebanks.strings(clones / IBUKI.name, IBUKI)
    monkeypatch.setattr(voicebanks, "LONGEST_MINUTES", 0.01)
    assert len(list(voicebanks.singing(clips, seeded_generator(0)))) == 1


def test_the_pitch_follows_the_note_line():
    wave = tone(6)
    sung = voicebanks.with_melody(wave, RATE, seeded_generator(3))[0]
    heard = 12 * np.log2(pitch(sung) / PITCH)
    assert heard.min() > MELODY[0] - TRANSPOSED - VIBRATO_SEMITONES
    assert heard.max() < MELODY[-1] + TRANSPOSED + VIBRATO_SEMITONES
    assert np.ptp(heard) > 1.5
    # the same numbers once more: the notes of the line, and how far the whole string is transposed
    generator, frames = seeded_generator(3), round(2 ** (8 / 12) * wave.shape[1] / (0.005 * RATE)) + 1
    line = 12 * np.log2(note_line(np.ones(frames), generator, MELODY))
    line = line + uniform(generator, -TRANSPOSED, TRANSPOSED)
    seconds = (np.arange(len(heard)) + RATE // 20) / RATE
    assert np.abs(heard - np.interp(seconds, 0.005 * np.arange(frames), line)).max() < 0.1


def test_a_line_of_ones_leaves_the_wave(monkeypatch, rng):
    for module, name, nothing in (
        (voicebanks, "MELODY", (0,)),
        (voicebanks, "TRANSPOSED", 0.0),
        (sing, "VIBRATO_SEMITONES", 0.0),
    ):
        monkeypatch.setattr(module, name, nothing)
    wave = rng.uniform(-0.5, 0.5, (1, RATE))
    sung = voicebanks.with_melody(wave, RATE, seeded_generator(0))
    assert np.allclose(sung, wave[:, 1:-1], atol=1e-9)


@pytest.mark.parametrize(("semitones", "seed"), [(MELODY[0], 8), (MELODY[-1], 0)])
def test_varispeed_changes_the_length_by_the_same_factor(monkeypatch, semitones, seed):
    """No string is cut short, however slowly it is sung: a seed draws nearly the widest transposition."""
    monkeypatch.setattr(voicebanks, "MELODY", (semitones,))
    monkeypatch.setattr(sing, "VIBRATO_SEMITONES", 0.0)
    sung = voicebanks.with_melody(tone(2), RATE, seeded_generator(seed))
    factor, widest = np.median(pitch(sung[0])) / PITCH, abs(semitones) + TRANSPOSED
    assert sung.shape[1] == pytest.approx(2 * RATE / factor, abs=4)
    assert 0.95 * widest < abs(12 * np.log2(factor)) < widest


def test_command_line(clones, tmp_path):
    main(["prepare", "voicebanks", str(tmp_path / "ready"), "--source", str(clones)])
    assert (tmp_path / "ready" / "train" / "voices" / f"{KUMI.name}.flac").is_file()
