"""MIR-1K's published benchmark: `python -m dmxlib.studies.huang --config dmxlib/configs/huang.yaml`.

Trained on two singers' 175 clips, tested on 825 clips of 17 others (`dmxlib.data.sets.mir1k`, `--split
huang`). Each clip's vocals are scored by BSS Eval 3 at 16 kHz mono. NSDR is their SDR less the mixture's;
GNSDR, GSIR and GSAR are the means over clips, weighted by length. Written to `output_dir`:
- scores.csv: one row a system, clip and metric (sdr, sir, sar in dB; of the mixture also the clip's seconds);
- summary.csv, table.md, gnsdr.png: all made of scores.csv; run.json: what was run.
A system that is in scores.csv already is left as it is.
"""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from dmxlib.config import parse_config
from dmxlib.data import Track, load_tracks
from dmxlib.errors import InputError, exit_on_input_error
from dmxlib.evaluation.systems import Options, System, make_system
from dmxlib.evaluation.tables import millions
from dmxlib.metrics.external import bss_eval_sources
from dmxlib.reproduce import facts, together, whole
from dmxlib.summary import markdown

GLOBAL = {"sdr": "gnsdr", "sir": "gsir", "sar": "gsar"}
TITLES = {"gnsdr": "GNSDR (dB)", "gsir": "GSIR (dB)", "gsar": "GSAR (dB)"}
PUBLISHED = {  # of the voice; as the last one's authors print them, whose paper has all four
    "RNMF (Sprechmann and others, ISMIR 2012)": (4.97, 7.66, 10.03),
    "DRNN (Huang and others, ISMIR 2014)": (7.45, 13.08, 9.68),
    "U-Net (Jansson and others, ISMIR 2017)": (7.43, 11.79, 10.42),
    "stacked hourglass (Park and others, ISMIR 2018)": (10.51, 16.01, 12.53),
}


@dataclass
class HuangConfig:
    """What is scored: `systems` has a row's name, and for each its `title`, its `system` of
    `dmxlib.evaluation.systems`, and where it has any the `model`, a folder, and the number of `steps`; with
    `every` 5 a slow one is scored on each fifth clip."""

    data_root: str = "data/mir-1k-huang"
    output_dir: str = "results/unheard-singers/huang"
    systems: dict = field(default_factory=dict)


def score(track: Track, system: System) -> dict[str, float]:
    """BSS Eval 3 of a system's vocals of a clip."""
    waves = track.vocals(), system.separate(track), track.mixture()
    return bss_eval_sources(*(wave.mean(axis=0, keepdims=True) for wave in waves))


