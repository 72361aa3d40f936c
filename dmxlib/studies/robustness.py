"""How much noise EnCodec bears, and where: the study of the paper's section III-B (Table I).

`python -m dmxlib.studies.robustness --codec CODEC --data_root DIR --output_dir OUT` codes
the vocals of a data set's songs with noise added at one of four places, and writes
- table1.csv: one row a song and setting: SDR, LSD and Mel-MAE of what is decoded; rounding.csv: the same for
  noisy codes that are rounded, not truncated; `bandwidth` is in kbit/s;
- bands.csv: its SDR by frequency band; streams.csv: one stream against EnCodec's one-second chunks;
- original.csv: the SDR against the stereo song at its own rate, which a codec may have neither of;
- table1.md: the medians, and the paper's Table I in a block of its own; noise.png, codec.png; run.json.

Vocals are taken at the codec's own rate and channels and coded as one stream in excerpts of one fixed length,
the last one padded with silence: group normalisation ties a codec to the length it was trained on. It also
loses the level, so what is decoded is multiplied by the RMS of the excerpt's mid, as EnCodec does with the
scale that it sends along. The SDR is SDX23's, over all of a song's excerpts at once.
"""

import copy
import json
import math
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas
import torch
from scipy import signal
from tqdm import tqdm

from dmxlib import audio, metrics
from dmxlib.codec import mid_rms
from dmxlib.codec.load import load_codec
from dmxlib.codec.quantizer import QuantizedCodec
from dmxlib.config import parse_config
from dmxlib.data import SPLITS, Track, load_tracks
from dmxlib.errors import InputError, exit_on_input_error
from dmxlib.reproduce import facts, seeded_generator
from dmxlib.summary import frame_markdown, medians

NOISE = (0.0, 1e-6, 1e-3, 0.01, 0.1, 1.0)  # Table I's
AXIS = tuple(sorted((*NOISE, 1e-4, 0.003, 0.03, 0.3, 3.0)))
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
BANDS_HZ = (0, 250, 500, 1000, 2000, 4000, 8000, 16_000)  # up to half of the codec's rate
SEGMENT_SECONDS, SEGMENT_OVERLAP = 1.0, 0.01  # the chunks of EnCodec's 48 kHz model
SUNG_DBFS = -40.0  # an excerpt above it is sung


@dataclass
class RobustnessConfig:
    """What is coded, by what; `excerpts_per_track` none takes whole songs, split all every song."""

    codec: str = "encodec-mini"
    data_root: str = "data/toy"
    split: str = "test"
    output_dir: str = "data/robustness"
    excerpt_seconds: float = 6.8266667
    excerpts_per_track: int | None = 2
    seed: int = 0


# -- the four places -----------------------------------------------------------------------------------------


def code(place: str, codec: QuantizedCodec, wave, z, std: float, generator=None, n_q: int | None = None):
    """A wave (1, channels, T) after the codec, with noise added at one of the places in TITLES.

    Args:
        z: its continuous latents, `codec.encode(wave)`.
        std: deviation of the noise: of full scale in "identity", of the latents' in "nq" and "bq", of the
            codes' in "aq" and "aq_rounded".
        generator: of the noise, on the CPU.
        n_q: codebooks in use; None: all.
    """

    def noise(x):  # the same on every device
        return torch.randn(x.shape, generator=generator).to(x)

    level = mid_rms(wave) if codec.config.normalize else 1.0
    if place == "identity":  # no codec
        return wave + std * noise(wave)
    if place == "nq":  # no quantiser
        return level * codec.decode(z + std * z.std() * noise(z))
    if place == "bq":  # before the quantiser
        return level * codec.decode(codec.dequantize(codec.quantize(z + std * z.std() * noise(z), n_q)))
    # after it: on integer codes, made integers again by truncation, as a cast does it, or by rounding
    codes, integer = codec.quantize(z, n_q).double(), torch.round if place == "aq_rounded" else torch.trunc
    codes = integer(codes + std * codes.std() * noise(codes)).clamp(0, codec.config.bins - 1)
    return level * codec.decode(codec.dequantize(codes.long()))


