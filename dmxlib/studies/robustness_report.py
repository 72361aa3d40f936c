"""Table I of the noise study and its figures, from the CSV files that `dmxlib.studies.robustness` wrote.

What their columns hold is named here: the places where noise is added, its deviations, the figures.
"""

import json
import math
from itertools import product
from pathlib import Path

import numpy as np
import pandas

from dmxlib.errors import InputError
from dmxlib.reproduce import together
from dmxlib.summary import frame_markdown, medians

NOISE = (0.0, 1e-6, 1e-3, 0.01, 0.1, 1.0)  # Table I's deviations
PAPER = {  # SDR in dB as the paper prints it: EnCodec 48 kHz on the vocals of MUSDB18-HQ
    "identity": (119.24, 96.64, 36.67, 16.67, -3.32, -23.32),
    "nq": (10.81, 10.81, 10.81, 10.81, 10.74, 5.51),
    "bq": (9.77, 9.77, 9.77, 9.77, 9.72, 5.57),
    "aq": (9.77, -0.22, -0.43, -2.47, -2.80, -2.85),
}
PLACES = {"identity": "Identity", "nq": "NQ", "bq": "BQ", "aq": "AQ"}  # the paper's names
TITLES = PLACES | {"aq": "AQ, truncated", "aq_rounded": "AQ, rounded"}
FIGURES = {"sdr": "SDR", "lsd": "LSD", "mel_mae": "Mel-MAE"}
TABLES = ("table1", "rounding", "bands", "streams", "original")


def write_report(folder) -> list[Path]:
    """Write table1.md, noise.png and codec.png of a study's folder from its CSV files and its run.json;
    returns their paths.

    Raises InputError where one is missing.
    """
    folder = Path(folder)
    paths = {name: folder / f"{name}.csv" for name in TABLES}
    for path in (*paths.values(), folder / "run.json"):
        if not path.is_file():
            raise InputError(f"{path} does not exist; `python -m dmxlib.studies.robustness` writes it.")
    tables = {name: pandas.read_csv(path) for name, path in paths.items()}
    with together(folder) as part:
        (part / "table1.md").write_text(report(tables, json.loads((folder / "run.json").read_text())))
        noise_figure(tables).savefig(part / "noise.png", dpi=110)
        codec_figure(tables).savefig(part / "codec.png", dpi=110)
    return [folder / name for name in ("table1.md", "noise.png", "codec.png")]


def over_songs(rows: pandas.DataFrame, keys: list[str], figure: str = "sdr") -> pandas.DataFrame:
    """The median over songs of a figure for each value of `keys`, in their order, with its interval."""
    return medians(rows, keys, figure).sort_index()


def all_codebooks(tables: dict[str, pandas.DataFrame]) -> pandas.DataFrame:
    """The rows of table1 and rounding that use no quantiser or the whole of it."""
    table = pandas.concat([tables["table1"], tables["rounding"]])
    return table[table.bandwidth.isna() | (table.bandwidth == table.bandwidth.max())]


def report(tables: dict[str, pandas.DataFrame], facts: dict) -> str:
    """table1.md: Table I from our rows, what lies around it, and the paper's own in a block apart."""
    table = all_codebooks(tables)
    table = table[table.noise_std.isin(NOISE)]
    cells = over_songs(table, ["noise_std", "experiment"])
    cells = cells.apply(_cell, axis=1)
    clean = table[table.noise_std == 0].pivot(index="track", columns="experiment", values=list(FIGURES))
    clean = clean.swaplevel(axis=1)[["nq", "bq"]]
    clean.columns = [f"{TITLES[experiment]}: {FIGURES[figure]}" for experiment, figure in clean.columns]
    original = tables["original"].pivot(index="track", columns="experiment", values="sdr")[["nq", "bq"]]
    clean = clean.join(original.rename(columns=lambda name: f"{TITLES[name]}: SDR, original"))
    widths = tables["table1"].query("experiment == 'bq' and noise_std in @NOISE")
    streams = tables["streams"].replace({"experiment": TITLES}).rename(columns=FIGURES | {"si_sdr": "SI-SDR"})
    streams = streams.groupby(["coding", "loudness_normalised", "experiment"], sort=False)
    blocks = {
        "ours": cells.unstack()[list(TITLES)].rename(columns=TITLES),
        "by_song": clean,
        "by_bandwidth": over_songs(widths, ["bandwidth", "noise_std"])["median"].unstack(),
        "by_coding": streams.median(numeric_only=True).reset_index().set_index("coding"),
        "paper": pandas.DataFrame(PAPER, pandas.Index(NOISE, name="noise_std")).rename(columns=PLACES),
    }
    texts = {name: frame_markdown(frame).rstrip() for name, frame in blocks.items()}
    return REPORT.format(**facts, **texts)


def _cell(row):
    return f"{row['median']:.2f}" + ("" if math.isnan(row.low) else f" [{row.low:.2f}, {row.high:.2f}]")


