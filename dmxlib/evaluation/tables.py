"""Table II and its figures, from the files that an evaluation wrote."""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from dmxlib.errors import InputError
from dmxlib.evaluation.files import read_rows, read_runs
from dmxlib.evaluation.scoring import clip_seconds
from dmxlib.evaluation.systems import SYSTEMS, find_row, full_title
from dmxlib.metrics import OCTAVES_HZ, RATE
from dmxlib.reproduce import together
from dmxlib.summary import markdown, medians

PAPERS_METRICS = {
    "lsd": "LSD ↓",
    "mel_mae": "Mel-MAE (dB) ↓",
    "log_f0_rmse": "Log-F0 RMSE ↓",
    "pesq": "PESQ ↑",
}
OTHER_METRICS = {
    "sdr": "SDR (dB) ↑", "si_sdr": "SI-SDR (dB) ↑", "usdr": "SDR of songs (dB) ↑",
    "csdr": "BSS Eval SDR (dB) ↑", "sir": "BSS Eval SIR (dB) ↑", "sar": "BSS Eval SAR (dB) ↑",
    "stft_distance": "STFT distance ↓",
    "latent_distance": "latent distance ↓", "missed_voiced": "voiced frames missed ↓",
    "silence_db": "under the mixture where nobody sings (dB) ↑",
}  # fmt: skip
DNSMOS = {"dnsmos_sig": "SIG ↑", "dnsmos_bak": "BAK ↑", "dnsmos_ovrl": "OVRL ↑", "dnsmos_p808": "P.808 ↑"}
MUSDB = {
    "musdb_sdr": "SDR (dB) ↑", "musdb_isr": "ISR (dB) ↑", "musdb_sir": "SIR (dB) ↑",
    "musdb_sar": "SAR (dB) ↑",
}  # fmt: skip
PRECISIONS = {"no": "fp32", "fp16": "fp16", "bf16": "bf16"}
NO_TIMES = pd.DataFrame(columns=["system", "steps", "repeat", "seconds"])

# Table II as the paper prints it; its time is of a 12-s clip on a GPU of 12 GB.
PAPER = pd.DataFrame(
    [
        ("IRM (oracle)", "no", "-", np.nan, np.nan, 0.64, 1.84, 0.119, 2.98),
        ("InstGlow", "yes", "15M", 16.50, 0.12, 2.17, 8.40, 0.268, 1.17),
        ("MSDM", "yes", "405M", 11.95, 0.14, 2.08, 8.21, 0.369, 1.16),
        ("LDM-dmx", "yes", "116M", 1.74, 0.02, 1.30, 6.43, 0.198, 1.29),
        ("BS-RNN", "no", "36M", np.nan, np.nan, 1.41, 6.94, 0.187, 1.98),
        ("H-Demucs", "no", "346M", 0.40, 0.09, 1.01, 5.11, 0.172, 1.82),
    ],
    columns=["model", "generative", "parameters", "seconds", "seconds_std", *PAPERS_METRICS],
).set_index("model")


# -- what the evaluation wrote -------------------------------------------------------------------------------


def load_scores(folder) -> tuple[pd.DataFrame, dict[str, dict]]:
    """(rows of all systems in the tables' order, system -> facts) of a folder of `dmxlib.evaluation`.

    A system's facts have its `title`, and its `seconds` for 12 s of audio with their `deviation`, NaN where
    it was not timed.
    Raises InputError where the folder holds no scores.
    """
    folder = Path(folder)
    rows, runs = read_rows(folder / "rows.csv"), read_runs(folder / "run.json")
    names = {run["system"] for run in runs if "system" in run} & {*rows.system}
    names = {name for name in names if name.partition("@")[0] in SYSTEMS}  # some have left the package
    if not names:
        raise InputError(
            f"{folder} holds no scores; `python -m dmxlib.evaluation --help` says how to make them."
        )
    runs = {run["system"]: run for run in runs if run.get("system") in names}
    places = {name: place for place, name in enumerate(SYSTEMS)}
    order = sorted(names, key=lambda name: (places[name.partition("@")[0]], runs[name].get("steps") or 0))
    times = pd.read_csv(folder / "times.csv") if (folder / "times.csv").exists() else NO_TIMES
    facts = {}
    for name in order:
        run = runs[name]
        seconds, deviation = clip_seconds(times, name, run.get("steps"))
        more = {"title": full_title(name, run.get("steps")), "seconds": seconds, "deviation": deviation}
        facts[name] = run | more
    place = rows.system.map({name: number for number, name in enumerate(order)})
    rows = rows.assign(place=place).dropna(subset="place").sort_values("place", kind="stable")
    return rows.drop(columns="place").reset_index(drop=True), facts


