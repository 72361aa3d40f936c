"""How much noise EnCodec bears, and where: the study of the paper's section III-B (Table I).

`python -m dmxlib.studies.robustness --codec CODEC --data_root DIR --output_dir OUT` codes
the vocals of a data set's songs with noise added at one of four places, and writes
- table1.csv: one row a song and setting: SDR, LSD and Mel-MAE of what is decoded; rounding.csv: the same for
  noisy codes that are rounded, not truncated;
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
from pathlib import Path

import numpy as np
import pandas
import torch
from scipy import signal
from tqdm import tqdm

from dmxlib import audio, metrics
from dmxlib.codec import Codec, mid_rms
from dmxlib.codec.load import load_codec
from dmxlib.config import parse_config
from dmxlib.data import SPLITS, Track, load_tracks
from dmxlib.errors import InputError, exit_on_input_error
from dmxlib.reproduce import facts, seeded_generator
from dmxlib.studies.robustness_report import NOISE, TABLES, draw

AXIS = tuple(sorted((*NOISE, 1e-4, 0.003, 0.03, 0.3, 3.0)))
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


# -- the four experiments ------------------------------------------------------------------------------------


@dataclass
class Excerpt:
    """A wave (1, channels, T), its raw latents (1, dimension, F), and the RMS it gets back, (1, 1, 1)."""

    wave: torch.Tensor
    latents: torch.Tensor
    scale: torch.Tensor


def encode(codec: Codec, wave: torch.Tensor) -> Excerpt:
    """The continuous latents of a wave (1, channels, T), with the level that EnCodec sends along."""
    wave = wave.to(codec.device)
    scale = mid_rms(wave) if codec.config.normalize else wave.new_ones(1, 1, 1)
    return Excerpt(wave, codec.encode(wave), scale)


# Each adds noise of deviation `noise_std` drawn from `generator` and gives a wave (1, channels, T); `n_q`
# codebooks are used, None: all.


def identity(codec, excerpt, noise_std, generator, n_q=None):
    """Noise of that absolute deviation on the wave; no codec."""
    return excerpt.wave + noise_std * normal(excerpt.wave, generator)


def nq(codec, excerpt, noise_std, generator, n_q=None):
    """No quantiser: noise on the continuous latents, relative to their deviation."""
    return excerpt.scale * codec.decode(noisy(excerpt.latents, noise_std, generator))


def bq(codec, excerpt, noise_std, generator, n_q=None):
    """Before the quantiser: the same noise, then quantised."""
    codes = codec.quantize(noisy(excerpt.latents, noise_std, generator), n_q)
    return excerpt.scale * codec.decode(codec.dequantize(codes))


def aq(codec, excerpt, noise_std, generator, n_q=None, to_integer=torch.trunc):
    """After the quantiser: noise on the integer codes, relative to their deviation.

    Made integers again by truncation, as a cast does it, or by `torch.round`; clamped to the codebook.
    """
    codes = noisy(codec.quantize(excerpt.latents, n_q).double(), noise_std, generator)
    codes = to_integer(codes).clamp(0, codec.config.bins - 1).long()
    return excerpt.scale * codec.decode(codec.dequantize(codes))


aq_rounded = partial(aq, to_integer=torch.round)
EXPERIMENTS = {"identity": identity, "nq": nq, "bq": bq, "aq": aq, "aq_rounded": aq_rounded}


def noisy(values: torch.Tensor, noise_std: float, generator: torch.Generator) -> torch.Tensor:
    """Add white noise whose deviation is `noise_std` times that of all `values`."""
    return values + noise_std * values.std() * normal(values, generator) if noise_std else values


def normal(like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Standard normal noise in the shape of a tensor, the same on every device."""
    return torch.randn(like.shape, generator=generator).to(like)


def in_segments(round_trip: Callable, wave: torch.Tensor, rate: int) -> torch.Tensor:
    """Code a wave (1, channels, T) as EnCodec's 48 kHz model does: in chunks of 1 s, cross-faded over 1 %."""

    def code(segments):
        return (round_trip(torch.from_numpy(segment)[None])[0].cpu().numpy() for segment in segments)

    length = round(SEGMENT_SECONDS * rate)
    blocks = audio.in_chunks(code, [wave[0].numpy()], length, SEGMENT_OVERLAP)
    joined = np.concatenate(list(blocks), axis=1)
    return torch.from_numpy(audio.fit(joined, wave.shape[-1]))[None]


def view(codec: Codec, **settings) -> Codec:
    """The same codec, sharing its weights, under other settings."""
    other = copy.copy(codec)
    other.register_to_config(**settings)
    return other


def raw(codec: Codec) -> Codec:
    """A copy with EnCodec's own latents, as they leave the encoder."""
    other = copy.deepcopy(codec)
    other.normalization.reset()
    return other


# -- what is measured ----------------------------------------------------------------------------------------


def bandwidths(codec: Codec) -> dict[int, float]:
    """Codebooks -> kbit/s, for one, two, four ... up to all of them."""
    kbps = math.log2(codec.config.bins) * codec.config.sampling_rate / codec.hop_length / 1000
    counts = [2**power for power in range(codec.config.n_q.bit_length())]
    return {n_q: round(n_q * kbps, 3) for n_q in sorted({*counts, codec.config.n_q})}


