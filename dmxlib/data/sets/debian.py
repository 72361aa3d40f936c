"""An open corpus out of Debian's archive: voices of many speakers, and instrumental music to lay under them.

`python -m dmxlib.data prepare debian DST` fetches PACKAGES with apt-get, takes them apart with dpkg-deb (no
root, nothing is installed) and writes below DST
- `<split>/voices/*.flac`, one speaker's clips, cleaned, one after the other; `<split>/music/*.flac`, pieces;
- `<split>/<song>/{mixture,vocals}.flac`: fixed mixes of the two, which every command reads as songs;
- `packages/<package>/`: its copyright file and what was taken; `LICENSES.md` and `manifest.csv` sum them up.
"""

import os
import re
import shutil
import subprocess
import sys
import zlib
from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import librosa
import numpy as np
import pandas as pd
import soundfile as sf
import yaml
from tqdm import tqdm

from dmxlib import audio
from dmxlib.data.sets.voice import RATE, clean
from dmxlib.data.tracks import SPLITS, Song, Track, load_sources
from dmxlib.errors import InputError
from dmxlib.reproduce import choice, seeded_generator, uniform, whole
from dmxlib.summary import markdown

MUSIC_DBFS = -20.0  # 6 dB over voice.VOICE_DBFS
EXCERPT_SECONDS, SHORTEST_PIECE_SECONDS = 75.0, 40.0
SHORTEST_VOICE_SECONDS, PAUSE_SECONDS = 8.0, 0.25
SONG_SECONDS, VOICE_OVER_DB = 60.0, (-6.0, 8.0)  # the random gain of the voice of a song
TRAINING_SONGS = 12  # of train; every voice of valid and of test is in a song


@dataclass(frozen=True)
class Package:
    """What to take out of a package; all three expressions have to match a whole name.

    Args:
        name: of the package; an expression since some names hold a version, of which the highest is taken.
        voices: paths of clips; the groups `language` and `speaker` tell the speakers apart.
        language: of voices whose paths do not name it.
        music: paths of pieces.
        split: of the music; that of a voice follows from its language.
    """

    name: str
    voices: str = ""
    language: str = "en"
    music: str = ""
    split: str = "train"


TABLE = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())
PACKAGES = tuple(Package(**package) for package in TABLE["packages"])
LANGUAGES = TABLE["languages"]  # split: its voices' languages
EXCLUDED = TABLE["excluded"].split()  # parts of paths


def songs(destination: Path, source: Path | None, quiet: bool, sing: bool = False) -> list[Song]:
    """Write what is missing of the sources and the tables, and return the songs to be mixed of them.

    A package that cannot be had is reported and the others go on. With `sing` every training voice gets a
    sung copy beside it. Raises InputError where no package can be had at all.
    """
    bar = tqdm(PACKAGES, desc="fetch packages", unit="package", disable=quiet)
    for package in bar:
        try:
            extract(package, destination)
        except InputError as error:
            bar.write(f"left out: {error}", file=sys.stderr)
    manifests = sorted(destination.glob("packages/*/manifest.csv"))
    shutil.rmtree(destination / ".cache", ignore_errors=True)
    if not manifests:
        raise InputError("none of the packages could be had; run `sudo apt-get update` and try again.")
    table = pd.concat([pd.read_csv(path) for path in manifests])
    table.to_csv(destination / "manifest.csv", index=False)
    (destination / "LICENSES.md").write_text(licences(destination, table))
    if sing:
        from dmxlib.data.sets.sing import write_sung  # pyworld is an extra

        write_sung(destination / "train" / "voices", quiet)
    return [song for split in SPLITS for song in mixes(destination, split)]


# -- packages ------------------------------------------------------------------------------------------------


