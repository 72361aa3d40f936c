"""What ways of sampling and of refining are worth: `python -m dmxlib.studies.sampling --data SET --out DIR`.

sampling.csv has a row for each setting and song: medians of METRICS over sung excerpts, and how quiet it is
where nobody sings, drawn and refined, and the seconds that a second of audio took. seams.csv says how far the
borders of chunks are heard. `draw` makes sampling.png and sampling.md of both.
"""

import argparse
import importlib.util
import shlex
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler
from tqdm import tqdm

from dmxlib import metrics
from dmxlib.data import Track
from dmxlib.errors import exit_on_input_error
from dmxlib.evaluation.scoring import Song, load_songs, silence
from dmxlib.evaluation.systems import bandwidth
from dmxlib.pipeline import VocalSeparationPipeline
from dmxlib.refine import istft, stft, wiener
from dmxlib.summary import frame_markdown

METRICS = ("sdr", "si_sdr", "lsd", "mel_mae")
STEPS = 10  # where seeds are compared: those of a single step have little to average
SEEDS = 4


SOLVERS = {"DPM-Solver++": DPMSolverMultistepScheduler, "UniPC": UniPCMultistepScheduler}


def with_solver(pipeline: VocalSeparationPipeline, solver: type) -> VocalSeparationPipeline:
    """The pipeline with another of diffusers' schedulers on its schedule.

    They divide by the signal's amplitude, which is 0 at pure noise: `rescale_betas_zero_snr` makes it 2^-12.
    """
    scheduler = solver.from_config(pipeline.scheduler.config, rescale_betas_zero_snr=True)
    return with_parts(pipeline, scheduler=scheduler)


def with_parts(pipeline, pipeline_class=VocalSeparationPipeline, **parts):
    """A pipeline with some of its parts exchanged, or its class."""
    return pipeline_class(**pipeline.components | parts, chunk_frames=pipeline.config.chunk_frames)


class MeanLatents(VocalSeparationPipeline):
    """Decodes the mean of SEEDS draws of the latents."""

    def sample(self, *args, **kwargs):
        """As the pipeline's."""
        return torch.stack([super(MeanLatents, self).sample(*args, **kwargs) for _ in range(SEEDS)]).mean(0)


class MeanSpectra(VocalSeparationPipeline):
    """Gives the first of SEEDS draws the mean of their STFT magnitudes."""

    def generate(self, *args, **kwargs):
        """As the pipeline's."""
        draws = [super(MeanSpectra, self).generate(*args, **kwargs) for _ in range(SEEDS)]
        window = torch.hann_window(2048)
        spectra = [torch.stft(draw.flatten(0, 1), 2048, window=window, return_complex=True) for draw in draws]
        magnitude = torch.stack([spectrum.abs() for spectrum in spectra]).mean(0)
        mean = torch.polar(magnitude, spectra[0].angle())
        return torch.istft(mean, 2048, window=window, length=draws[0].shape[-1]).view_as(draws[0])


def expectation_maximization(mixture, vocals, rate, bandwidth) -> np.ndarray:
    """`wiener`, then one EM iteration of `norbert`, which fits a spatial covariance to voice and rest."""
    import norbert

    first = wiener(mixture, vocals, rate, bandwidth)
    # (channels, bins, frames) -> (frames, bins, channels)
    x, voice = (stft(wave).numpy().transpose(2, 1, 0).astype(complex) for wave in (mixture, first))
    sources, _, _ = norbert.expectation_maximization(np.stack([voice, x - voice], axis=-1), x, iterations=1)
    voice = torch.from_numpy(sources[..., 0].transpose(2, 1, 0).astype(np.complex64))
    return istft(voice, mixture.shape[1]).numpy()


def refinements() -> dict[str, Callable]:
    """Name -> function of (mixture, vocals, rate, bandwidth); that of `norbert` where it is installed."""
    found = {f"exponent {p}": partial(wiener, exponent=p) for p in (0.25, 0.35, 0.5, 0.7, 1, 2)}
    found |= {f"window {size}": partial(wiener, window_seconds=size / 44_100) for size in (1024, 2048, 8192)}
    if importlib.util.find_spec("norbert"):
        found["EM"] = expectation_maximization
    return found


