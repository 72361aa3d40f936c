"""What many rows of scores come to: a median with its interval, and tables in markdown."""

import math
from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy import stats


def medians(rows: pd.DataFrame, keys: list[str], value: str = "value") -> pd.DataFrame:
    """The median of a column for each value of `keys`, over what is not NaN, with its `interval` as low and
    high. `rows` has a column `track`, the song."""

    def of(group):
        figures = group[value].median(), *interval(group[value], group["track"])
        return pd.Series(figures, ["median", "low", "high"])

    return rows.dropna(subset=value).groupby(keys, sort=False)[[value, "track"]].apply(of)


def interval(values: pd.Series, songs: pd.Series | None = None, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the median by bootstrap; NaN for a single value.

    Songs are chosen with replacement, each with all its values, where there are several; else values, which
    then know nothing of other songs.
    """
    if len(values) < 2:
        return math.nan, math.nan
    if songs is None or songs.nunique() in (1, len(songs)):  # one song, or one value a song
        data, statistic = values, np.median
    else:
        by_song = [group.to_numpy() for _, group in values.groupby(songs)]
        data = range(len(by_song))

        def statistic(chosen):
            return np.median(np.concatenate([by_song[song] for song in chosen]))

    rng = np.random.default_rng(seed)
    found = stats.bootstrap((np.asarray(data),), statistic, method="percentile", n_resamples=2000, rng=rng)
    return tuple(found.confidence_interval)


def frame_markdown(frame: pd.DataFrame) -> str:
    """A frame as `markdown`, its index first and as it is."""
    return markdown([frame.index.name, *frame.columns], frame.rename(index=str).itertuples())


def markdown(header: Iterable, lines: Iterable[Iterable]) -> str:
    """A table: numbers with two decimals, a dash for NaN, everything else as it is."""
    header = list(map(str, header))
    rows = [header, ["---"] * len(header), *(map(_cell, line) for line in lines)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _cell(value):
    if not isinstance(value, float):
        return str(value)
    return "-" if math.isnan(value) else f"{value:.2f}"
