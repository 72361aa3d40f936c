"""Songs that somebody sings alone: PJS's songs in Japanese, and the solfege of HUST's students.

`python -m dmxlib.data prepare solo-singing DST --source DIR` reads the clones of CORPORA in DIR and writes
`train/voices/<corpus>-<song>.flac`. A corpus that is not there is named and left out.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from dmxlib import audio
from dmxlib.data.sets import voice
from dmxlib.data.tracks import Song
from dmxlib.errors import InputError

CHANGED = "No song here is as it was recorded: each was cut, filtered and brought to one level."
# The songs of SSVD-v2.0 that are HUST_Solfege's: their notes begin at the same times in both.
HUST = """
1011 1072 1075 1078 1079 1099 1100 1101 1130 1150 1155 1156 1174 1188 1189 1194 1196 1197 1198 1201 1202 1203
1205 1206 1207 1208 1210 1211 1212 1213 1214 1216 1217 1218 1219 1220 1221 1222 1223 1224 1227 1228 1230 1307
1311 1315 1325 1344 1355 313 335 364 366 406 407 408 410 424 427 480
"""


@dataclass(frozen=True)
class Corpus:
    """Recordings of songs, one a file.

    Args:
        repository: on GitHub, whose clone has its name.
        files: a pattern of their paths in it.
        terms: what allows to train on them and to pass the model on.
        names: of the files, without their endings; None takes all.
    """

    name: str
    repository: str
    files: str
    terms: str
    names: tuple[str, ...] | None = None

    def songs(self, folder: Path) -> list[Path]:
        """Those in the folder above the clones, sorted."""
        paths = sorted((folder / self.repository.partition("/")[2]).rglob(self.files))
        return [path for path in paths if self.names is None or path.stem in self.names]


CORPORA = (
    Corpus(
        "pjs",
        "justln1113/TEST",
        "PJS_corpus_ver1.1/wav/*.wav",
        "PJS corpus by Junya Koguchi and Shinnosuke Takamichi: CC BY-SA 4.0",
    ),
    Corpus(
        "hust",
        "xk-wang/SSVD-v2.0",
        "*.flac",
        "HUST_Solfege by the Internet Technology and Engineering Center of HUST, "
        "github.com/itec-hust/HUST_Solfege: MIT",
        tuple(HUST.split()),
    ),
)


def voices(destination: Path, source: Path | None, quiet: bool) -> list[Song]:
    """Write what is missing of the songs, 44.1 kHz, 16-bit flac, and their terms; mixtures there are none.

    Raises InputError where there is no corpus at all.
    """
    found = {corpus: corpus.songs(Path(source or ".")) for corpus in CORPORA}
    if not any(found.values()):
        raise InputError(
            f"--source {source} holds no song of PJS or HUST; clone what data/README.md names and give the "
            "folder above the clones with --source."
        )
    for corpus, songs in found.items():
        for song in tqdm(songs, f"prepare {corpus.name}", unit="song", disable=quiet):
            path = destination / "train" / "voices" / f"{corpus.name}-{song.stem}.flac"
            if not path.exists() and (wave := voice.clean(song)) is not None:
                audio.write(path, audio.stereo(wave), voice.RATE, "PCM_16")
        if not songs:
            tqdm.write(f"left out: {corpus.name}; {source} holds no song of it.", file=sys.stderr)
    voice.write_licences(destination, CHANGED, [corpus for corpus in CORPORA if found[corpus]])
    return []
