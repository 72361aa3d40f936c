"""How long a baseline's chunks should be, and how far they overlap: `python -m dmxlib.studies.chunks`.

A chunk is a number of the excerpts that the system was trained on. Files: `studies/valid_songs.py`.
"""

import pandas as pd
import torch

from dmxlib.audio import OVERLAP
from dmxlib.baselines.base import Baseline
from dmxlib.data import Track
from dmxlib.errors import InputError
from dmxlib.evaluation.scoring import Song
from dmxlib.studies.sampling import scores
from dmxlib.studies.valid_songs import run

SETTINGS = ((1, OVERLAP), (2, OVERLAP), (4, OVERLAP), (2, 0.5))  # excerpts a chunk, overlap


def study(model: Baseline, track: Track) -> pd.DataFrame:
    """A row of scores of a track for each of SETTINGS.

    Raises InputError where the model is no baseline.
    """
    if not isinstance(model, Baseline):
        raise InputError("--model is not a baseline; name one, such as bsrnn-mini or hdemucs-mini.")
    song, mixture, rows = Song(track), track.mixture(), []
    for excerpts, overlap in SETTINGS:
        model.excerpts_a_chunk = excerpts
        generator = torch.Generator().manual_seed(0)
        vocals = model(mixture, track.rate, generator=generator, overlap=overlap).vocals
        setting = {"excerpts_a_chunk": excerpts, "overlap": overlap, "track": track.name}
        rows.append(setting | scores(song, vocals))
    return pd.DataFrame(rows)


def main(argv=None) -> None:
    """Command line."""
    run(study, "chunks", __doc__, "bsrnn-mini", argv)


if __name__ == "__main__":
    main()
