"""What the pair's share, mask and expander are worth on valid songs: `python -m dmxlib.studies.ensemble`.

Both systems separate each song once; every setting is a sum of the two. Files: `studies/valid_songs.py`.
"""

import pandas as pd
import torch

from dmxlib.data import Track
from dmxlib.ensemble import Ensemble
from dmxlib.evaluation.scoring import Song
from dmxlib.expander import SLOPE, expand
from dmxlib.studies.sampling import scores
from dmxlib.studies.valid_songs import run

SHARES = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 1.0)
EXPONENTS = (1.0, 1.25, 1.5)
SLOPES = (None, 0.5, 1.0, 2.0, 4.0)  # of the expander; None is without it


def settings(model: Ensemble) -> pd.DataFrame:
    """A row for each: the shares without mask and expander, each mask with the model's share, then each slope
    and each share with what else the model has."""
    own = {
        "guide_share": model.guide_share,
        "exponent": model.exponent,
        "slope": SLOPE if model.expander else None,
    }
    plain = own | {"exponent": None, "slope": None}
    shares = sorted({*SHARES, model.guide_share})
    varied = [plain | {"guide_share": share} for share in shares]
    varied += [plain | {"exponent": exponent} for exponent in EXPONENTS]
    varied += [own | {"slope": slope} for slope in SLOPES]
    varied += [own | {"guide_share": share} for share in shares]
    return pd.DataFrame(varied, dtype=object).drop_duplicates(ignore_index=True)


def study(model: Ensemble, track: Track) -> pd.DataFrame:
    """`settings` with the scores of each on a track."""
    song, mixture, rate = Song(track), track.mixture(), track.rate
    ours, theirs = (
        separator(mixture, rate, generator=torch.Generator().manual_seed(0), refine=refine).vocals
        for separator, refine in ((model.separator, model.refinement), (model.guide, None))
    )

    def figures(guide_share, exponent, slope):
        pair = Ensemble(model.separator, model.guide, guide_share, exponent, expander=False)
        vocals = pair.finish(mixture, pair.mix(ours, theirs), rate)
        return scores(song, expand(mixture, vocals, rate, slope) if slope else vocals)

    table = settings(model)
    rows = [figures(**setting) for setting in table.to_dict("records")]
    return table.assign(track=track.name).join(pd.DataFrame(rows))


def main(argv=None) -> None:
    """Command line."""
    run(study, "ensemble", __doc__, "ldm-dmx-guided-mini", argv)


if __name__ == "__main__":
    main()