def extract(package: Package, destination: Path) -> None:
    """Fetch a package and write its voices and pieces, once; its manifest is written last.

    Raises InputError where it cannot be had.
    """
    for done in destination.glob("packages/*/manifest.csv"):
        if re.fullmatch(package.name, done.parent.name):
            return
    cache = destination / ".cache"
    name, deb = fetch(package.name, cache)
    tree = unpack(deb, cache / name)
    files = {str(path.relative_to(tree)): path for path in audio_files(tree)}
    voices, rows = defaultdict(list), []
    for inner, path in files.items():
        if match := package.voices and re.fullmatch(package.voices, inner):
            groups = match.groupdict()
            language = groups.get("language") or package.language
            voices[language, "-".join(filter(None, (name, language, groups.get("speaker"))))].append(path)
    for (language, speaker), clips in voices.items():
        split = next((split for split, languages in LANGUAGES.items() if language in languages), "train")
        target = destination / split / "voices" / f"{speaker}.flac"
        rows.append((target, write_voice(target, clips), language, clips))
    for inner, path in files.items():
        if package.music and re.fullmatch(package.music, inner):
            target = destination / package.split / "music" / f"{name}-{path.parent.name}-{path.stem}.flac"
            rows.append((target, write_piece(target, path), "", [path]))
    rows = [row for row in rows if row[1]]
    if not rows:
        raise InputError(f"{deb.name} holds none of the files that are looked for; its version is another.")
    record = destination / "packages" / name
    record.mkdir(parents=True, exist_ok=True)
    shutil.copy(next(tree.glob("usr/share/doc/*/copyright")), record / "copyright")
    version = run("dpkg-deb", "-f", deb, "Version").strip()
    table = pd.DataFrame(
        {
            "file": target.relative_to(destination),
            "seconds": round(seconds, 2),
            "language": language,
            "package": name,
            "version": version,
            "files": len(originals),
            "original": originals[0].relative_to(tree),  # the first one
        }
        for target, seconds, language, originals in rows
    )
    with whole(record / "manifest.csv") as part:
        table.to_csv(part, index=False)
    shutil.rmtree(tree)
    deb.unlink()


def audio_files(tree: Path) -> list[Path]:
    """The audio files below a folder, sorted, without those that are left out."""
    return [
        path
        for path in sorted(tree.rglob("*"))
        if path.suffix.lower() in audio.EXTENSIONS and path.is_file() and not path.is_symlink()
        if not any(part in path.as_posix().removeprefix(tree.as_posix()) for part in EXCLUDED)
    ]


def fetch(name: str, cache: Path) -> tuple[str, Path]:
    """Download a package to `cache`: (its name, the file).

    Raises InputError where apt knows no such package or cannot have it.
    """
    found = run("apt-cache", "--names-only", "search", f"^{name}$").splitlines()
    if not found:
        raise InputError(f"apt knows no package {name}; run `sudo apt-get update`.")
    name = max(line.split()[0] for line in found)
    cache.mkdir(parents=True, exist_ok=True)
    # apt's own user may not write here, and without this says so as a warning.
    run("apt-get", "-o", "APT::Sandbox::User=root", "download", name, cwd=cache)
    return name, max(cache.glob(f"{name}_*.deb"), key=os.path.getmtime)


def unpack(deb: Path, tree: Path) -> Path:
    """Take a package apart into the folder `tree`, with the archives in it."""
    run("dpkg-deb", "-x", deb, tree)
    for archive in tree.rglob("*.pk3"):  # a zip archive, by its game's own name
        shutil.unpack_archive(archive, archive.with_suffix(""), "zip")
    return tree


def run(*command, cwd=None) -> str:
    """What a program prints. Raises InputError with its complaint where it fails."""
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise InputError(f"{command[0]} is not installed; this data set is made on Debian.") from error
    if done.returncode:
        reason = " ".join(done.stderr.split())
        raise InputError(f"{command[0]} fails on {command[-1]}: {reason}")
    return done.stdout


