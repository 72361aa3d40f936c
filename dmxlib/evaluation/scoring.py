"""Which parts of a song are scored, all scores of a system on them, and how long it takes.

Every metric of an excerpt compares the mono mean at 44.1 kHz. Metrics are those of `dmxlib.metrics`:
- on voiced frames lsd, mel_mae, log_f0_rmse with missed_voiced, and lsd_<from>_<to> by octave in Hz;
- on whole excerpts sdr, si_sdr, pesq, csdr, sir, sar, stft_distance, latent_distance, on request dnsmos_*;
- on whole songs usdr and the two figures of `silence`.
<metric>_to_bandwidth leaves out what lies above a system's own bandwidth. On request whole songs are scored
by the field's protocol too, in stereo: musdb_*, see `dmxlib.metrics.external.musdb`.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import pairwise

import numpy as np
import pandas as pd
from tqdm import tqdm

from dmxlib import audio, metrics
from dmxlib.data import Track, hold_out, load_tracks
from dmxlib.evaluation.files import COLUMNS
from dmxlib.evaluation.systems import SHIPPED, System
from dmxlib.metrics import RATE, external
from dmxlib.pipeline import VocalSeparationPipeline

EXCERPT_SECONDS = 7.0
SUNG_FRAME_SECONDS = 0.1
SUNG_DBFS = -40.0  # a tenth of a second above it is sung, which leaves out the tails of reverb and delay
CLIP_SECONDS = 12  # the paper's
REPEATS = 3  # of the clock
FEW_STEPS = 10  # what takes more is timed at 1 step and at this many, and once in full


# -- what is scored ------------------------------------------------------------------------------------------


def load_songs(
    data_root, split: str, held_out: float, target: str = "vocals"
) -> tuple[list[Track], list[Track]]:
    """(songs to learn from, songs to score): the training songs and a split, or the former cut in time."""
    training = load_tracks(data_root, "train", target)
    return hold_out(training, held_out) if held_out else (training, load_tracks(data_root, split, target))


def excerpts(track: Track, seconds: float = EXCERPT_SECONDS) -> list[slice]:
    """A track's whole excerpts, one after the other, as slices of samples; a shorter track is one."""
    length = min(round(seconds * track.rate), track.samples)
    return [slice(start, start + length) for start in range(0, track.samples - length + 1, length)]