def without_noise(codec: QuantizedCodec, place: str, wave: torch.Tensor) -> torch.Tensor:
    """A wave (1, channels, T), coded."""
    return code(place, codec, wave, codec.encode(wave), 0.0)


def in_segments(round_trip: Callable, wave: torch.Tensor, rate: int) -> torch.Tensor:
    """Code a wave (1, channels, T) as EnCodec's 48 kHz model does: in chunks of 1 s, cross-faded over 1 %."""

    def code(segments):
        return (round_trip(torch.from_numpy(segment)[None].to(wave))[0].cpu().numpy() for segment in segments)

    length = round(SEGMENT_SECONDS * rate)
    blocks = audio.in_chunks(code, [wave[0].cpu().numpy()], length, SEGMENT_OVERLAP)
    joined = np.concatenate(list(blocks), axis=1)
    return torch.from_numpy(audio.fit(joined, wave.shape[-1]))[None]


def view(codec: QuantizedCodec, **settings) -> QuantizedCodec:
    """The same codec, sharing its weights, under other settings."""
    other = copy.copy(codec)
    other.register_to_config(**settings)
    return other


def raw(codec: QuantizedCodec) -> QuantizedCodec:
    """A copy with EnCodec's own latents, as they leave the encoder."""
    other = copy.deepcopy(codec)
    other.normalization.reset()
    return other


# -- what is measured ----------------------------------------------------------------------------------------


def kbit_per_second(codec: QuantizedCodec) -> dict[int, float]:
    """Codebooks -> kbit/s, for one, two, four ... up to all of them."""
    kbps = math.log2(codec.config.bins) * codec.config.sampling_rate / codec.hop_length / 1000
    counts = [2**power for power in range(codec.config.n_q.bit_length())]
    return {n_q: round(n_q * kbps, 3) for n_q in sorted({*counts, codec.config.n_q})}


def settings(codec: QuantizedCodec, axis=AXIS) -> list[tuple[str, float, int]]:
    """(place, noise_std, n_q) of every row: all of `axis` with all codebooks, Table I's noise with fewer."""
    *fewer, every = kbit_per_second(codec)
    full = [(place, noise_std, every) for place in TITLES for noise_std in axis]
    return full + [("bq", noise_std, n_q) for n_q in fewer for noise_std in NOISE]


def excerpt_frames(codec: QuantizedCodec, seconds: float) -> int:
    """The length of an excerpt at the codec's rate, in whole latent frames."""
    return codec.hop_length * max(1, round(seconds * codec.config.sampling_rate / codec.hop_length))


def excerpts(track: Track, codec: QuantizedCodec, config: RobustnessConfig) -> list[np.ndarray]:
    """The track's vocals in excerpts (2, samples) of one length, or some, evenly over those that are sung."""
    frames = excerpt_frames(codec, config.excerpt_seconds)
    length = round(frames * track.rate / codec.config.sampling_rate)
    waves = list(audio.chunks([track.vocals()], length, length))
    if config.excerpts_per_track is None:
        return waves
    sung = [wave for wave in waves if audio.level_dbfs(wave) > SUNG_DBFS] or waves
    places = np.linspace(0, len(sung) - 1, min(config.excerpts_per_track, len(sung)))
    return [sung[round(place)] for place in places]


def for_codec(original: np.ndarray, rate: int, codec: QuantizedCodec, seconds: float) -> torch.Tensor:
    """An excerpt (2, samples) at `rate` as the codec takes it, (1, channels, T)."""
    wave = audio.to_model(original, rate, codec.config.sampling_rate, codec.channels)
    return torch.from_numpy(audio.fit(wave, excerpt_frames(codec, seconds)))[None].to(codec.device)


