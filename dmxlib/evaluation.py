"""Score separators on the sung windows of a data set's test songs.

`python -m dmxlib.evaluation --model NAME --data_root DIR --output_dir results/scores/RUN` writes scores.csv,
one row a system, track, window and metric, and their medians as scores.md. Every metric compares the mono
mean at 44.1 kHz. A separator is a function of a track; those that see the true vocals say so.
"""

import csv
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from dmxlib import audio, metrics
from dmxlib.config import parse_config
from dmxlib.data import SILENCE_DBFS, Track, hold_out, level_dbfs, load_tracks
from dmxlib.errors import exit_on_input_error
from dmxlib.level import apply_levels, frame_levels, project, rms
from dmxlib.pipeline import VocalSeparationPipeline
from dmxlib.trainer import git_commit

Separator = Callable[[Track], np.ndarray]  # (2, frames) vocals at the track's rate and length

WINDOW_SECONDS = 7.0
SUNG_FRAME_SECONDS = 0.1
SUNG_DBFS = -40.0  # a tenth of a second above it is sung, which leaves out the tails of reverb and delay


@dataclass
class EvaluationConfig:
    """What is scored, on what."""

    model: str = "ldm-dmx-mini"
    data_root: str = "data/toy"
    output_dir: str = "data/scores"
    num_inference_steps: int = 20
    seed: int = 0
    hold_out_seconds: float = 0.0  # above 0 the ends of the training songs are scored, which choices rest on


# -- what the numbers are held against -----------------------------------------------------------------------


def identity(track: Track) -> np.ndarray:
    """The mixture itself."""
    return track.mixture()


def best_gain(track: Track) -> np.ndarray:
    """The mixture times the gain that gives each window its best SDR (sees the target)."""
    mixture, vocals = track.mixture(), track.vocals()
    for window in windows(track):
        x, v = (wave[:, window].mean(axis=0) for wave in (mixture, vocals))
        mixture[:, window] *= np.vdot(x, v) / max(np.vdot(x, x), 1e-12)
    return mixture


def equalizer(songs: list[Track]) -> Separator:
    """A fixed filter: for each frequency the gain that fits the vocals of `songs` best."""
    cross, power = 0, 0
    for song in songs:
        x, v = (stft(wave.mean(axis=0, keepdims=True)) for wave in (song.mixture(), song.vocals()))
        cross = cross + (v * x.conj()).real.sum(dim=(0, 2), dtype=torch.float64)
        power = power + x.abs().square().sum(dim=(0, 2), dtype=torch.float64)
    gain = (cross / power.clamp(min=1e-12)).float()[:, None]
    return lambda track: istft(gain * stft(track.mixture()), track.frames)


def ideal_ratio_mask(track: Track) -> np.ndarray:
    """|V| / (|V| + |A|) on the mixture's STFT (sees the target)."""
    mixture, vocals = track.mixture(), track.vocals()
    voice, rest = stft(vocals).abs(), stft(mixture - vocals).abs()
    return istft(stft(mixture) * voice / (voice + rest).clamp(min=1e-8), track.frames)


def stft(wave: np.ndarray) -> torch.Tensor:
    """(channels, frames) -> (channels, 2049, STFT frames), complex."""
    return torch.stft(torch.from_numpy(wave), 4096, 1024, window=torch.hann_window(4096), return_complex=True)


def istft(spectrum: torch.Tensor, frames: int) -> np.ndarray:
    """The inverse of `stft`."""
    return torch.istft(spectrum, 4096, 1024, window=torch.hann_window(4096), length=frames).numpy()


# -- the model and its parts ---------------------------------------------------------------------------------


def generated(pipeline: VocalSeparationPipeline, config: EvaluationConfig, refine=None) -> Separator:
    """The pipeline, raw or refined."""

    def separate(track):
        generator = torch.Generator().manual_seed(config.seed)
        settings = dict(num_inference_steps=config.num_inference_steps, generator=generator, refine=refine)
        return pipeline(track.mixture(), track.rate, **settings).vocals

    return separate


