"""Choose excerpts of separated songs and write them as a listening test, for our page and for webMUSHRA."""

import json
import secrets
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dmxlib import audio, metrics
from dmxlib.data import Track, load_tracks
from dmxlib.errors import InputError, check_seed
from dmxlib.evaluation.scoring import SUNG_DBFS, SUNG_FRAME_SECONDS, above
from dmxlib.listening.aspects import ASPECTS
from dmxlib.listening.webmushra import write_configs
from dmxlib.reproduce import whole

RATE = 44_100  # Hz, of every sample of every test: webMUSHRA wants one rate
LOUDNESS = -23.0  # LUFS, as in EBU R 128: leaves most voices their peaks
FADE_SECONDS = 0.02  # at both ends of a sample: no click
LEAST_SECONDS = 1.2  # a third of it still holds one block of the loudness meter, 0.4 s
PIECE = 100  # tenths of a second that pYIN gets at a time
SHARES = (1, 2 / 3, 1 / 2, 1 / 3)  # of the wanted length, tried in turn where the songs hold too little voice


@dataclass(frozen=True)
class Passage:
    """Samples `start` to `start + length` of a track: an excerpt that is played."""

    track: Track
    start: int
    length: int

    def of(self, path: Path) -> np.ndarray:
        """The same excerpt of an estimate, or of the mixture, (2, samples) at RATE and LOUDNESS.

        Raises InputError where the file's rate or length is not the track's, or nothing is to be heard.
        """
        with audio.open_audio(path) as file:
            if (file.samplerate, file.frames) != (self.track.rate, self.track.samples):
                raise InputError(
                    f"{path} has {file.frames} samples at {file.samplerate} Hz, its mixture "
                    f"{self.track.samples} at {self.track.rate} Hz; separate the whole song at its rate."
                )
        wave = audio.resample(audio.read(path, self.start, self.length)[0], self.track.rate, RATE)
        ramp = np.arange(wave.shape[1], dtype=np.float32) / (FADE_SECONDS * RATE)
        faded = wave * np.minimum(1, np.minimum(ramp, ramp[::-1]))
        return equally_loud(faded, f"{path} from {self.span}")

    @property
    def span(self) -> str:
        """Where in the song it lies, in seconds."""
        first, last = self.start / self.track.rate, (self.start + self.length) / self.track.rate
        return f"{first:.1f} to {last:.1f} s"


# -- which excerpts ------------------------------------------------------------------------------------------


def voiced_tenths(track: Track) -> np.ndarray:
    """(2, tenths of a second) of a track: is it loud enough to be sung; does pYIN hear a pitch there?"""
    vocals = track.vocals()
    sung = above(vocals, track.rate, SUNG_DBFS)
    voiced, size = np.zeros_like(sung), round(SUNG_FRAME_SECONDS * track.rate)
    for first in tqdm(range(0, len(sung), PIECE), desc=track.name, leave=False, disable=None):
        piece = sung[first : first + PIECE]
        if piece.any():  # pYIN is slow, and hears a pitch in faint noise
            mask = metrics.voiced_mask(vocals[:, first * size : (first + PIECE) * size], track.rate)
            centres = (np.arange(len(piece)) + 0.5) * len(mask) / len(piece)
            voiced[first : first + PIECE] = mask[centres.astype(int)]
    return np.stack([sung, voiced])


def voiced_excerpts(
    track: Track, voiced, seconds: float, generator: np.random.Generator
) -> Iterator[Passage]:
    """In random order, as many excerpts without overlap that are voiced for more than half as there can be.

    `voiced` is a function like `voiced_tenths`.
    """
    length = round(seconds / SUNG_FRAME_SECONDS)
    total = np.pad(np.cumsum(voiced(track), axis=1), ((0, 0), (1, 0)))
    starts, end = [], 0
    for start in np.flatnonzero((total[:, length:] - total[:, :-length] > length / 2).all(axis=0)):
        if start >= end:
            starts.append(start)
            end = start + length
    size = round(SUNG_FRAME_SECONDS * track.rate)
    for start in generator.permutation(starts).astype(int):
        yield Passage(track, int(start) * size, length * size)


