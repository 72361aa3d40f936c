"""What steps, overlap and refinement are worth: `python -m dmxlib.studies.sampling --data SET --out DIR`.

sampling.csv has a row for each setting and song: medians of METRICS over sung excerpts, and how quiet it is
where nobody sings, as sampled and refined, and the seconds that a second of audio took. seams.csv says how
far the borders of chunks are heard. `write_report` makes sampling.png and sampling.md of both.
DPM-Solver++, UniPC, noise added in every step, means of several samples, a level that follows each frame and
EM by norbert were tried too, and lost: results/steps has their numbers.
"""

import argparse
import json
import shlex
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from dmxlib import metrics
from dmxlib.data import Track
from dmxlib.errors import exit_on_input_error
from dmxlib.evaluation.scoring import Song, load_songs, silence
from dmxlib.pipeline import VocalSeparationPipeline
from dmxlib.refine import wiener
from dmxlib.reproduce import facts, together
from dmxlib.summary import frame_markdown

METRICS = ("sdr", "si_sdr", "lsd", "mel_mae")
VARIANTS = {f"steps {count}": {"num_inference_steps": count} for count in (1, 2, 4, 8, 10, 20, 50)} | {
    f"overlap {share}": {"overlap": share} for share in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
}
REFINEMENTS = {f"exponent {p}": {"exponent": p} for p in (0.25, 0.35, 0.5, 0.7, 1, 2)} | {
    f"window {size}": {"window_seconds": size / 44_100} for size in (1024, 2048, 8192)
}


def study(
    pipeline: VocalSeparationPipeline,
    tracks: list[Track],
    variants: dict[str, dict] = VARIANTS,
    refinements: dict[str, dict] = REFINEMENTS,
) -> pd.DataFrame:
    """Separate each track with every variant, and with the default in every refinement; a row for each track
    and setting: seconds (of computing, a second of audio), and METRICS as sampled and refined.

    Args:
        variants: name -> keywords of the pipeline.
        refinements: name -> keywords of `dmxlib.refine.wiener`.
    """
    settings = [(name, keywords, {}) for name, keywords in variants.items()]
    settings += [(name, {}, keywords) for name, keywords in refinements.items()]
    rows = []
    for track in tqdm(tracks, desc="sampling", unit="song", disable=None):
        song, mixture, duration = Song(track), track.mixture(), track.samples / track.rate
        for name, sampling, refining in settings:
            start = time.perf_counter()
            generator = torch.Generator().manual_seed(0)
            sampled = pipeline(mixture, track.rate, generator=generator, **sampling).vocals
            refined = wiener(mixture, sampled, track.rate, pipeline.sampling_rate / 2, **refining)
            seconds = (time.perf_counter() - start) / duration
            figures = scores(song, sampled) | {f"refined_{k}": v for k, v in scores(song, refined).items()}
            rows.append({"setting": name, "track": track.name, "seconds": seconds} | figures)
    return pd.DataFrame(rows)


def scores(song: Song, estimate: np.ndarray) -> dict[str, float]:
    """Medians of METRICS over the song's sung excerpts of an estimate (2, samples), and its `silence`."""
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
    medians = pd.DataFrame(figures, columns=METRICS).median().to_dict()
    return medians | silence(song.track, song.vocals, estimate)


BORDER_SECONDS = 0.02  # around a border that nothing is cross-faded over