def above(vocals: np.ndarray, rate: int, dbfs: float) -> np.ndarray:
    """For each tenth of a second of (2, samples): is its level above `dbfs`?"""
    size = round(SUNG_FRAME_SECONDS * rate)
    power = np.square(vocals[:, : vocals.shape[1] // size * size]).reshape(2, -1, size).mean(axis=(0, 2))
    return power > 10 ** (dbfs / 10)


def sung_excerpts(track: Track, vocals: np.ndarray) -> list[slice]:
    """The excerpts that are at least half sung."""

    def share(excerpt):
        return above(vocals[:, excerpt], track.rate, SUNG_DBFS).mean()

    return [excerpt for excerpt in excerpts(track) if share(excerpt) >= 0.5]


def spread(items: list, most: int | None) -> list:
    """At most so many of the items, spread evenly; None takes all."""
    count = len(items) if most is None else min(most, len(items))
    return [items[len(items) * (2 * number + 1) // (2 * count)] for number in range(count)]


# -- scores --------------------------------------------------------------------------------------------------


@dataclass
class Excerpt:
    """What an estimate is scored against: mono means at 44.1 kHz, (1, samples); an F0, which is slow to find,
    is found once. `start` is in seconds."""

    start: float
    vocals: np.ndarray
    mixture: np.ndarray
    references: dict = field(default_factory=dict)

    def reference(self, bandwidth: float = math.inf) -> tuple[np.ndarray, tuple]:
        """The vocals up to a bandwidth in Hz and their `metrics.f0`."""
        if bandwidth not in self.references:
            vocals = metrics.low_pass(self.vocals, RATE, bandwidth)
            self.references[bandwidth] = vocals, metrics.f0(vocals, RATE)
        return self.references[bandwidth]

    @property
    def voiced(self) -> np.ndarray:
        """The frames that the spectral metrics keep."""
        return self.reference()[1][1]


@cache
def latent_space(device="cpu") -> tuple:
    """The codec that ships and the samples of its chunks: one for all systems, whatever their own is."""
    pipeline = VocalSeparationPipeline.from_pretrained(SHIPPED)
    return pipeline.codec.to(device), pipeline.chunk_samples


@dataclass(frozen=True)
class Protocol:
    """What is scored of every song, for all systems alike.

    Args:
        space: what `latent_space` returns, on another device than the processor or of another codec.
        choose: (track, its vocals) -> the excerpts that are scored, as slices of samples.
        most: so many of them, spread evenly; None takes all.
        dnsmos, musdb: whether these are scored as well.
        waves: whether an excerpt has SDR and SI-SDR alone; the other metrics take most of the time.
    """

    space: tuple | None = None
    choose: Callable[[Track, np.ndarray], list[slice]] = sung_excerpts
    most: int | None = None
    dnsmos: bool = False
    musdb: bool = False
    waves: bool = False


def score(
    excerpt: Excerpt, estimate: np.ndarray, protocol: Protocol, bandwidth: float = math.inf
) -> dict[str, float]:
    """All metrics of an estimate (1, samples) of an excerpt, as the module names them.

    Args:
        bandwidth: in Hz, above which the estimate holds nothing.
    """
    vocals = excerpt.vocals
    figures = {"sdr": metrics.sdr(vocals, estimate), "si_sdr": metrics.si_sdr(vocals, estimate)}
    if protocol.waves:
        return figures
    voiced, pitch = excerpt.voiced, metrics.f0(estimate, RATE)
    for suffix, top in (("", math.inf), ("_to_bandwidth", bandwidth)):
        reference, true_pitch = excerpt.reference(top)
        rmse, missed = metrics.f0_error(true_pitch, pitch)
        figures |= {
            f"lsd{suffix}": metrics.lsd(vocals, estimate, RATE, voiced, (0, top)),
            f"mel_mae{suffix}": metrics.mel_mae(vocals, estimate, RATE, voiced, (0, top)),
            f"log_f0_rmse{suffix}": rmse,
            f"missed_voiced{suffix}": missed,
            f"pesq{suffix}": external.pesq(reference, estimate, RATE),
        }
    for low, high in pairwise(metrics.OCTAVES_HZ):
        figures[f"lsd_{low}_{high}"] = metrics.lsd(vocals, estimate, RATE, voiced, (low, high))
    figures |= external.bss_eval(vocals, estimate, excerpt.mixture, RATE)
    figures["stft_distance"] = metrics.stft_distance(vocals, estimate, RATE)
    figures["latent_distance"] = external.latent_distance(
        vocals, estimate, RATE, *(protocol.space or latent_space())
    )
    if protocol.dnsmos:
        figures |= {f"dnsmos_{name}": value for name, value in external.dnsmos(estimate, RATE).items()}
    return figures


def excerpt_reason(metric: str, value: float, excerpt: Excerpt, estimate: np.ndarray) -> str:
    """Why the score of an excerpt is NaN; empty where it is not."""
    if not np.isnan(value):
        return ""
    if not np.isfinite(estimate).all():
        return "estimate is not finite"
    if not excerpt.vocals.any() or not estimate.any():
        return "silent " + ("estimate" if excerpt.vocals.any() else "reference")
    if metric in ("csdr", "sir", "sar"):
        return "vocals and accompaniment, true and estimated, never sound in one second"
    if metric.startswith("pesq"):
        return "PESQ finds no utterance"
    return "no frame voiced in both" if excerpt.voiced.any() else "reference has no voiced frame"


def whole_reason(metric: str, value: float, estimate: np.ndarray) -> str:
    """Why the score of a song is NaN; empty where it is not."""
    if not np.isnan(value):
        return ""
    if not np.isfinite(estimate).all():
        return "estimate is not finite"
    if metric.startswith("musdb"):
        return "vocals and accompaniment, true and estimated, never sound in one second"
    return "no second without voice" if metric == "silence_db" else "nobody sings"


def silence(track: Track, vocals: np.ndarray, estimate: np.ndarray) -> dict[str, float]:
    """Where nobody sings for a second or longer: the estimate's level under the mixture's, in dB (positive is
    good); and the share of sung tenths of a second where it lies more than 30 dB under the true vocals."""
    is_sung, size = above(vocals, track.rate, SUNG_DBFS), round(SUNG_FRAME_SECONDS * track.rate)
    run = round(1 / SUNG_FRAME_SECONDS)
    silent = np.convolve(~above(vocals, track.rate, audio.SILENCE_DBFS), np.ones(run), "valid") > run - 0.5
    silent = np.convolve(silent, np.ones(run)) > 0.5  # every tenth that lies in a silent second
    mixture = track.mixture()

    def select(wave, frames):
        return wave[:, : len(frames) * size].reshape(2, -1, size)[:, frames]

    lost = level_rows(select(estimate, is_sung)) < level_rows(select(vocals, is_sung)) - 30
    levels = [
        audio.level_dbfs(select(wave, silent)) if silent.any() else np.nan for wave in (mixture, estimate)
    ]
    return {
        "silence_db": levels[0] - levels[1],
        "sung_frames_lost": float(lost.mean()) if is_sung.any() else np.nan,
    }


def level_rows(frames: np.ndarray) -> np.ndarray:
    """(2, n, size) -> level of each of n frames in dBFS."""
    return 10 * np.log10(np.square(frames, dtype=np.float64).mean(axis=(0, 2)) + 1e-20)


@dataclass
class Song:
    """A track with what all systems are scored against."""

    track: Track
    protocol: Protocol = Protocol()

    def __post_init__(self):
        self.vocals, mixture, rate = self.track.vocals(), self.track.mixture(), self.track.rate
        self.places = spread(self.protocol.choose(self.track, self.vocals), self.protocol.most)
        self.excerpts = []
        for place in self.places:
            waves = (metrics.mono(wave[:, place], rate) for wave in (self.vocals, mixture))
            self.excerpts.append(Excerpt(place.start / rate, *waves))

    def score(self, name: str, system: System, estimate: np.ndarray) -> list[dict]:
        """Rows of (excerpt, metric, value, dropped_reason) of a system's estimate (2, samples).

        An excerpt is named by its first second; figures of the whole track, as of its silence, have none.
        """
        rate = self.track.rate
        whole = silence(self.track, self.vocals, estimate)
        whole["usdr"] = metrics.sdr(metrics.mono(self.vocals, rate), metrics.mono(estimate, rate))
        if self.protocol.musdb:
            figures = external.musdb(self.vocals, estimate, self.track.mixture(), rate)
            whole |= {f"musdb_{metric}": value for metric, value in figures.items()}
        rows = [("", metric, value, whole_reason(metric, value, estimate)) for metric, value in whole.items()]
        pairs = list(zip(self.places, self.excerpts, strict=True))
        for place, excerpt in tqdm(pairs, desc=name, unit="excerpt", leave=False, disable=None):
            part = metrics.mono(estimate[:, place], rate)
            rows += [
                (excerpt.start, metric, value, excerpt_reason(metric, value, excerpt, part))
                for metric, value in score(excerpt, part, self.protocol, system.bandwidth).items()
            ]
        return [dict(zip(COLUMNS[2:], row, strict=True)) for row in rows]


# -- seconds a clip ------------------------------------------------------------------------------------------


def clock(
    systems: dict[str, System],
    clip: Track,
    repeats: int = REPEATS,
    now: Callable[[], float] = time.perf_counter,
) -> pd.DataFrame:
    """The seconds that each system takes for a clip: rows of system, steps, repeat, seconds.

    The systems take turns, so that what else the machine does falls on all of them; the first round does not
    count. A system of more than FEW_STEPS steps is run at one step and at FEW_STEPS, and once in full, to
    check what `clip_seconds` makes of these; `steps` is 0 for what has none.
    """

    def run(name, steps, repeat):
        start = now()
        systems[name].separate(clip, **({"steps": steps} if steps else {}))
        rows.append((name, steps, repeat, now() - start))

    rows, own = [], {name: system.steps or 0 for name, system in systems.items()}
    for repeat in range(1 + repeats):
        for name, steps in own.items():
            for count in (steps,) if steps <= FEW_STEPS else (1, FEW_STEPS):
                run(name, count, repeat)
    for name, steps in own.items():
        if steps > FEW_STEPS:
            run(name, steps, 1)
    times = pd.DataFrame(rows, columns=["system", "steps", "repeat", "seconds"])
    return times[times.repeat > 0]


def clip_seconds(times: pd.DataFrame, system: str, steps: int | None) -> tuple[float, float]:
    """Median and deviation of a system's seconds for the clip of `clock`; NaN where it was not timed.

    Of more than FEW_STEPS steps: the first one's seconds, and as often as there are others a ninth of what
    nine others took.
    """
    own = times[times.system == system].pivot(index="repeat", columns="steps", values="seconds")
    steps = steps or 0
    if steps > FEW_STEPS and {1, FEW_STEPS} <= {*own}:
        seconds = own[1] + (steps - 1) * (own[FEW_STEPS] - own[1]) / (FEW_STEPS - 1)
    elif steps in own:
        seconds = own[steps]
    else:
        return math.nan, math.nan
    return seconds.median(), seconds.std()


def first_seconds(track: Track, seconds: float = CLIP_SECONDS) -> Track:
    """The beginning of a track."""
    return replace(track, last=track.first + min(track.samples, round(seconds * track.rate)))
