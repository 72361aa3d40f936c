"""Tables and figures of the noise-robustness study, drawn from its CSV files."""

import json
from math import isnan
from pathlib import Path

import pandas

from dmxlib import plots
from dmxlib.errors import InputError
from dmxlib.summary import frame_markdown, medians

NOISE = (0.0, 1e-6, 1e-3, 0.01, 0.1, 1.0)  # Table I's

# SDR in dB as the paper prints it: EnCodec 48 kHz on the vocals of MUSDB18-HQ.
PAPER = {
    "identity": (119.24, 96.64, 36.67, 16.67, -3.32, -23.32),
    "nq": (10.81, 10.81, 10.81, 10.81, 10.74, 5.51),
    "bq": (9.77, 9.77, 9.77, 9.77, 9.72, 5.57),
    "aq": (9.77, -0.22, -0.43, -2.47, -2.80, -2.85),
}


def over_songs(rows: pandas.DataFrame, keys: list[str], figure: str = "sdr") -> pandas.DataFrame:
    """The median over songs of a figure for each value of `keys`, in their order, with its interval."""
    return medians(rows, keys, figure).sort_index()


PLACES = {"identity": "Identity", "nq": "NQ", "bq": "BQ", "aq": "AQ"}  # the paper's names
TITLES = PLACES | {"aq": "AQ, truncated", "aq_rounded": "AQ, rounded"}
FIGURES = {"sdr": "SDR", "lsd": "LSD", "mel_mae": "Mel-MAE"}
TABLES = ("table1", "rounding", "bands", "streams", "original")


def draw(folder) -> list[Path]:
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
    (folder / "table1.md").write_text(report(tables, json.loads((folder / "run.json").read_text())))
    noise_figure(tables).savefig(folder / "noise.png", dpi=110)
    codec_figure(tables).savefig(folder / "codec.png", dpi=110)
    return [folder / name for name in ("table1.md", "noise.png", "codec.png")]


def noise_figure(tables: dict[str, pandas.DataFrame]):
    """SDR, LSD and Mel-MAE of each experiment over the noise, all codebooks in use."""
    panels = {}
    for figure in FIGURES:
        found = over_songs(all_codebooks(tables), ["experiment", "noise_std"], figure)
        panels[figure] = {title: found.loc[name] for name, title in TITLES.items()}
    return plots.noise_study(panels)


def codec_figure(tables: dict[str, pandas.DataFrame]):
    """SDR by frequency band and by bandwidth; one stream against chunks."""
    bands = over_songs(tables["bands"], ["experiment", "noise_std", "low_hz"])
    shown = (("nq", 0.0), ("bq", 0.0), ("nq", 1.0), ("aq", 1e-6))
    by_band = {
        f"{TITLES[name]}, noise {noise_std:g}": bands.loc[name, noise_std] for name, noise_std in shown
    }
    widths = over_songs(tables["table1"].query("experiment == 'bq'"), ["noise_std", "bandwidth"])
    by_bandwidth = {f"BQ, noise {std:g}": widths.loc[std] for std in (0.0, 0.1, 1.0)}
    streams = tables["streams"].copy()
    level = streams.loudness_normalised.map({True: "level divided out", False: "level as it is"})
    streams["coding"] += ",\n" + level
    codings = {
        f"{TITLES[name]}, {label}": over_songs(streams[streams.experiment == name], ["coding"], figure)
        for figure, label in (("sdr", "SDR"), ("si_sdr", "SI-SDR"))
        for name in ("nq", "bq")
    }
    return plots.codec_study(by_band, by_bandwidth, codings)


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
    return f"{row['median']:.2f}" + ("" if isnan(row.low) else f" [{row.low:.2f}, {row.high:.2f}]")


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