def seam(pipeline: VocalSeparationPipeline, track: Track, overlap: float, refine=None) -> float:
    """How far a border of chunks is heard: the energy of the difference between two separations whose chunks
    begin half a chunk apart, where either has a border, over that elsewhere, in dB.

    A border is what is cross-faded, and at least BORDER_SECONDS. At an overlap of a third everything is one.
    """
    mixture, rate = track.mixture(), track.rate
    length = round(pipeline.chunk_seconds * rate)
    hop = length - int(length * overlap)

    def separate(shift):
        shifted = np.pad(mixture, ((0, 0), (shift, 0)))
        generator = torch.Generator().manual_seed(0)
        return pipeline(shifted, rate, overlap=overlap, refine=refine, generator=generator).vocals[:, shift:]

    power = np.square(separate(0) - separate(hop // 2)).mean(axis=0)[hop:]  # the first chunk begins at none
    place, width = np.arange(len(power)), max(length - hop, round(BORDER_SECONDS * rate))
    border = (place % hop < width) | ((place + hop // 2) % hop < width)
    return float(10 * np.log10(power[border].mean() / power[~border].mean()))


def seams(pipeline: VocalSeparationPipeline, tracks: list[Track]) -> pd.DataFrame:
    """`seam` of each track: a row for each track and overlap, as sampled and refined."""
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
    """Quality over computing time of a study's rows: a line for steps and one for overlap."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.4), layout="constrained")
    titles = {"refined_sdr": "SDR, refined (dB)", "lsd": "LSD, as sampled"}
    panels = figure.subplots(1, len(titles))
    for axes, (column, title) in zip(panels, titles.items(), strict=True):
        for kind in ("steps ", "overlap "):
            points = means(rows).filter(regex=f"^{kind}", axis="index")
            axes.plot(points.seconds, points[column], "o-", label=kind)
            for name, point in points.iterrows():
                place = point.seconds, point[column]
                axes.annotate(name.removeprefix(kind), place, (3, 4), textcoords="offset points", fontsize=7)
        axes.set(xscale="log", xlabel="seconds of computing for a second of audio", ylabel=title)
        axes.grid(alpha=0.3)
    panels[0].legend()
    return figure


def write_report(folder) -> list[Path]:
    """Write sampling.png and sampling.md from the CSV files and sampling.json of a folder."""
    folder = Path(folder)
    rows = pd.read_csv(folder / "sampling.csv")
    command = json.loads((folder / "sampling.json").read_text())["command"]
    borders = pd.read_csv(folder / "seams.csv").drop(columns="track").groupby("overlap").mean()
    tables = [
        frame_markdown(table.rename(columns=lambda name: name.replace("_", " "))).rstrip()
        for table in (means(rows), borders)
    ]
    with together(folder) as part:
        figure(rows).savefig(part / "sampling.png", dpi=110)
        (part / "sampling.md").write_text(REPORT.format(command, *tables))
    return [folder / "sampling.png", folder / "sampling.md"]


REPORT = """Means over songs, made by `{}`.

{}

Seams: the energy of the difference between two separations whose chunks begin half a chunk apart, at their
borders over that elsewhere, in dB.

{}
"""


@exit_on_input_error
def main(argv=None, variants=VARIANTS, refinements=REFINEMENTS) -> None:
    """Command line; the settings are those of `study`."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="python -m dmxlib.studies.sampling", description=__doc__)
    parser.add_argument(
        "--data_root", "--data", default="data/toy", metavar="DIR", help="a prepared data set"
    )
    parser.add_argument("--split", default="valid", help="whose songs to separate")
    parser.add_argument(
        "--held-out",
        type=float,
        default=0.0,
        metavar="S",
        help="the last S seconds of the training songs instead",
    )
    parser.add_argument("--model", default="ldm-dmx-mini", help="one that ships, or a folder")
    parser.add_argument(
        "--output_dir", "--out", default="data/sampling", metavar="DIR", help="folder to write to"
    )
    options = parser.parse_args(argv)
    pipeline = VocalSeparationPipeline.from_pretrained(options.model)
    pipeline.set_progress_bar_config(disable=True)
    folder = Path(options.output_dir)
    tracks = load_songs(options.data_root, options.split, options.held_out)[1]
    tables = {"sampling": study(pipeline, tracks, variants, refinements), "seams": seams(pipeline, tracks)}
    about = facts(f"python -m dmxlib.studies.sampling {shlex.join(argv)}")
    with together(folder) as part:
        for name, table in tables.items():
            table.to_csv(part / f"{name}.csv", index=False)
        (part / "sampling.json").write_text(json.dumps(about, indent=2) + "\n")
        write_report(part)


if __name__ == "__main__":
    main()