def choose(tracks: list[Track], count: int, seconds: float, seed: int, voiced=voiced_tenths) -> list[Passage]:
    """`count` voiced excerpts, one a track in random order, then a second one of each, and so on.

    All equally long, and shorter than `seconds` only where the tracks do not hold enough of that length.
    `voiced` is as `voiced_excerpts` takes it.

    Raises InputError where even a third of it is too long.
    """
    voiced = cache(voiced)  # slow, and the same for every length
    for share in SHARES:
        generator = np.random.default_rng(seed)
        order = generator.permutation(len(tracks))
        streams = [voiced_excerpts(tracks[index], voiced, share * seconds, generator) for index in order]
        chosen = []
        with tqdm(total=count, desc=f"choose {share * seconds:.3g} s", unit="excerpt", disable=None) as bar:
            while streams and len(chosen) < count:
                found = next(stream := streams.pop(0), None)
                if found:
                    chosen.append(found)
                    streams.append(stream)
                    bar.update()
        if len(chosen) == count:
            return chosen
    names = ", ".join(track.name for track in tracks[:3]) + (" ..." if len(tracks) > 3 else "")
    raise InputError(
        f"{names}: {len(chosen)} excerpts of {share * seconds:.3g} s without overlap are voiced for more "
        f"than half, {count} are needed (one for practice); ask for fewer --recordings or --seconds."
    )


def find_estimate(estimates: Path, system: str, track: Track) -> Path | None:
    """ESTIMATES/<system>/<track>/vocals.wav, or .flac and so on."""
    paths = sorted((estimates / system / track.name).glob("vocals.*"))
    return next((path for path in paths if path.suffix.lower() in audio.EXTENSIONS), None)


def separated_tracks(estimates: Path, systems, data_root) -> list[Track]:
    """The test songs that every system separated.

    Raises InputError where the folders are not there, or no song is common to all.
    """
    if not (Path(data_root) / "test").is_dir():  # never another split: those songs may have trained a system
        raise InputError(f"--data_root {data_root} has no folder test/; name a prepared data set.")
    for system in systems:
        if not (estimates / system).is_dir():
            found = sorted(path.name for path in estimates.glob("*") if path.is_dir())
            there = f"holds {', '.join(found)}" if found else "holds no systems"
            raise InputError(f"{estimates}/{system} does not exist: {estimates} {there}; see --systems.")
    tracks = load_tracks(data_root, "test")
    common = [track for track in tracks if all(find_estimate(estimates, name, track) for name in systems)]
    if not common:
        raise InputError(
            f"{estimates} holds no {systems[0]}/<song>/vocals.wav for a test song of {data_root} that every "
            f"system separated ({', '.join(systems)})."
        )
    return common


# -- the samples ---------------------------------------------------------------------------------------------


def equally_loud(wave: np.ndarray, name) -> np.ndarray:
    """A wave (2, samples) at LOUDNESS after ITU-R BS.1770; it may pass full scale.

    Raises InputError, with the name, where there is nothing to hear.
    """
    try:
        import pyloudnorm
    except ImportError as error:
        raise InputError("equal loudness needs pyloudnorm; pip install pyloudnorm.") from error
    loudness = pyloudnorm.Meter(RATE).integrated_loudness(wave.T)
    if not np.isfinite(loudness):
        raise InputError(f"{name} is silent; choose other excerpts with --seed, or fix that estimate.")
    return wave * np.float32(10 ** ((LOUDNESS - loudness) / 20))


def token() -> str:
    """A name that tells nothing: not from the seed, or a listener could work out whose sample it is.

    It begins with a letter: webMUSHRA's YAML reader takes 12e34567 for a number.
    """
    return f"x{secrets.token_hex(4)}"


def make(
    estimates: Path,
    destination: Path,
    data_root,
    systems,
    recordings=6,
    seconds=30.0,
    seed=0,
    voiced=voiced_tenths,
) -> dict:
    """Make a test in the new folder `destination` and return its key.

    `page/` is what listeners may see, `webmushra/` the same for webMUSHRA; `key.json` says whose each sample
    is, README.md what was made. The last excerpt chosen is for training: its ratings do not count. `voiced`
    is as `voiced_excerpts` takes it.

    Raises InputError for folders, systems, songs or numbers that cannot be used; then nothing is made.
    """
    if recordings < 1 or len(set(systems)) < max(2, len(systems)) or not LEAST_SECONDS <= seconds < np.inf:
        raise InputError(
            f"a test needs at least one recording, {LEAST_SECONDS} seconds and two different systems."
        )
    check_seed(seed)
    if destination.exists():
        raise InputError(f"{destination} exists already; name a new folder.")
    tracks = separated_tracks(estimates, systems, data_root)
    excerpts = choose(tracks, recordings + 1, seconds, seed, voiced)
    waves, items, samples = {}, [], {}
    for excerpt in tqdm(excerpts, desc="read", unit="excerpt", disable=None):
        item = {"id": token(), "reference": token(), "samples": []}
        waves[item["reference"]] = excerpt.of(excerpt.track.mixture_path)
        for system in systems:
            name = token()
            item["samples"].append(name)
            waves[name] = excerpt.of(find_estimate(estimates, system, excerpt.track))
            samples[name] = {"system": system, "item": item["id"], "track": excerpt.track.name,
                             "span": excerpt.span, "training": excerpt is excerpts[-1]}  # fmt: skip
        item["samples"].sort()
        items.append(item)
    test = {
        "id": f"listening-{token()}",
        "seconds": excerpts[0].length / excerpts[0].track.rate,
        "aspects": [asdict(aspect) for aspect in ASPECTS],
        "training": items[-1],
        "items": sorted(items[:-1], key=lambda item: item["id"]),
    }
    key = {
        "id": test["id"],
        "systems": list(systems),
        "aspects": [aspect.name for aspect in ASPECTS],
        "samples": samples,
    }
    command = shlex.join(
        ["python", "-m", "dmxlib.listening", "make", f"{estimates}", f"{destination}", "--data_root",
         f"{data_root}", "--systems", *systems, "--recordings", f"{recordings}", "--seconds",
         f"{seconds:g}", "--seed", f"{seed}"]
    )  # fmt: skip
    with whole(destination) as built:
        write_page(built / "page", test, waves)
        write_configs(built / "webmushra" / "configs", test, built / "page" / "audio")
        (built / "key.json").write_text(json.dumps(key, indent=2))
        (built / "README.md").write_text(describe(test, key, excerpts, len(tracks), seconds, command))
    return key


