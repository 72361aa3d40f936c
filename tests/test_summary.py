"""A median's interval is of the right width, and of the songs where there are several."""

import math

import numpy as np
import pandas as pd
import pytest

from dmxlib.summary import frame_markdown, interval, markdown, medians


def test_interval_is_of_the_median():
    values = np.random.default_rng(0).standard_normal(400)
    low, high = interval(pd.Series(values))
    # the median of n normal values deviates by sqrt(pi / 2n)
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(np.pi / 800), rel=0.25)
    assert low < np.median(values) < high
    assert interval(pd.Series([3.0, 3.0])) == (3, 3)
    assert np.isnan(interval(pd.Series([3.0]))).all()


def test_interval_is_of_the_songs_where_there_are_several():
    rng = np.random.default_rng(0)
    songs = pd.Series(np.repeat(np.arange(25), 16))
    alike = pd.Series(np.repeat(rng.standard_normal(25), 16))  # the excerpts of a song are all the same
    low, high = interval(alike, songs)
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(np.pi / 50), rel=0.3)
    knowing_nothing = interval(alike)
    assert high - low > 2.5 * (knowing_nothing[1] - knowing_nothing[0])
    assert interval(alike, 0 * songs) == knowing_nothing  # of one song the excerpts are all there is
    assert interval(alike[::16], songs[::16]) == interval(alike[::16])  # one value a song


def test_medians():
    rows = {
        "noise_std": [0.0] * 9 + [1.0] * 3,
        "sdr": [*range(9), 5, 7, np.nan],
        "track": [*range(9), 0, 1, 2],
    }
    found = medians(pd.DataFrame(rows), ["noise_std"], "sdr")
    median, low, high = found.loc[0.0]
    assert median == 4 and 0 < low < 4 < high < 8
    assert found.loc[1.0].tolist() == [6, 5, 7]  # NaN is left out


def test_markdown():
    table = markdown(["song", "SDR", "T"], [["a", 1.256, 20], ("b", math.nan, "-")])
    assert table == "| song | SDR | T |\n| --- | --- | --- |\n| a | 1.26 | 20 |\n| b | - | - |\n"
    frame = pd.DataFrame({"SDR": [1.256, 2]}, pd.Index([1e-6, 0.1], name="noise"))
    assert frame_markdown(frame) == markdown(["noise", "SDR"], [("1e-06", 1.256), ("0.1", 2.0)])
