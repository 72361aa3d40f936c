"""What the pair's share, mask and expander are worth on valid songs: `python -m dmxlib.studies.ensemble`.

Both systems separate each song once; every setting is a sum of the two. Files: `studies/valid_songs.py`.
"""

import pandas as pd
import torch

from dmxlib.data import Track
from dmxlib.ensemble import Ensemble
from dmxlib.evaluation.scoring import Song
from dmxlib.studies.sampling import scores
from dmxlib.studies.valid_songs import run

SHARES = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 1.0)
EXPONENTS = (1.0, 1.25, 1.5)


def settings(model: Ensemble) -> pd.DataFrame:
    """A row for each: the shares without mask and expander, then each mask and the expander alone with the
    model's share, then the shares with the mask and expander that the model has."""
    own = {"guide_share": model.guide_share, "exponent": model.exponent, "expander": model.expander}
    plain = own | {"exponent": None, "expander": False}
    shares = sorted({*SHARES, model.guide_share})
    varied = [plain | {"guide_share": share} for share in shares]
    varied += [plain | {"exponent": exponent} for exponent in EXPONENTS] + [plain | {"expander": True}]
    varied += [own | {"guide_share": share} for share in shares]
    return pd.DataFrame(varied, dtype=object)


def study(model: Ensemble, track: Track) -> pd.DataFrame:
    """`settings` with the scores of each on a track."""
    song, mixture, rate = Song(track), track.mixture(), track.rate
    ours, theirs = (
        separator(mixture, rate, generator=torch.Generator().manual_seed(0), refine=refine).vocals
        for separator, refine in ((model.separator, model.refinement), (model.guide, None))
    )
    table = settings(model)
    pairs = [Ensemble(model.separator, model.guide, **setting) for setting in table.to_dict("records")]
    figures = [scores(song, pair.finish(mixture, pair.mix(ours, theirs), rate)) for pair in pairs]
    return table.assign(track=track.name).join(pd.DataFrame(figures))


def main(argv=None) -> None:
    """Command line."""
    run(study, "ensemble", __doc__, "ldm-dmx-guided-mini", argv)


if __name__ == "__main__":
    main()