def dropped(rows: pd.DataFrame, facts: dict[str, dict]) -> list[str]:
    """One sentence for each system and reason: which metrics lost how many of their items."""
    total = rows.groupby(["system", "metric"], sort=False)["value"].size().rename("total")
    lost = rows.dropna(subset="dropped_reason").groupby(["system", "dropped_reason", "metric"], sort=False)
    lost = lost.size().rename("lost").reset_index().join(total, on=["system", "metric"])
    groups = lost.groupby(["system", "dropped_reason", "lost", "total"], sort=False)["metric"].agg(", ".join)
    return [
        f"{facts[system]['title']}: {count} of {of} in {names}: {reason}."
        for (system, reason, count, of), names in groups.items()
    ]


# -- tables --------------------------------------------------------------------------------------------------


def commands(facts: dict[str, dict]) -> str:
    """What made the scores, one line each."""
    lines = sorted({fact["command"] for fact in facts.values() if "command" in fact})
    return "\n".join(f"    {line}" for line in lines)


def scored(rows: pd.DataFrame) -> str:
    """How much was scored."""
    count = len(rows[["track", "excerpt"]].dropna().drop_duplicates())
    return f"{count} excerpts of {', '.join(rows['track'].unique())}; mono mean at 44.1 kHz"


def score_table(folder) -> str:
    """All scores in a folder: medians over excerpts, in markdown, one column a system."""
    rows, facts = load_scores(folder)
    rows = rows[~rows.metric.str.startswith("musdb_")]
    medians = rows.groupby(["metric", "system"], sort=False)["value"].median().unstack()[list(facts)]
    lines = [[metric, *map(three, values)] for metric, values in medians.iterrows()]
    lines.append(
        ["scores dropped", *(str(rows.dropped_reason[rows.system == name].count()) for name in facts)]
    )
    times = [three(fact["seconds"]) for fact in facts.values()]
    table = markdown(["", *facts], [*lines, ["seconds for 12 s", *times]])
    return f"Medians over {scored(rows)}. Made by\n\n{commands(facts)}\n\n{table}"


def three(value: float) -> str:
    """Three digits, or a dash for NaN."""
    return "-" if math.isnan(value) else f"{value:.3g}"


def with_deviation(mean: float, deviation: float) -> str:
    """Two decimals of both, or a dash for NaN."""
    return "-" if math.isnan(mean) else f"{mean:.2f} ± {deviation:.2f}"


def metric_table(
    figures: pd.DataFrame,
    metrics: dict[str, str],
    facts: dict[str, dict],
    more: dict[str, dict] | None = None,
) -> str:
    """Medians and intervals, one row a system; `more` has columns in front, title -> system -> text."""
    systems, more = figures.index.unique("system"), more or {}
    metrics = {metric: title for metric, title in metrics.items() if metric in figures.index.unique("metric")}
    lines = []
    for system in systems:
        cells = [cell(figures, system, metric) for metric in metrics]
        lines.append([facts[system]["title"], *(column[system] for column in more.values()), *cells])
    return markdown(["model", *more, *metrics.values()], lines)


def musdb_table(rows: pd.DataFrame, facts: dict[str, dict]) -> str:
    """The field's protocol: one row a system."""
    found = rows.groupby(["system", "metric"])["value"]
    middle, mean = found.median().unstack(), found.mean().unstack()
    lines = [
        [facts[system]["title"], *(float(middle.at[system, metric]) for metric in MUSDB)]
        + [float(mean.at[system, "musdb_usdr"])]
        for system in facts
        if not np.isnan(mean.at[system, "musdb_usdr"])
    ]
    return markdown(["model", *MUSDB.values(), "uSDR (dB) ↑"], lines)


def cell(figures: pd.DataFrame, system: str, metric: str) -> str:
    """Median (low to high)."""
    if (system, metric) not in figures.index:
        return "-"
    median, low, high = figures.loc[(system, metric)]
    return three(median) if math.isnan(low) else f"{three(median)} ({three(low)} to {three(high)})"