@torch.no_grad()
def codec_ceiling(pipeline: VocalSeparationPipeline, rule: str, track: Track) -> np.ndarray:
    """The true vocals through the codec, chunk by chunk, with the level by `rule` (sees the target)."""
    codec = pipeline.codec
    rate, hop = codec.config.sampling_rate, codec.hop_length
    length = pipeline.config.chunk_frames * hop
    sources = [audio.match_channels(audio.resample(wave, track.rate, rate), codec.channels) for wave in
               (track.vocals(), track.mixture())]  # fmt: skip
    parts = []
    for vocals, mixture in zip(
        *(audio.chunks([wave], length, round(0.8 * length)) for wave in sources), strict=True
    ):
        vocals, mixture = torch.from_numpy(vocals)[None], torch.from_numpy(mixture)[None]
        wave = codec.decode(codec.encode(vocals))
        if rule == "projected":
            wave = project(wave, mixture)
        else:
            reference = rms(mixture)
            wave = apply_levels(wave, frame_levels(vocals, reference, hop), reference, hop)
        parts.append(wave[0].numpy())
    wave = np.concatenate(list(audio.overlap_add(parts, round(0.8 * length))), axis=1)
    return audio.fit(audio.resample(audio.stereo(wave), rate, track.rate), track.frames)


# -- scores --------------------------------------------------------------------------------------------------


def windows(track: Track, seconds: float = WINDOW_SECONDS) -> list[slice]:
    """A track's whole windows, one after the other, as slices of frames."""
    length = round(seconds * track.rate)
    return [slice(start, start + length) for start in range(0, track.frames - length + 1, length)]