def licences(destination: Path, table: pd.DataFrame) -> str:
    """The licence table in markdown."""
    header, lines = ["package", "version", "source", "voices (min)", "music (min)", "licences"], []
    for (package, version), rows in table.groupby(["package", "version"]):
        text = (destination / "packages" / package / "copyright").read_text(errors="replace")
        source = re.search(r"(?:^Source:|downloaded from)\s*(\S+)", text, re.M)
        names = re.findall(r"^License: *(\S.*?) *$", text, re.M)
        names = names or re.findall(r"common-licenses/([\w.-]*\w)", text) or ["its own, see packages/"]
        voices = rows.file.str.contains("/voices/")
        cells = [package, version, source[1] if source else ""]
        cells += [f"{rows.seconds[kind].sum() / 60:.1f}" for kind in (voices, ~voices)]
        lines.append([*cells, ", ".join(sorted(set(names)))])
    return (
        "# Licences\n\nLicences are those that the package's copyright file names, for any of its files; "
        f"that file lies in packages/.\n\n{markdown(header, lines)}"
    )


# -- sources -------------------------------------------------------------------------------------------------


def write_voice(path: Path, clips: list[Path]) -> float:
    """One speaker's clips, cleaned, with pauses between them; the seconds written, 0 for too few."""
    if not path.exists():
        cleaned = [clip for clip in map(clean, clips) if clip is not None]
        if sum(clip.shape[1] for clip in cleaned) < SHORTEST_VOICE_SECONDS * RATE:
            return 0
        with audio.open_for_writing(path, RATE, "PCM_16") as file:
            for clip in cleaned:
                pause = round(PAUSE_SECONDS * RATE)
                audio.write_block(file, audio.stereo(np.pad(clip, ((0, 0), (0, pause)))))
    return sf.info(path).duration


def write_piece(path: Path, piece: Path) -> float:
    """The middle of a piece at MUSIC_DBFS; the seconds written, 0 for one that is too short."""
    if not path.exists():
        try:
            with audio.open_audio(piece) as file:
                rate, samples = file.samplerate, round(EXCERPT_SECONDS * file.samplerate)
                start = max(0, (file.frames - samples) // 2)
            wave, _ = librosa.effects.trim(audio.read(piece, start, samples)[0], top_db=50)
        except InputError:
            return 0
        if wave.shape[1] < SHORTEST_PIECE_SECONDS * rate or audio.level_dbfs(wave) < audio.SILENCE_DBFS:
            return 0
        wave = audio.resample(wave, rate, RATE)
        gain = 10 ** ((MUSIC_DBFS - audio.level_dbfs(wave)) / 20)
        audio.write(path, wave * min(gain, 0.99 / np.abs(wave).max()), RATE, "PCM_16")
    return sf.info(path).duration


# -- songs ---------------------------------------------------------------------------------------------------


def mixes(destination: Path, split: str) -> list[Song]:
    """Fixed songs: every voice of a split, in "train" the first TRAINING_SONGS, over a random piece."""
    sources = load_sources(destination, split)
    voices = [track for track in sources if track.has_vocals and not track.name.endswith(".sung")]
    pieces = [track for track in sources if not track.has_vocals]
    if split == "train":
        voices = voices[:TRAINING_SONGS]
    return [Song(split, voice.name, partial(mix, voice, pieces)) for voice in voices if pieces]


def mix(voice: Track, pieces: list[Track]) -> tuple[np.ndarray, np.ndarray, int]:
    """(vocals, accompaniment, rate) of at most SONG_SECONDS; the choices follow from the voice's name."""
    generator = seeded_generator(zlib.crc32(voice.name.encode()))
    piece = choice(pieces, generator)
    samples = min(round(SONG_SECONDS * RATE), voice.samples)
    start = int(uniform(generator, 0, max(1, voice.samples - samples)))
    vocals, accompaniment = voice.vocals(start, samples), audio.fit(piece.mixture(0, samples), samples)
    return vocals * np.float32(10 ** (uniform(generator, *VOICE_OVER_DB) / 20)), accompaniment, RATE
