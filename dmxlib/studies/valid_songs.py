"""What the studies of valid songs share: their command line, their songs and their files.

rows.csv has a row for each setting and song: medians of METRICS over sung excerpts, and what
`scoring.silence` says. table.md has medians of the songs of each data set. A set without valid songs gives
the ends of its training songs, as in training.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from dmxlib.data.tracks import training_tracks
from dmxlib.ensemble import load_separator
from dmxlib.errors import exit_on_input_error
from dmxlib.reproduce import facts, together
from dmxlib.summary import frame_markdown


@exit_on_input_error
def run(study: Callable, name: str, description: str, model: str, argv=None) -> None:
    """A study's command line: `study` takes a separator and a track, and returns a table that has a column
    for each setting, `track`, and the scores, in this order.

    Args:
        name: of the module, and of the folder in results/.
        model: which is studied where the command line names none.
    """
    parser = argparse.ArgumentParser(prog=f"python -m dmxlib.studies.{name}", description=description)
    parser.add_argument("--model", default=model, help="one that ships, or a folder")
    parser.add_argument("--data_root", nargs="+", required=True, help="prepared data sets; their valid songs")
    parser.add_argument("--hold_out_seconds", type=float, default=40.0, help="as it was in training")
    parser.add_argument("--output_dir", default=f"results/{name}", help="folder to write to")
    options = parser.parse_args(argv)
    separator, tables = load_separator(options.model), []
    for root in options.data_root:
        _, (tracks,) = training_tracks(root, options.hold_out_seconds)
        for track in tqdm(tracks, Path(root).name, unit="song", disable=None):
            table = study(separator, track)
            table.insert(0, "data", Path(root).name)
            tables.append(table)
    rows = pd.concat(tables)
    table = medians(rows)
    with together(Path(options.output_dir)) as part:
        rows.round(4).to_csv(part / "rows.csv", index=False)
        (part / "table.md").write_text(table)
        (part / "run.json").write_text(json.dumps(facts(), indent=2) + "\n")
    print(table)


def medians(rows: pd.DataFrame) -> str:
    """Over the songs of each data set, a table with a row for each setting."""
    keys = list(rows.columns[: rows.columns.get_loc("track")])
    found = rows.drop(columns="track").groupby(keys, sort=False, dropna=False).median()
    return frame_markdown(found.reset_index(keys[1:]))