def front_columns(facts: dict[str, dict]) -> tuple[dict, dict]:
    """Columns of a table's front, title -> system -> text: of all, and of those up to a bandwidth."""

    def column(text):
        return {system: text(fact) for system, fact in facts.items()}

    all_columns = {
        "generative": {system: "yes" if find_row(system)[0].generative else "no" for system in facts},
        "parameters": column(lambda fact: millions(fact.get("parameters"))),
        "T": column(lambda fact: str(fact.get("steps") or "-")),
        "precision": column(lambda fact: PRECISIONS[fact.get("mixed_precision") or "no"]),
        "time (s)": column(lambda fact: with_deviation(fact["seconds"], fact["deviation"])),
    }
    return all_columns, {"up to (Hz)": column(lambda fact: f"{fact.get('bandwidth') or RATE / 2:.0f}")}


def millions(count: int | None) -> str:
    """4200000 -> "4.2 M"."""
    return f"{count / 1e6:.1f} M" if count else "-"


def paper_table() -> str:
    """Table II as the paper prints it."""
    digits = {metric: 3 if metric == "log_f0_rmse" else 2 for metric in PAPERS_METRICS}
    lines = [
        [name, row.generative, row.parameters, with_deviation(row.seconds, row.seconds_std)]
        + [f"{row[metric]:.{count}f}" for metric, count in digits.items()]
        for name, row in PAPER.iterrows()
    ]
    return markdown(["model", "generative", "parameters", "time (s)", *PAPERS_METRICS.values()], lines)


def table2(folder) -> str:
    """Table II in markdown, from a folder of scores: ours, with what is left out of it, and the paper's in a
    block of its own."""
    rows, facts = load_scores(folder)
    figures = medians(rows, ["system", "metric"])
    all_columns, bandwidths = front_columns(facts)
    to_bandwidth = {f"{metric}_to_bandwidth": title for metric, title in PAPERS_METRICS.items()}
    octaves = {f"lsd_{low}_{high}": f"{low} to {high} Hz" for low, high in pairwise(OCTAVES_HZ)}
    timed = [run for run in read_runs(Path(folder) / "run.json") if "timed" in run]
    clock = "not measured"
    if timed:
        clock = f"in float32, in turns, in one run, on {timed[0]['machine']}; rows with - were not timed"
    over = "songs" if rows.track.nunique() > 1 else "excerpts, which knows nothing of other songs"
    parts = [
        "# Table II\n\n## Ours",
        f"Medians over {scored(rows)}, in brackets the 95 % bootstrap interval over the "
        f"{over}. LSD, Mel-MAE and log-F0 RMSE on the true voiced frames, PESQ on "
        f"whole excerpts. Time for 12 s of stereo: {clock}. T: sampling steps; one gives the mean of the "
        "voices that the mixture allows, many sample one of them. Precision: of the separation. "
        "◇ sees the true vocals. Made by `python -m dmxlib.report`; scores made by",
        commands(facts),
        metric_table(figures, PAPERS_METRICS, facts, all_columns),
        f"Not scored: {', '.join(system for system in SYSTEMS if system not in facts) or 'none'}.",
        "Dropped:\n\n" + "\n".join(f"- {line}" for line in dropped(rows, facts) or ["nothing."]),
        "Up to a system's own bandwidth, its reference too:",
        metric_table(figures, to_bandwidth, facts, bandwidths),
        "Interference, artifacts and other distances of the mono mean: none compares with what is published "
        "on MUSDB18-HQ. BSS Eval takes one filter an excerpt. The SDR of songs and the last column are of "
        "whole songs.",
        metric_table(figures, OTHER_METRICS, facts),
        "LSD by octave, less is better:",
        metric_table(figures, octaves, facts),
    ]
    if set(DNSMOS) & set(rows.metric):
        parts += [
            "DNSMOS P.835, which measures nothing here: it was made for noisy speech, and puts the true "
            "voice through the codec below a separated one.",
            metric_table(figures, DNSMOS, facts),
        ]
    if set(MUSDB) & set(rows.metric):
        parts += [
            "As on MUSDB18-HQ, whole songs in stereo: museval's, medians over frames of 1 s and then over "
            "songs; SDX23's uSDR, the mean over songs:",
            musdb_table(rows, facts),
        ]
    parts += [
        "## The paper's",
        "Other songs (MUSDB18-HQ), other sizes, a GPU, constants it does not give: not to be read across.",
        paper_table(),
    ]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


# -- figures -------------------------------------------------------------------------------------------------