def write_page(folder: Path, test: dict, waves: dict[str, np.ndarray]) -> None:
    """The folder that a web server may show: the page, the test without its key, the samples.

    Where one sample would clip, all are lowered alike.
    """
    shutil.copytree(Path(__file__).with_name("page"), folder)
    (folder / "test.json").write_text(json.dumps(test))
    peak = max(1.0, *(float(np.abs(wave).max()) for wave in waves.values()))
    for name in tqdm(sorted(waves), desc="write", unit="sample", disable=None):
        audio.write(folder / "audio" / f"{name}.wav", waves[name] / peak, RATE, "PCM_16")


# -- the description -----------------------------------------------------------------------------------------


def describe(test: dict, key: dict, excerpts: list[Passage], tracks: int, wanted: float, command: str) -> str:
    """README.md of a test: what it holds and how to run it; not whose a sample is."""
    seconds, rated = test["seconds"], excerpts[:-1]
    songs = len({excerpt.track.name for excerpt in rated})
    notes = []
    if seconds < wanted - SUNG_FRAME_SECONDS:
        notes.append(
            f"The excerpts are {seconds:.3g} s long instead of {wanted:.3g} s: not enough longer ones are "
            "voiced for more than half."
        )
    if songs < len(rated):
        notes.append(
            f"The excerpts come from {songs} recording{'s' * (songs > 1)}, of {tracks} at hand; none overlap."
        )
    elif excerpts[-1].track in [excerpt.track for excerpt in rated]:
        notes.append("The practice excerpt comes from a song that is also rated; the two do not overlap.")
    rows = "\n".join(
        f"| {excerpt.track.name} | {excerpt.span} | {'rated' if excerpt in rated else 'practice'} |"
        for excerpt in excerpts
    )
    scales = "\n".join(
        f"- **{aspect.name}**: {aspect.question} "
        + ", ".join(f"{5 - worse} {label.lower()}" for worse, label in enumerate(aspect.labels))
        for aspect in ASPECTS
    )
    return f"""# Listening test {test["id"]}

{len(rated)} excerpts of {seconds:.3g} s (the paper: 6 of 30 s), separated by {", ".join(key["systems"])}.
The mixture is the reference, the true vocals are not played. All songs are of the split "test", never of
the training songs. Every sample: {RATE} Hz, 16 bits, stereo, faded in and out, and of one loudness:
{LOUDNESS:.0f} LUFS, or less where a sample would clip.

    {command}

| recording | excerpt | use |
|---|---|---|
{rows}

{" ".join(notes)}

{scales}

The answers on interference and artifacts are those of ITU-T P.835 for background and speech signal; the
standard has no scale of intelligibility: that wording is ours, and so are the questions. Items and samples
come in random order, intelligibility first.

## Run it

`key.json` says whose each sample is: keep it, and keep it from listeners.

- Our own page: `python -m dmxlib.listening serve THIS_FOLDER` keeps what it receives in `results/`. Or put
  `page/` on any web server: there listeners download their ratings as CSV and send them to you.
- webMUSHRA: copy what is in `webmushra/configs/` into its `configs/` and send listeners to
  `?config={test["id"]}_1_intelligibility.yaml`, then to its `_2_interference` and `_3_artifacts`.

Then `python -m dmxlib.listening analyse THIS_FOLDER/results`, or for webMUSHRA its results folder with `--key
THIS_FOLDER/key.json`.
"""