def score_all(config: HuangConfig) -> None:
    """Score each system that has no rows yet, and keep its rows and facts once all its clips are done.

    Raises InputError where the mixture, which NSDR rests on, is not among them.
    """
    if "mixture" not in config.systems:
        raise InputError("systems has no mixture, which NSDR rests on; see dmxlib/configs/huang.yaml.")
    folder = Path(config.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    training, clips = load_tracks(config.data_root, "train"), load_tracks(config.data_root, "test")
    for name, entry in config.systems.items():
        if name in scored_systems(folder):
            continue
        options = Options(entry.get("model"), entry.get("steps"), training=tuple(training))
        system, start, rows = make_system(entry["system"], options), time.perf_counter(), []
        for clip in tqdm(clips[:: entry.get("every", 1)], desc=name, unit="clip", disable=None):
            figures = score(clip, system)
            if name == "mixture":
                figures["seconds"] = clip.samples / clip.rate
            rows += [(name, clip.name, metric, round(value, 3)) for metric, value in figures.items()]
        figures = {"parameters": system.parameters, "steps": system.steps}
        minutes = round((time.perf_counter() - start) / 60, 1)
        keep(folder, rows, name, {**entry, **figures, "minutes": minutes, **facts()})


def scored_systems(folder: Path) -> list[str]:
    """The names that scores.csv has rows of."""
    path = folder / "scores.csv"
    return list(pd.read_csv(path).system.unique()) if path.exists() else []


def keep(folder: Path, rows: list[tuple], name: str, about: dict) -> None:
    """Add a system to scores.csv and run.json."""
    table = pd.DataFrame(rows, columns=["system", "clip", "metric", "value"])
    runs = json.loads((folder / "run.json").read_text()) if (folder / "run.json").exists() else {}
    if scored_systems(folder):
        table = pd.concat([pd.read_csv(folder / "scores.csv"), table])
    with whole(folder / "scores.csv") as scores_part, whole(folder / "run.json") as run_part:
        table.to_csv(scores_part, index=False)
        run_part.write_text(json.dumps(runs | {name: about}, indent=2) + "\n")


# -- the table and the figure, from the files ----------------------------------------------------------------


def normalised(scores: pd.DataFrame) -> pd.DataFrame:
    """scores.csv -> a row a system and clip with `gnsdr`, `gsir`, `gsar` of the clip, its `seconds` and
    `singer`."""
    wide = scores.pivot(index=["system", "clip"], columns="metric", values="value")
    mixture = wide.loc["mixture"]
    wide["sdr"] -= mixture.sdr.reindex(wide.index.get_level_values("clip")).to_numpy()
    wide["seconds"] = mixture.seconds.reindex(wide.index.get_level_values("clip")).to_numpy()
    wide["singer"] = wide.index.get_level_values("clip").str.partition("_").get_level_values(0)
    return wide.rename(columns=GLOBAL)


def weighted(clips: pd.DataFrame) -> pd.Series:
    """Means of some clips' figures, weighted by length; a clip without a figure is left out of its mean."""
    figures = clips[list(GLOBAL.values())]
    weights = figures.notna().mul(clips.seconds, axis=0)
    return (figures * weights).sum() / weights.sum()


def summarise(scores: pd.DataFrame) -> pd.DataFrame:
    """scores.csv -> system, gnsdr, gsir, gsar in dB, in the order they were scored in."""
    clips = normalised(scores)
    return clips.groupby("system").apply(weighted).loc[list(scores.system.unique())].reset_index()


def write_report(config: HuangConfig) -> list[Path]:
    """Write summary.csv, table.md and gnsdr.png from what was scored."""
    folder = Path(config.output_dir)
    scores, runs = pd.read_csv(folder / "scores.csv"), json.loads((folder / "run.json").read_text())
    order = [name for name in config.systems if name in runs]
    summary = summarise(scores).set_index("system").loc[order]
    titles = {name: runs[name]["title"] for name in order}
    with together(folder) as part:
        summary.round(3).reset_index().to_csv(part / "summary.csv", index=False)
        (part / "table.md").write_text(table(summary, runs, scores))
        figure(normalised(scores), titles).savefig(part / "gnsdr.png", dpi=110)
    return [folder / name for name in ("summary.csv", "table.md", "gnsdr.png")]


def table(summary: pd.DataFrame, runs: dict, scores: pd.DataFrame) -> str:
    """The benchmark in markdown: ours, and what others published in a block of its own."""
    clips = scores.groupby("system")["clip"].nunique()
    rows = [
        [
            runs[name]["title"],
            millions(runs[name]["parameters"]),
            str(runs[name]["steps"] or "-"),
            str(clips[name]),
        ]
        + [f"{value:.2f}" if value < 100 else "-" for value in figures]
        for name, figures in summary.iterrows()
    ]
    published = [[name, *(f"{value:.2f}" for value in figures)] for name, figures in PUBLISHED.items()]
    lost = scores[scores.value.isna()].groupby("system")["clip"].nunique()
    missing = "; ".join(f"{runs[name]['title']}: {count} clips" for name, count in lost.items()) or "none"
    singers = scores["clip"].str.partition("_")[0].nunique()
    return "\n".join(
        [
            "# MIR-1K, the published benchmark\n",
            f"Voice at 0 dB, 16 kHz mono; {scores['clip'].nunique()} clips of {singers} singers, none heard "
            "in training; BSS Eval 3, means weighted by length. T: sampling steps. ◇ sees the true vocals. "
            f"Clips without a score: {missing}. Made by\n",
            "    python -m dmxlib.studies.huang --config dmxlib/configs/huang.yaml\n",
            markdown(["trained on the 175 clips", "parameters", "T", "clips", *TITLES.values()], rows),
            "## What others published\n",
            "As handed on with the last of them, whose paper compares all four. One thing was checked: the "
            "2.48 dB of GNSDR and 5.42 dB of GSIR between the first two stand in the second's abstract.\n",
            markdown(["system", *TITLES.values()], published),
        ]
    )


def figure(clips: pd.DataFrame, titles: dict[str, str]):
    """GNSDR of each system, a dot for each singer; under it, in a panel apart, what others published."""
    from matplotlib.figure import Figure

    published = {name.partition(" (")[0]: figures[0] for name, figures in PUBLISHED.items()}
    rows = [len(titles), len(published)]
    plotted = Figure(figsize=(9, 1.5 + 0.32 * sum(rows)), layout="constrained")
    ours, theirs = plotted.subplots(2, 1, sharex=True, height_ratios=rows)
    for row, name in enumerate(titles):
        own = clips.loc[name]
        singers = [weighted(group).gnsdr for _, group in own.groupby("singer")]
        ours.plot(singers, [row] * len(singers), "o", color="C0", alpha=0.35, markersize=4)
        ours.plot(weighted(own).gnsdr, row, "D", color="C0", markersize=8)
    theirs.plot(published.values(), range(len(published)), "s", color="0.4")
    panels = {ours: (titles.values(), "ours; a dot is a singer"), theirs: (published, "published by others")}
    for axes, (labels, title) in panels.items():
        axes.set(yticks=range(len(labels)), yticklabels=labels, title=title, ylim=(len(labels) - 0.5, -0.5))
        axes.grid(axis="x", alpha=0.3)
    theirs.set_xlabel("GNSDR of the voice (dB)")
    return plotted


@exit_on_input_error
def main(argv=None) -> None:
    """Command line."""
    config = parse_config(HuangConfig, argv, prog="python -m dmxlib.studies.huang", description=__doc__)
    score_all(config)
    write_report(config)


if __name__ == "__main__":
    main()