def variants(pipeline: VocalSeparationPipeline) -> dict[str, tuple]:
    """Name -> (pipeline, keywords of its call)."""
    means = {"latents": with_parts(pipeline, MeanLatents), "spectra": with_parts(pipeline, MeanSpectra)}
    solvers = {name: with_solver(pipeline, solver) for name, solver in SOLVERS.items()}
    return (
        {f"steps {count}": (pipeline, {"num_inference_steps": count}) for count in (1, 2, 4, 8, 10, 20, 50)}
        | {
            f"{name}, steps {count}": (solver, {"num_inference_steps": count})
            for name, solver in solvers.items()
            for count in (2, 4, 10)
        }
        | {
            f"mean of {SEEDS} {what}, steps {steps}": (mean, {"num_inference_steps": steps})
            for steps in (1, STEPS)
            for what, mean in means.items()
        }
        | {f"overlap {share}": (pipeline, {"overlap": share}) for share in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)}
    )


# -- the study -----------------------------------------------------------------------------------------------


def study(pipeline: VocalSeparationPipeline, tracks: list[Track], seed: int = 0) -> pd.DataFrame:
    """Separate each track with every variant, drawn and refined, and with the default in every refinement; a
    row for each track and setting: seconds (of computing, a second of audio), and METRICS of both."""
    settings = [(name, *variant, wiener) for name, variant in variants(pipeline).items()]
    settings += [(name, pipeline, {}, refine) for name, refine in refinements().items()]
    rows = []
    for track in tqdm(tracks, desc="sampling", unit="song", disable=None):
        song, mixture, duration = Song(track), track.mixture(), track.frames / track.rate
        for name, variant, keywords, refine in settings:
            start = time.perf_counter()
            generator = torch.Generator().manual_seed(seed)
            drawn = variant(mixture, track.rate, generator=generator, **keywords).vocals
            refined = refine(mixture, drawn, track.rate, bandwidth(pipeline.codec))
            seconds = (time.perf_counter() - start) / duration
            figures = scores(song, drawn) | {f"refined_{k}": v for k, v in scores(song, refined).items()}
            rows.append({"setting": name, "track": track.name, "seconds": seconds} | figures)
    return pd.DataFrame(rows)


def scores(song: Song, estimate: np.ndarray) -> dict[str, float]:
    """Medians of METRICS over the song's sung excerpts of an estimate (2, frames), and its silence_db."""
    figures = []
    for place, excerpt in zip(song.places, song.excerpts, strict=True):
        wave = metrics.mono(estimate[:, place], song.track.rate)
        spectral = (excerpt.vocals, wave, metrics.RATE, excerpt.voiced)
        figures.append(
            {
                "sdr": metrics.sdr(excerpt.vocals, wave),
                "si_sdr": metrics.si_sdr(excerpt.vocals, wave),
                "lsd": metrics.lsd(*spectral),
                "mel_mae": metrics.mel_mae(*spectral),
            }
        )
    quiet = silence(song.track, song.vocals, estimate)["silence_db"]
    return pd.DataFrame(figures, columns=METRICS).median().to_dict() | {"silence_db": quiet}


BORDER_SECONDS = 0.02  # around a border that nothing is cross-faded over