def settings(codec: Codec) -> list[tuple[str, float, int]]:
    """(experiment, noise_std, n_q) of every row: the whole axis with all codebooks, Table I's with fewer."""
    *fewer, every = bandwidths(codec)
    full = [(experiment, noise_std, every) for experiment in EXPERIMENTS for noise_std in AXIS]
    return full + [("bq", noise_std, n_q) for n_q in fewer for noise_std in NOISE]


def excerpt_frames(codec: Codec, seconds: float) -> int:
    """The length of an excerpt at the codec's rate, in whole latent frames."""
    return codec.hop_length * max(1, round(seconds * codec.config.sampling_rate / codec.hop_length))


def excerpts(track: Track, codec: Codec, config: RobustnessConfig) -> list[np.ndarray]:
    """The track's vocals in excerpts (2, frames) of one length, or some, evenly over those that are sung."""
    frames = excerpt_frames(codec, config.excerpt_seconds)
    length = round(frames * track.rate / codec.config.sampling_rate)
    waves = list(audio.chunks([track.vocals()], length, length))
    if config.excerpts_per_track is None:
        return waves
    sung = [wave for wave in waves if audio.level_dbfs(wave) > SUNG_DBFS] or waves
    places = np.linspace(0, len(sung) - 1, min(config.excerpts_per_track, len(sung)))
    return [sung[round(place)] for place in places]


def for_codec(original: np.ndarray, rate: int, codec: Codec, seconds: float) -> torch.Tensor:
    """An excerpt (2, frames) at `rate` as the codec takes it, (1, channels, T)."""
    wave = audio.to_model(original, rate, codec.config.sampling_rate, codec.channels)
    return torch.from_numpy(audio.fit(wave, excerpt_frames(codec, seconds)))[None]


def original_sdr(originals: list[np.ndarray], rate: int, codec: Codec, estimate: np.ndarray) -> float:
    """The SDR of an estimate at the codec's rate and channels against the excerpts (2, frames) at `rate`."""
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
    """Excerpts (1, channels, T) one after the other, (channels, frames)."""
    return torch.cat([wave[0].cpu() for wave in waves], dim=1).numpy()


def noise_estimates(codec: Codec, waves: list[torch.Tensor], key: tuple[int, ...]):
    """Yield each setting as a row's first columns, with what it makes of the excerpts, (channels, frames).

    Every setting draws an excerpt's noise anew from (*key, its number): rows that add it to the same thing
    differ by nothing else than what they compare.
    """
    kbps, coded = bandwidths(codec), [encode(codec, wave) for wave in waves]
    for name, noise_std, n_q in settings(codec):
        estimate = joined(
            EXPERIMENTS[name](codec, excerpt, noise_std, seeded_generator(*key, number), n_q)
            for number, excerpt in enumerate(coded)
        )
        bandwidth = None if name in ("identity", "nq") else kbps[n_q]
        yield {"experiment": name, "noise_std": noise_std, "bandwidth": bandwidth}, estimate


def stream_estimates(codec: Codec, waves: list[torch.Tensor]):
    """The same without noise: one stream or segments, the level divided out and given back or not."""
    for normalize in (True, False):
        variant = view(codec, normalize=normalize)
        for name in ("nq", "bq"):
            whole = partial(plain, variant, EXPERIMENTS[name])
            segmented = partial(in_segments, whole, rate=codec.config.sampling_rate)
            for coding, code in (("one stream", whole), ("1-s chunks", segmented)):
                row = {"coding": coding, "loudness_normalised": normalize, "experiment": name}
                yield row, joined(map(code, waves))


def plain(codec: Codec, experiment: Callable, wave: torch.Tensor) -> torch.Tensor:
    """A wave (1, channels, T), coded without noise."""
    return experiment(codec, encode(codec, wave), 0.0, None)


@torch.no_grad()
def study(codec: Codec, tracks: list[Track], config: RobustnessConfig, quiet: bool = False) -> dict:
    """The tables TABLES, by these names, as pandas frames."""
    # dmxlib's own normalisation plays no part in EnCodec's
    codec = raw(codec)
    rate, every = codec.config.sampling_rate, bandwidths(codec)[codec.config.n_q]
    rows = {name: [] for name in TABLES}
    bar = tqdm(desc="code", unit="setting", total=len(tracks) * (len(settings(codec)) + 8), disable=quiet)
    for index, track in enumerate(tracks):
        originals = excerpts(track, codec, config)
        waves = [for_codec(wave, track.rate, codec, config.excerpt_seconds) for wave in originals]
        reference = joined(waves)
        for setting, estimate in noise_estimates(codec, waves, (config.seed, index)):
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


# -- the command ---------------------------------------------------------------------------------------------


def run(config: RobustnessConfig, quiet: bool = False) -> Path:
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
    tables = study(codec, tracks, config, quiet)
    about["seconds"] = round(time.perf_counter() - start, 1)
    about["cpu_seconds"] = round(time.process_time() - cpu_start, 1)
    folder = Path(config.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        for name, table in tables.items():
            table.to_csv(Path(temporary) / f"{name}.csv", index=False, float_format="%.6g")
        (Path(temporary) / "run.json").write_text(json.dumps(about, indent=2) + "\n")
        draw(temporary)
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
def main(argv=None) -> None:
    """Command line."""
    config = parse_config(
        RobustnessConfig, argv, prog="python -m dmxlib.studies.robustness", description=__doc__
    )
    print((run(config) / "table1.md").read_text())


if __name__ == "__main__":
    main()