def table2_figure(folder):
    """Medians with their intervals, one panel a metric; under them the paper's values."""
    from matplotlib.figure import Figure

    rows, facts = load_scores(folder)
    ours, systems = medians(rows, ["system", "metric"]), list(facts)
    figure = Figure(figsize=(11, 1.8 + 0.3 * (len(systems) + len(PAPER))), layout="constrained")
    heights = {"height_ratios": [len(systems), len(PAPER)]}
    panels = figure.subplots(2, len(PAPERS_METRICS), sharex="col", sharey="row", gridspec_kw=heights)
    for (metric, title), (top, bottom) in zip(PAPERS_METRICS.items(), panels.T, strict=True):
        chosen = ours.reindex([(system, metric) for system in systems])
        reach = [chosen["median"] - chosen.low, chosen.high - chosen["median"]]
        top.errorbar(chosen["median"], range(len(systems)), xerr=reach, fmt="o", markersize=5, capsize=3)
        bottom.plot(PAPER[metric], range(len(PAPER)), "D", color="0.4", markersize=5)
        top.set(title=title)
        for axes in (top, bottom):
            axes.grid(alpha=0.3)
            axes.tick_params(labelbottom=True)
    titles = [facts[system]["title"] for system in systems]
    for (axes, *_), names, block in ((panels[0], titles, "ours"), (panels[1], PAPER.index, "the paper's")):
        axes.set_yticks(range(len(names)), names)
        axes.set(ylim=(len(names) - 0.4, -0.6), ylabel=block)
    return figure


def speed_figure(folder):
    """LSD and PESQ over the seconds for a clip of 12 s: ours but the oracles, a line through the numbers of
    steps of each; the paper's beside them."""
    import matplotlib
    from matplotlib.figure import Figure

    rows, facts = load_scores(folder)
    shown = {metric: PAPERS_METRICS[metric] for metric in ("lsd", "pesq")}
    systems = [system for system in facts if not find_row(system)[0].sees_vocals]
    ours = rows.groupby(["system", "metric"])["value"].median().unstack()
    ours = ours.reindex(index=systems, columns=list(shown)).assign(
        seconds=[facts[system]["seconds"] for system in systems],
        steps=[facts[system].get("steps") for system in systems],
        name=[system.partition("@")[0] for system in systems],
    )
    ours.index = [facts[system]["title"] for system in systems]
    ours = ours.dropna(subset="seconds")
    sweeps = [runs.sort_values("steps") for _, runs in ours.groupby("name", sort=False) if len(runs) > 1]
    blocks = {"ours": ours, "the paper's": PAPER.dropna(subset="seconds")}
    heights = [max(2.5, 0.7 + 0.2 * len(frame)) for frame in blocks.values()]  # inches, of a legend's lines
    figure = Figure(figsize=(13, sum(heights)), layout="constrained")
    panels = figure.subplots(2, len(shown), gridspec_kw={"height_ratios": heights})
    for row, (block, frame) in zip(panels, blocks.items(), strict=True):
        for axes, (metric, title) in zip(row, shown.items(), strict=True):
            axes.set_prop_cycle(color=matplotlib.colormaps["tab20"].colors)
            for name, point in frame.iterrows():
                axes.plot(point.seconds, point[metric], "o", label=name)
            axes.set(xscale="log", xlabel="seconds for 12 s of audio", ylabel=title)
            axes.margins(0.1)
            axes.grid(alpha=0.3)
        row[-1].legend(title=block, loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)
    for axes, metric in zip(panels[0], shown, strict=True):
        for runs in sweeps:
            axes.plot(runs.seconds, runs[metric], ".-", color="0.6", linewidth=1, zorder=0)
            for run in runs.itertuples():
                place = run.seconds, getattr(run, metric)
                axes.annotate(f"T={run.steps:.0f}", place, (0, -11), textcoords="offset points", fontsize=8)
    return figure


def write_table2(folder, output) -> list[Path]:
    """Write table2.md, table2.png and, of systems that were timed, speed.png of a folder of scores to another
    one; returns their paths."""
    figures = {"table2.png": table2_figure}
    if (Path(folder) / "times.csv").exists():
        figures["speed.png"] = speed_figure
    output = Path(output)
    with together(output) as part:
        (part / "table2.md").write_text(table2(folder))
        for name, make_figure in figures.items():
            make_figure(folder).savefig(part / name, dpi=110)
    return [output / name for name in ("table2.md", *figures)]
