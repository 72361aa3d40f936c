"""What the pair's share, mask and expander are worth on valid songs: `python -m dmxlib.studies.ensemble`.

Both systems separate each song once; every setting is a sum of the two. rows.csv has a row for each setting
and song: medians of METRICS over sung excerpts, and what `scoring.silence` says. table.md has medians of the
songs of each data set. A set without valid songs gives the ends of its training songs, as in training.
"""

import argparse
import json
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from dmxlib.data.tracks import Track, training_tracks
from dmxlib.ensemble import Ensemble, load_separator
from dmxlib.errors import exit_on_input_error
from dmxlib.evaluation.scoring import Song
from dmxlib.reproduce import facts, together
from dmxlib.studies.sampling import scores
from dmxlib.summary import markdown

SHARES = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 1.0)
EXPONENTS = (1.0, 1.25, 1.5)


def settings(model: Ensemble) -> pd.DataFrame:
    """A row for each: the shares without mask and expander, then the model's share with each mask, with the
    expander, and as it is."""
    own = {"guide_share": model.guide_share, "exponent": model.exponent, "expander": model.expander}
    plain = own | {"exponent": None, "expander": False}
    varied = [plain | {"guide_share": share} for share in SHARES]
    varied += [plain | {"exponent": exponent} for exponent in EXPONENTS]
    return pd.DataFrame([*varied, plain | {"expander": True}, own], dtype=object)


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


def medians(rows: pd.DataFrame) -> str:
    """Over the songs of each data set, a table with a row for each setting."""
    keys = ["data", "guide_share", "exponent", "expander"]
    found = rows.drop(columns="track").groupby(keys, sort=False, dropna=False).median()
    return markdown(
        [*keys, *found],
        (key + figures for key, figures in zip(found.index, found.itertuples(index=False), strict=True)),
    )


@exit_on_input_error
def main(argv=None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m dmxlib.studies.ensemble", description=__doc__)
    parser.add_argument("--model", default="ldm-dmx-guided-mini", help="a folder with an ensemble.json")
    parser.add_argument("--data_root", nargs="+", required=True, help="prepared data sets; their valid songs")
    parser.add_argument("--hold_out_seconds", type=float, default=40.0, help="as it was in training")
    parser.add_argument("--output_dir", default="results/ensemble", help="folder to write to")
    options = parser.parse_args(argv)
    model, tables = load_separator(options.model), []
    for root in options.data_root:
        _, (tracks,) = training_tracks(root, options.hold_out_seconds)
        for track in tqdm(tracks, Path(root).name, unit="song", disable=None):
            tables.append(study(model, track).assign(data=Path(root).name))
    rows = pd.concat(tables)
    with together(Path(options.output_dir)) as part:
        rows.round(4).to_csv(part / "rows.csv", index=False)
        (part / "table.md").write_text(medians(rows))
        (part / "run.json").write_text(json.dumps(facts(), indent=2) + "\n")
    print(medians(rows))


if __name__ == "__main__":
    main()
