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
from dmxlib.reproduce import facts, seeded_generator, together
from dmxlib.studies.robustness_report import NOISE, TABLES, TITLES, write_report

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
    with together(folder) as part:
        for name, table in tables.items():
            table.to_csv(part / f"{name}.csv", index=False, float_format="%.6g")
        (part / "run.json").write_text(json.dumps(about, indent=2) + "\n")
        write_report(part)
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