REPORT = """# Noise on EnCodec: {codec} on {data_root}

`{command}`

The vocals of {song_count} songs at the codec's own {sampling_rate} Hz and {channels} channel(s),
{samples_per_value:.2f} samples a latent value; {excerpts_per_track} excerpts (None: all) of
{excerpt_seconds:.2f} s a song, evenly over those above {sung_dbfs:g} dBFS, each coded as one stream. Each
gets its input's RMS back where the codec divides it out.

## Ours: SDR in dB, median over the songs [its interval]

{ours}

noise_std: in Identity the deviation of the noise on the wave, with no codec; in NQ, BQ and AQ over the
deviation of the latent (NQ: no quantiser; BQ: before it) or of the integer codes (AQ). The SDR is SDX23's,
over all of a song's excerpts at once. The interval is the median's 95 % bootstrap interval over the songs.

## By song, without noise; SDR and Mel-MAE in dB

The last two columns: against the stereo song at its own rate, which the codec may have neither of.

{by_song}

## By bandwidth (kbit/s): median SDR in dB of BQ under noise

{by_bandwidth}

## One stream or EnCodec's chunks, without noise: medians

Chunks of 1 s, cross-faded over 1 %. Where the loudness is not normalised, the level is neither divided out
before the encoder nor given back after the decoder; SI-SDR does not see it.

{by_coding}

## The paper's Table I, quoted: SDR in dB

EnCodec 48 kHz on the vocals of MUSDB18-HQ: another codec, other data, another rate.

{paper}
"""


def noise_figure(tables: dict[str, pandas.DataFrame]):
    """SDR, LSD and Mel-MAE at each place over the noise, all codebooks in use."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    chosen = all_codebooks(tables)
    found = {name: over_songs(chosen, ["experiment", "noise_std"], name) for name in FIGURES}
    figure = Figure(figsize=(11, 7.5), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True).ravel()
    titles = {"sdr": "SDR (dB)", "lsd": "LSD", "mel_mae": "Mel-MAE (dB)"}
    for part, name in zip(axes, ("sdr", *titles), strict=True):
        curves = {title: found[name].loc[place] for place, title in TITLES.items()}
        _intervals(part, curves, ("0.45", "C0", "C1", "C3", "C2"))
        part.set(title=titles[name])
        part.set_xscale("symlog", linthresh=1e-6, linscale=0.6)  # the 0 has its place on it
        part.set(xlim=(0, 4), xticks=[0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1])
        part.xaxis.set_minor_locator(NullLocator())
    decoded = found["sdr"].drop(index="identity")
    axes[1].set(title="SDR (dB), the codec's range")
    axes[1].set(ylim=(decoded.min(axis=None) - 2, decoded.max(axis=None) + 2))
    for part in axes[2:]:
        part.set_xlabel("deviation of the noise")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(TITLES))
    return figure


def codec_figure(tables: dict[str, pandas.DataFrame]):
    """SDR by frequency band and by bandwidth; one stream against chunks."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7.5), layout="constrained")
    axes = figure.subplot_mosaic([["bands", "bands"], ["bandwidths", "codings"]])

    bands = over_songs(tables["bands"], ["experiment", "noise_std", "low_hz"])
    edges = bands.loc["nq", 0.0].index
    shown = (("nq", 0.0), ("bq", 0.0), ("nq", 1.0), ("aq", 1e-6))
    curves = {f"{TITLES[place]}, noise {std:g}": bands.loc[place, std] for place, std in shown}
    _intervals(axes["bands"], {title: curve.reset_index() for title, curve in curves.items()})
    names = [f"{low:,} to {high:,}" for low, high in zip(edges, edges[1:], strict=False)]
    axes["bands"].set(title="by frequency band", xlabel="Hz", ylabel="SDR (dB)")
    axes["bands"].set_xticks(range(len(edges)), [*names, f"above {edges[-1]:,}"])

    widths = over_songs(tables["table1"].query("experiment == 'bq'"), ["noise_std", "bandwidth"])
    _intervals(axes["bandwidths"], {f"BQ, noise {std:g}": widths.loc[std] for std in (0.0, 0.1, 1.0)})
    axes["bandwidths"].set(title="by bandwidth of the quantiser", xlabel="kbit/s", ylabel="SDR (dB)")
    for name in ("bands", "bandwidths"):
        axes[name].legend()

    streams = tables["streams"].copy()
    level = streams.loudness_normalised.map({True: "level divided out", False: "level as it is"})
    streams["coding"] += ",\n" + level
    ways = product((("sdr", "SDR"), ("si_sdr", "SI-SDR")), ("nq", "bq"))
    for number, ((score, label), place) in enumerate(ways):
        curve = over_songs(streams[streams.experiment == place], ["coding"], score)
        heights = np.arange(len(curve)) + 0.16 * (number - 1.5)
        reach = [curve["median"] - curve.low, curve.high - curve["median"]]
        look = {"fmt": "o", "capsize": 3, "color": f"C{number % 2}", "mfc": "white" if number > 1 else None}
        title = f"{TITLES[place]}, {label}"
        axes["codings"].errorbar(curve["median"], heights, xerr=reach, label=title, **look)
    axes["codings"].set_yticks(range(len(curve)), curve.index)
    axes["codings"].invert_yaxis()
    axes["codings"].set(title="one stream or chunks, without noise", xlabel="dB")
    axes["codings"].grid(alpha=0.3)
    axes["codings"].legend(loc="upper center", bbox_to_anchor=(0.4, -0.13), ncols=4, frameon=False)
    return figure


def _intervals(axes, curves: dict, colors=("C0", "C1", "C2", "C3")):
    """Plot medians as lines, each in the band of its interval."""
    for color, (title, curve) in zip(colors, curves.items(), strict=False):
        axes.plot(curve.index, curve["median"], "o-", color=color, markersize=4, label=title)
        axes.fill_between(curve.index, curve.low, curve.high, color=color, alpha=0.12, linewidth=0)
    axes.grid(alpha=0.3)