def original_sdr(
    originals: list[np.ndarray], rate: int, codec: QuantizedCodec, estimate: np.ndarray
) -> float:
    """The SDR of an estimate at the codec's rate and channels against the excerpts (2, samples) at `rate`."""
    original = np.concatenate(originals, axis=1)
    estimate = audio.from_model(estimate, codec.config.sampling_rate, rate, original.shape[1])
    return metrics.sdr(original, estimate)


def scores(reference: np.ndarray, estimate: np.ndarray, rate: int) -> dict[str, float]:
    """SDR of all channels at the codec's rate; LSD and Mel-MAE of the mono mean at 44.1 kHz."""
    pair = metrics.mono(reference, rate), metrics.mono(estimate, rate)
    return {
        "sdr": metrics.sdr(reference, estimate),
        "lsd": metrics.lsd(*pair, metrics.RATE),
        "mel_mae": metrics.mel_mae(*pair, metrics.RATE),
    }


def band_scores(reference: np.ndarray, estimate: np.ndarray, rate: int) -> list[dict]:
    """The SDR of each band from low_hz to high_hz, from Welch's power spectra."""
    waves = np.stack([reference, reference - estimate])
    hertz, powers = signal.welch(waves, rate, nperseg=min(2048, waves.shape[-1]), detrend=False)
    edges = [edge for edge in BANDS_HZ if edge < rate / 2] + [rate // 2]
    rows = []
    for low, high in zip(edges, edges[1:], strict=False):
        inside = (low <= hertz) & (hertz < high)
        voice, error = powers[..., inside].sum(axis=(1, 2)) + 1e-20  # the error of Identity may be none
        rows.append({"low_hz": low, "high_hz": high, "sdr": 10 * np.log10(voice / error)})
    return rows


def joined(waves) -> np.ndarray:
    """Excerpts (1, channels, T) one after the other, (channels, samples)."""
    return torch.cat([wave[0].cpu() for wave in waves], dim=1).numpy()


def noise_estimates(codec: QuantizedCodec, waves: list[torch.Tensor], key: tuple[int, ...], axis=AXIS):
    """Yield each setting as a row's first columns, with what it makes of the excerpts, (channels, samples).

    Every setting samples an excerpt's noise anew from (*key, its number): rows that add it to the same thing
    differ by nothing else than what they compare.
    """
    kbps, latents = kbit_per_second(codec), [codec.encode(wave) for wave in waves]
    for place, noise_std, n_q in settings(codec, axis):
        estimate = joined(
            code(place, codec, wave, z, noise_std, seeded_generator(*key, number), n_q)
            for number, (wave, z) in enumerate(zip(waves, latents, strict=True))
        )
        bandwidth = None if place in ("identity", "nq") else kbps[n_q]
        yield {"experiment": place, "noise_std": noise_std, "bandwidth": bandwidth}, estimate


def stream_estimates(codec: QuantizedCodec, waves: list[torch.Tensor]):
    """The same without noise: one stream or segments, the level divided out and given back or not."""
    for normalize, place in product((True, False), ("nq", "bq")):
        whole = partial(without_noise, view(codec, normalize=normalize), place)
        segmented = partial(in_segments, whole, rate=codec.config.sampling_rate)
        for coding, way in (("one stream", whole), ("1-s chunks", segmented)):
            row = {"coding": coding, "loudness_normalised": normalize, "experiment": place}
            yield row, joined(map(way, waves))


@torch.no_grad()
def study(
    codec: QuantizedCodec, tracks: list[Track], config: RobustnessConfig, axis=AXIS, quiet: bool = False
) -> dict:
    """The tables TABLES, by these names, as pandas frames."""
    # dmxlib's own normalisation plays no part in EnCodec's
    codec = raw(codec)
    rate, every = codec.config.sampling_rate, kbit_per_second(codec)[codec.config.n_q]
    rows = {name: [] for name in TABLES}
    total = len(tracks) * (len(settings(codec, axis)) + 8)
    bar = tqdm(desc="code", unit="setting", total=total, disable=quiet)
    for index, track in enumerate(tracks):
        originals = excerpts(track, codec, config)
        waves = [for_codec(wave, track.rate, codec, config.excerpt_seconds) for wave in originals]
        reference = joined(waves)
        for setting, estimate in noise_estimates(codec, waves, (config.seed, index), axis):
            row = {"track": track.name, **setting}
            table = "rounding" if setting["experiment"] == "aq_rounded" else "table1"
            rows[table].append(row | scores(reference, estimate, rate))
            if table == "table1" and row["noise_std"] in NOISE and row["bandwidth"] in (None, every):
                rows["bands"] += [row | band for band in band_scores(reference, estimate, rate)]
                if row["noise_std"] == 0 and row["experiment"] in ("nq", "bq"):
                    sdr = original_sdr(originals, track.rate, codec, estimate)
                    rows["original"].append(
                        {"track": track.name, "experiment": row["experiment"], "sdr": sdr}
                    )
            bar.update()
        for setting, estimate in stream_estimates(codec, waves):
            si_sdr = metrics.si_sdr(reference, estimate)
            row = {"track": track.name, **setting, **scores(reference, estimate, rate), "si_sdr": si_sdr}
            rows["streams"].append(row)
            bar.update()
    bar.close()
    return {name: pandas.DataFrame(table) for name, table in rows.items()}


# -- the tables and figures, from the CSV files --------------------------------------------------------------


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
    (folder / "table1.md").write_text(report(tables, json.loads((folder / "run.json").read_text())))
    noise_figure(tables).savefig(folder / "noise.png", dpi=110)
    codec_figure(tables).savefig(folder / "codec.png", dpi=110)
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


# -- the command ---------------------------------------------------------------------------------------------


def run(config: RobustnessConfig, axis=AXIS, quiet: bool = False) -> Path:
    """The whole study into `config.output_dir`, which it returns; its files are replaced when all are ready.

    Raises InputError for data or a codec that is not there, and for excerpts without length or number.
    """
    if config.excerpt_seconds <= 0 or (
        config.excerpts_per_track is not None and config.excerpts_per_track < 1
    ):
        raise InputError("excerpt_seconds and excerpts_per_track have to be above 0.")
    start, cpu_start = time.perf_counter(), time.process_time()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    codec = load_codec(config.codec, quantized=True).to(device)
    tracks = load_split(config)
    flags = " ".join(f"--{key} {value}" for key, value in asdict(config).items())
    about = facts(f"python -m dmxlib.studies.robustness {flags}") | {
        **asdict(config),
        **{name: codec.config[name] for name in ("sampling_rate", "n_q", "bins", "normalize")},
        "channels": codec.channels,
        "samples_per_value": codec.channels * codec.hop_length / codec.dimension,
        "songs": [track.name for track in tracks],
        "song_count": len(tracks),
        "sung_dbfs": SUNG_DBFS,
    }
    tables = study(codec, tracks, config, axis, quiet)
    about["seconds"] = round(time.perf_counter() - start, 1)
    about["cpu_seconds"] = round(time.process_time() - cpu_start, 1)
    folder = Path(config.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        for name, table in tables.items():
            table.to_csv(Path(temporary) / f"{name}.csv", index=False, float_format="%.6g")
        (Path(temporary) / "run.json").write_text(json.dumps(about, indent=2) + "\n")
        write_report(temporary)
        for path in Path(temporary).iterdir():
            os.replace(path, folder / path.name)
    return folder


def load_split(config: RobustnessConfig) -> list[Track]:
    """The tracks of the split, or of every split there is."""
    if config.split != "all":
        return load_tracks(config.data_root, config.split)
    splits = [split for split in SPLITS if (Path(config.data_root) / split).is_dir()]
    return [track for split in splits or ["train"] for track in load_tracks(config.data_root, split)]


@exit_on_input_error
def main(argv=None, axis=AXIS) -> None:
    """Command line; `axis` is the noise's deviations."""
    config = parse_config(
        RobustnessConfig, argv, prog="python -m dmxlib.studies.robustness", description=__doc__
    )
    print((run(config, axis) / "table1.md").read_text())


if __name__ == "__main__":
    main()