def seam(
    pipeline: VocalSeparationPipeline, track: Track, overlap: float, refine=None, seed: int = 0
) -> float:
    """How far a border of chunks is heard: the energy of the difference between two separations whose chunks
    begin half a chunk apart, where either has a border, over that elsewhere, in dB.

    A border is what is cross-faded, and at least BORDER_SECONDS. At an overlap of a third everything is one.
    """
    mixture, rate = track.mixture(), track.rate
    length = round(pipeline.chunk_seconds * rate)
    hop = length - int(length * overlap)

    def separate(shift):
        shifted = np.pad(mixture, ((0, 0), (shift, 0)))
        generator = torch.Generator().manual_seed(seed)
        return pipeline(shifted, rate, overlap=overlap, refine=refine, generator=generator).vocals[:, shift:]

    power = np.square(separate(0) - separate(hop // 2)).mean(axis=0)[hop:]  # the first chunk begins at none
    place, width = np.arange(len(power)), max(length - hop, round(BORDER_SECONDS * rate))
    border = (place % hop < width) | ((place + hop // 2) % hop < width)
    return float(10 * np.log10(power[border].mean() / power[~border].mean()))


def seams(pipeline: VocalSeparationPipeline, tracks: list[Track]) -> pd.DataFrame:
    """`seam` of each track: a row for each track and overlap, drawn and refined."""
    cases = [(track, overlap) for track in tracks for overlap in (0.0, 0.1, 0.2, 0.3)]
    return pd.DataFrame(
        {
            "track": track.name,
            "overlap": overlap,
            "seam_db": seam(pipeline, track, overlap),
            "refined_seam_db": seam(pipeline, track, overlap, "wiener"),
        }
        for track, overlap in tqdm(cases, desc="seams", unit="case", disable=None)
    )


# -- files ---------------------------------------------------------------------------------------------------


def means(rows: pd.DataFrame) -> pd.DataFrame:
    """A study's rows -> means over songs, one row a setting."""
    return rows.drop(columns="track").groupby("setting", sort=False).mean()


def figure(rows: pd.DataFrame):
    """Quality over seconds of a study's rows; of those whose seconds differ."""
    drawn = means(rows).filter(regex="^(steps|mean|overlap)", axis="index")
    return quality_by_seconds(drawn, {"refined_sdr": "SDR, refined (dB)", "lsd": "LSD, drawn"})


def quality_by_seconds(settings, titles: dict[str, str]):
    """Plot scores over computing time, settings of one kind (their first word) as a line; returns the figure.

    Args:
        settings: frame over names with the columns seconds, of computing for a second of audio, and each of
            `titles`, column -> title of a panel.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.4), layout="constrained")
    panels = figure.subplots(1, len(titles), squeeze=False)[0]
    for axes, (column, title) in zip(panels, titles.items(), strict=True):
        for kind, points in settings.groupby(settings.index.str.split().str[0], sort=False):
            axes.plot(points.seconds, points[column], "o" if kind == "mean" else "o-", label=kind)
            for name, point in points.iterrows():
                place = point.seconds, point[column]
                label = name.removeprefix(kind).strip()
                axes.annotate(label, place, (3, 4), textcoords="offset points", fontsize=7)
        axes.set(xscale="log", xlabel="seconds of computing for a second of audio", ylabel=title)
        axes.grid(alpha=0.3)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=8, frameon=False)
    return figure


def draw(folder) -> list[Path]:
    """Redraw sampling.png and sampling.md from the sampling.csv and command.txt of a folder."""
    folder = Path(folder)
    rows = pd.read_csv(folder / "sampling.csv")
    figure(rows).savefig(folder / "sampling.png", dpi=110)
    command = (folder / "command.txt").read_text().strip()
    borders = pd.read_csv(folder / "seams.csv").drop(columns="track").groupby("overlap").mean()
    tables = [
        frame_markdown(table.rename(columns=lambda name: name.replace("_", " "))).rstrip()
        for table in (means(rows), borders)
    ]
    (folder / "sampling.md").write_text(REPORT.format(command, *tables))
    return [folder / "sampling.png", folder / "sampling.md"]


REPORT = """Means over songs, made by `{}`.

{}

Seams: the energy of the difference between two separations whose chunks begin half a chunk apart, at their
borders over that elsewhere, in dB.

{}
"""


@exit_on_input_error
def main(argv=None) -> None:
    """Command line."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="python -m dmxlib.studies.sampling", description=__doc__)
    parser.add_argument("--data", default="data/toy", metavar="DIR", help="a prepared data set")
    parser.add_argument("--split", default="valid", help="whose songs to separate")
    parser.add_argument(
        "--held-out",
        type=float,
        default=0.0,
        metavar="S",
        help="the last S seconds of the training songs instead",
    )
    parser.add_argument("--model", default="ldm-dmx-mini", help="one that ships, or a folder")
    parser.add_argument("--out", default="data/sampling", metavar="DIR", help="folder to write to")
    options = parser.parse_args(argv)
    pipeline = VocalSeparationPipeline.from_pretrained(options.model)
    pipeline.set_progress_bar_config(disable=True)
    folder = Path(options.out)
    tracks = load_songs(options.data, options.split, options.held_out)[1]
    tables = {"sampling": study(pipeline, tracks), "seams": seams(pipeline, tracks)}
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    (folder / "command.txt").write_text(f"python -m dmxlib.studies.sampling {shlex.join(argv)}\n")
    draw(folder)


if __name__ == "__main__":
    main()