def above(vocals: np.ndarray, rate: int, dbfs: float) -> np.ndarray:
    """For each tenth of a second of (2, frames): is its level above `dbfs`?"""
    size = round(SUNG_FRAME_SECONDS * rate)
    power = np.square(vocals[:, : vocals.shape[1] // size * size]).reshape(2, -1, size).mean(axis=(0, 2))
    return power > 10 ** (dbfs / 10)


def score(reference: np.ndarray, estimate: np.ndarray, rate: int, f0_reference) -> dict[str, float]:
    """All metrics of one window (2, frames), the spectral ones on the reference's voiced frames."""
    reference, estimate = metrics.mono(reference, rate), metrics.mono(estimate, rate)
    voiced = f0_reference[1]
    rmse, missed = metrics.f0_error(f0_reference, metrics.f0(estimate, metrics.RATE))
    return {
        "sdr": metrics.sdr(reference, estimate),
        "si_sdr": metrics.si_sdr(reference, estimate),
        "lsd": metrics.lsd(reference, estimate, metrics.RATE, voiced),
        "mel_mae": metrics.mel_mae(reference, estimate, metrics.RATE, voiced),
        "log_f0_rmse": rmse,
        "missed_voiced": missed,
    }


def silence(track: Track, vocals: np.ndarray, estimate: np.ndarray) -> dict[str, float]:
    """Where nobody sings for a second or longer: the estimate's level under the mixture's, in dB (positive is
    good); and the share of sung tenths of a second where it lies more than 30 dB under the true vocals."""
    is_sung, size = above(vocals, track.rate, SUNG_DBFS), round(SUNG_FRAME_SECONDS * track.rate)
    run = round(1 / SUNG_FRAME_SECONDS)
    silent = np.convolve(~above(vocals, track.rate, SILENCE_DBFS), np.ones(run), "valid") > run - 0.5
    silent = np.convolve(silent, np.ones(run)) > 0.5  # every tenth that lies in a silent second
    mixture = track.mixture()

    def select(wave, frames):
        return wave[:, : len(frames) * size].reshape(2, -1, size)[:, frames]

    lost = level_rows(select(estimate, is_sung)) < level_rows(select(vocals, is_sung)) - 30
    levels = [level_dbfs(select(wave, silent)) if silent.any() else np.nan for wave in (mixture, estimate)]
    return {
        "silence_db": levels[0] - levels[1],
        "sung_frames_lost": float(lost.mean()) if is_sung.any() else np.nan,
    }


def level_rows(frames: np.ndarray) -> np.ndarray:
    """(2, n, size) -> level of each of n frames in dBFS."""
    return 10 * np.log10(np.square(frames, dtype=np.float64).mean(axis=(0, 2)) + 1e-20)


def sung_windows(track: Track, vocals: np.ndarray) -> list[slice]:
    """The windows that are at least half sung."""

    def share(window):
        return above(vocals[:, window], track.rate, SUNG_DBFS).mean()

    return [window for window in windows(track) if share(window) >= 0.5]


def evaluate(separators: dict[str, Separator], tracks: list[Track], quiet: bool = False) -> list[dict]:
    """Separate every track with every separator; rows of (system, track, window, metric, value).

    Figures of a whole track have no window: "seconds_per_minute" of song, "silence_db" and
    "sung_frames_lost".
    """
    rows = []
    for track in tracks:
        vocals = track.vocals()
        chosen = sung_windows(track, vocals)
        pitches = [metrics.f0(vocals[:, window], track.rate) for window in chosen]
        bar = tqdm(separators.items(), desc=f"score {track.name}", unit="system", disable=quiet)
        for system, separate in bar:
            start = time.perf_counter()
            estimate = separate(track)
            seconds = (time.perf_counter() - start) * 60 * track.rate / track.frames
            figures = {"": {"seconds_per_minute": seconds, **silence(track, vocals, estimate)}}
            for window, pitch in zip(chosen, pitches, strict=True):
                pair = vocals[:, window], estimate[:, window]
                figures[window.start / track.rate] = score(*pair, track.rate, pitch)
            for window, values in figures.items():
                place = {"system": system, "track": track.name, "window": window}
                rows += [{**place, "metric": metric, "value": value} for metric, value in values.items()]
    return rows


def table(rows: list[dict]) -> str:
    """The median over windows of each metric and system, in markdown; NaN are left out."""
    systems, names = (list(dict.fromkeys(row[key] for row in rows)) for key in ("system", "metric"))
    lines = ["| system | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for system in systems:
        cells = [system]
        for name in names:
            values = [row["value"] for row in rows if (row["system"], row["metric"]) == (system, name)]
            cells.append(f"{np.median([v for v in values if v == v] or [np.nan]):.3g}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def load_songs(config: EvaluationConfig) -> tuple[list[Track], list[Track]]:
    """(songs to learn from, songs to score)."""
    training = load_tracks(config.data_root, "train")
    if config.hold_out_seconds:
        return hold_out(training, config.hold_out_seconds)
    return training, load_tracks(config.data_root, "test")


def make_separators(
    pipeline: VocalSeparationPipeline, config: EvaluationConfig, training: list[Track]
) -> dict[str, Separator]:
    """The systems of the table, from doing nothing to the ideal ratio mask; both level rules are compared."""
    separators = {
        "mixture": identity,
        "mixture at its best gain": best_gain,
        "fixed equalizer": equalizer(training),
    }
    for rule in ("drawn", "projected"):
        ruled = VocalSeparationPipeline(
            **pipeline.components, chunk_frames=pipeline.config.chunk_frames, level_rule=rule
        )
        ruled.set_progress_bar_config(disable=True)
        separators[f"ldm-dmx, level {rule}"] = generated(ruled, config)
        separators[f"ldm-dmx-refined, level {rule}"] = generated(ruled, config, "wiener")
        separators[f"codec ceiling, level {rule}"] = partial(codec_ceiling, pipeline, rule)
    return separators | {"ideal ratio mask": ideal_ratio_mask}


@exit_on_input_error
def main(argv=None) -> None:
    """Command line."""
    config = parse_config(EvaluationConfig, argv, prog="python -m dmxlib.evaluation", description=__doc__)
    pipeline = VocalSeparationPipeline.from_pretrained(config.model)
    training, songs = load_songs(config)
    rows = evaluate(make_separators(pipeline, config, training), songs)
    folder = Path(config.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "scores.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    (folder / "run.json").write_text(json.dumps({**asdict(config), "commit": git_commit()}, indent=2))
    command = " ".join(f"--{key} {value}" for key, value in asdict(config).items())
    count = len({(row["track"], row["window"]) for row in rows if row["window"] != ""})
    note = f"Medians over {count} windows of {WINDOW_SECONDS:.0f} s, at least half sung.\n\n"
    (folder / "scores.md").write_text(f"`python -m dmxlib.evaluation {command}`\n\n{note}{table(rows)}")
    print(table(rows))


if __name__ == "__main__":
    main()
