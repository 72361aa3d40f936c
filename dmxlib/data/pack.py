"""A data set in a few small files, to be carried to a machine that has no access to it.

`python -m dmxlib.data pack DATA... OUT --size 55MB` writes OUT/<name of the set>/, which `load_tracks` and
with it every training reads: what is trained and validated on, no test songs. Voices and accompaniments are
coded apart, one after the other in a file for each sampling rate, as Opus with the bit rate that the size
allows; as 16-bit flac where soundfile has no Opus.

What that costs, as SDR in dB after the codec that ships, against the original; medians of three singers, each
alone and with the band, 3.4 s at 24 kHz mono:

    kbit/s           none   64    32    24
    voice            16.4  16.3  14.4  14.4
    mixture          17.4  16.4  14.5  13.6
"""

import contextlib
import json
import os
from pathlib import Path

import numpy as np
import soundfile as sf
from tqdm import tqdm

from dmxlib import audio
from dmxlib.data.tracks import PACK, Track, has_valid, load_sources, load_tracks
from dmxlib.errors import InputError
from dmxlib.reproduce import alone, whole

RATES = (8_000, 12_000, 16_000, 24_000, 48_000)  # that Opus has; others take the next one
KBITS = (12, 256)  # a second and channel: less is no music any more, more libsndfile does not take
SPARE = 0.95  # of the size, since bit rates vary
BLOCK_SECONDS = 10


def pack(roots: list, destination, size: float, mono: bool = False) -> None:
    """Write a folder of `destination` for each of the data sets `roots`.

    Args:
        size: in bytes, of all together.
        mono: code the mean of both channels. Without it, tracks whose channels are alike are coded as one.

    Raises InputError where the size is too small, a folder is there already, or another process writes there.
    """
    names = {root: os.path.basename(os.path.realpath(root)) for root in roots}  # of a loop of links too
    folders = {Path(destination) / name: Path(root) for root, name in names.items()}
    for folder in folders:
        if folder.exists() or len(folders) < len(roots):
            raise InputError(f"{folder} would be written twice; remove it or name another folder.")
    sets = {folder: _rows(root, mono) for folder, root in folders.items()}
    seconds = sum(
        row["channels"] * track.samples / track.rate * ((row["vocals"] and row["accompaniment"]) + 1)
        for rows in sets.values()
        for row, track in rows
    )
    kbits = min(SPARE * size * 8e-3 / seconds, KBITS[1])  # nan stays nan
    if not kbits >= KBITS[0]:
        raise InputError(
            f"{size / 1e6:g} MB are {kbits:.1f} kbit/s for each channel of {seconds / 3600:.1f} hours; name "
            f"fewer data sets, or more than {KBITS[0] * seconds / 8e3 / SPARE:.3g} MB."
        )
    with alone(destination):
        for folder, rows in sets.items():
            with whole(folder) as part:
                _write(part, tqdm(rows, desc=f"pack {folder.name}", unit="track", disable=None), kbits)
    written = sum(path.stat().st_size for folder in sets for path in folder.iterdir())
    if written > size:
        raise InputError(f"{destination} became {written / 1e6:.0f} MB; ask for a smaller size.")


def _rows(root: Path, mono: bool) -> list[tuple[dict, Track]]:
    """What is trained and validated on, each with its row of pack.json, not yet its place and files."""
    splits = {"train": load_sources(root, "train") or load_tracks(root, "train")}
    if has_valid(root):
        splits["valid"] = load_tracks(root, "valid")
    return [
        (
            {
                "split": split,
                "name": track.name,
                "vocals": track.has_vocals,
                "accompaniment": track.has_accompaniment,
                "channels": 1 if mono or all(np.array_equal(*wave) for wave in _waves(track)) else 2,
            },
            track,
        )
        for split, tracks in splits.items()
        for track in tracks
    ]


def _waves(track: Track) -> list[np.ndarray]:
    """The vocals and the accompaniment, of those that there are, each (2, samples)."""
    mixture = track.mixture()
    if not track.has_vocals or not track.has_accompaniment:
        return [mixture]
    vocals = track.vocals()
    return [vocals, mixture - vocals]


def _write(folder: Path, rows, kbits: float) -> None:
    opus = "OPUS" in sf.available_subtypes("OGG")
    form = {"format": "OGG", "subtype": "OPUS"} if opus else {"format": "FLAC", "subtype": "PCM_16"}
    if opus:  # libsndfile's scale from 256 to 6 kbit/s
        form["compression_level"] = min(1.0, max(0.0, (256 - kbits) / 250))
    index, files, ends = [], {}, {}
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        for row, track in rows:
            rate = next(rate for rate in (*RATES, track.rate) if rate >= track.rate)
            channels, stems = row.pop("channels"), [stem for stem in ("vocals", "accompaniment") if row[stem]]
            kind = f"{row['split']}-{'-'.join(stems)}-{rate}-{channels}"
            for stem, wave in zip(stems, _waves(track), strict=True):
                row[stem] = f"{kind}.{stem}.{'opus' if opus else 'flac'}"
                if row[stem] not in files:
                    file = sf.SoundFile(folder / row[stem], "w", rate, channels, **form)
                    files[row[stem]] = stack.enter_context(file)
                file, first = files[row[stem]], ends.get(row[stem], 0)
                wave = audio.to_model(wave, track.rate, rate, channels).T
                for start in range(0, len(wave), BLOCK_SECONDS * rate):  # libsndfile's encoders use the stack
                    file.write(wave[start : start + BLOCK_SECONDS * rate])
                ends[row[stem]] = first + len(wave)
            index.append({key: value or None for key, value in row.items()})
            index[-1] |= {"first": first, "last": first + len(wave)}
    (folder / PACK).write_text(json.dumps(index, indent=1) + "\n")
