"""From ratings to mean opinion scores: intervals, tests, agreement, and the paper's Table III.

Listeners alone are a sample, songs are fixed: nothing is said of other songs, which a mixed model would. No
listener is screened out, and the true vocals are not among what is rated.
"""

import shlex
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas
from scipy import stats
from tqdm import tqdm

from dmxlib import audio
from dmxlib.errors import InputError
from dmxlib.listening.results import rated_samples, read_key, read_results
from dmxlib.metrics import external
from dmxlib.reproduce import together
from dmxlib.summary import markdown

CONFIDENCE = 0.95
RESAMPLES = 10_000
NO_MEASURE = (  # results/listening/dnsmos.md has the numbers
    "It was not trained on singing, and of separated singing it measures nothing: on Caesium it rates "
    "LDM-dmx's voices above the true ones through the same codec, and REPET-SIM's above the ideal ratio "
    "mask's."
)


def t_interval(means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(mean, half width of its 95 % t-interval) over the first axis, the listeners.

    The listeners' own means are the independent observations: with every single rating counted as one, the
    ratings of a generous listener would pass for much evidence, and the interval would be too narrow.
    NaN for fewer than two listeners.
    """
    if len(means) < 2:
        return means.mean(axis=0), np.full(means.shape[1:], np.nan)
    reach = stats.t.interval(CONFIDENCE, len(means) - 1)[1]  # scaled here: scipy's is NaN where all agree
    return means.mean(axis=0), reach * stats.sem(means)


def bootstrap_interval(means: np.ndarray) -> tuple[float, float]:
    """95 % percentile interval of the mean of (listeners,), by choosing listeners with replacement."""
    if len(means) < 2:
        return np.nan, np.nan
    found = stats.bootstrap(
        (means,), np.mean, n_resamples=RESAMPLES, confidence_level=CONFIDENCE, method="percentile",
        rng=np.random.default_rng(0),
    )  # fmt: skip
    return tuple(found.confidence_interval)


def listener_means(ratings: pandas.DataFrame, aspect: str) -> pandas.DataFrame:
    """Each listener's mean rating of each system over the recordings: one row a listener."""
    chosen = ratings[ratings.aspect == aspect]
    return chosen.pivot_table(index="listener", columns="system", values="rating", aggfunc="mean")


def opinion_scores(ratings: pandas.DataFrame, key: dict) -> pandas.DataFrame:
    """MOS of each system and aspect with both intervals: mean over listeners of their means."""
    rows = []
    for aspect in [name for name in key["aspects"] if name in set(ratings.aspect)]:
        means = listener_means(ratings, aspect)
        for system in key["systems"]:
            values = means[system].to_numpy()
            mos, half = t_interval(values)
            low, high = bootstrap_interval(values)
            rows.append({"aspect": aspect, "system": system, "listeners": len(values), "mos": mos,
                         "half_width": half, "bootstrap_low": low, "bootstrap_high": high})  # fmt: skip
    return pandas.DataFrame(rows)


def opinion_figure(scores):
    """Plot the table of `opinion_scores` with its t-intervals; returns the figure."""
    from matplotlib.figure import Figure

    aspects, systems = list(scores.aspect.unique()), list(scores.system.unique())
    figure = Figure(figsize=(9, 1.4 + 0.4 * len(systems)), layout="constrained")
    columns = figure.subplots(1, len(aspects), sharey=True, squeeze=False)[0]
    for axes, aspect in zip(columns, aspects, strict=True):
        chosen = scores[scores.aspect == aspect].set_index("system").loc[systems]
        axes.errorbar(chosen.mos, systems, xerr=chosen.half_width, fmt="o", capsize=4)
        axes.set(title=aspect, xlabel="MOS, 95 % interval", xlim=(0.9, 5.1), xticks=range(1, 6))
        axes.grid(alpha=0.3)
    columns[0].invert_yaxis()  # as in the table: the first system on top
    columns[0].margins(y=0.2)
    return figure


def holm(p: np.ndarray) -> np.ndarray:
    """p-values after Holm's step-down correction (Scandinavian Journal of Statistics, 1979)."""
    order = np.argsort(p)
    corrected = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order])
    return np.minimum(1, corrected)[np.argsort(order)]


def comparisons(ratings: pandas.DataFrame, key: dict) -> pandas.DataFrame:
    """Do the systems differ? Friedman's test over all, Wilcoxon's signed-rank test for each pair, with Holm.

    Both on the listeners' means; Holm corrects over the pairs of one aspect. Friedman's wants three systems.
    """
    rows = []
    for aspect, group in ratings.groupby("aspect", sort=False):
        means = listener_means(ratings, aspect)[key["systems"]].to_numpy().T
        shared = {"aspect": aspect, "listeners": group.listener.nunique()}
        if len(means) > 2:
            p = friedman(means)[1]
            rows.append({**shared, "test": "Friedman", "systems": "all", "p": p, "p_holm": np.nan})
        pairs = list(combinations(range(len(means)), 2))
        # Exact for up to 13 listeners, which takes seconds a pair.
        bar = tqdm(pairs, desc=f"compare on {aspect}", unit="pair", delay=2, disable=None)
        p = np.array([wilcoxon(means[first] - means[second]) for first, second in bar])
        for (first, second), raw, corrected in zip(pairs, p, holm(p), strict=True):
            names = f"{key['systems'][first]} - {key['systems'][second]}"
            rows.append({**shared, "test": "Wilcoxon", "systems": names, "p": raw, "p_holm": corrected})
    return pandas.DataFrame(rows)


def wilcoxon(differences: np.ndarray) -> float:
    """The p-value of Wilcoxon's signed-rank test; 1 where nobody hears a difference."""
    differences = differences.round(9)  # equal means may differ in the last bit, and then are no ties
    return float(stats.wilcoxon(differences).pvalue) if differences.any() else 1.0


def friedman(rows: np.ndarray) -> tuple[float, float]:
    """(statistic, p) of Friedman's test of (things compared, listeners); NaN for fewer than two listeners."""
    if rows.shape[1] < 2 or (rows == rows[0]).all():
        return np.nan, np.nan
    return tuple(map(float, stats.friedmanchisquare(*rows)))


def agreement(ratings: pandas.DataFrame) -> pandas.DataFrame:
    """How far the listeners agree, by aspect.

    Kendall's W over the samples (0: not at all, 1: one order for all), from Friedman's statistic with its
    correction for ties; and the listener whose ratings go least with the mean of the others' (Spearman).
    """
    rows = []
    for aspect, group in ratings.groupby("aspect", sort=False):
        wide = group.pivot(index="listener", columns="sample", values="rating")
        values = wide.to_numpy(float)
        count, samples = values.shape
        w = friedman(values.T)[0] / (count * (samples - 1)) if samples > 2 else np.nan
        with np.errstate(invalid="ignore"):
            fits = [against_others(values, index) for index in range(count)]
        odd = int(np.nanargmin(fits)) if np.isfinite(fits).any() else None
        rows.append({"aspect": aspect, "listeners": count, "kendall_w": w,
                     "least_spearman": np.nan if odd is None else fits[odd],
                     "least_listener": "" if odd is None else wide.index[odd]})  # fmt: skip
    return pandas.DataFrame(rows)


def against_others(values: np.ndarray, index: int) -> float:
    """Spearman's correlation of one listener's ratings with the others' mean; NaN if either is flat."""
    own, others = values[index], np.delete(values, index, axis=0)
    if not len(others) or np.ptp(own) == 0 or np.ptp(others.mean(axis=0)) == 0:
        return np.nan
    return float(stats.spearmanr(own, others.mean(axis=0)).statistic)


def table(scores: pandas.DataFrame) -> str:
    """Table III in markdown: MOS, half width of the t-interval, bootstrap interval in brackets."""
    aspects = list(scores.aspect.unique())
    lines = []
    for system, group in scores.groupby("system", sort=False):
        cells = {}
        for row in group.itertuples():
            bootstrap = f"({row.bootstrap_low:.2f} to {row.bootstrap_high:.2f})"
            cells[row.aspect] = f"{row.mos:.2f} ± {row.half_width:.2f} {bootstrap}"
        lines.append([system, *(cells[aspect] for aspect in aspects)])
    return markdown(["system", *aspects], lines)


def report(ratings: pandas.DataFrame, key: dict, notes: list[str], folder: Path) -> str:
    """Write ratings.csv, mos.csv, comparisons.csv, agreement.csv, mos.png and table3.md; returns the last."""
    scores, tests, fit = opinion_scores(ratings, key), comparisons(ratings, key), agreement(ratings)
    tables = {"ratings": ratings, "mos": scores, "comparisons": tests, "agreement": fit}
    differ = tests[(tests.test == "Wilcoxon") & (tests.p_holm < 1 - CONFIDENCE)]
    differences = [f"- {row.aspect}: {row.systems} (p = {row.p_holm:.2g})" for row in differ.itertuples()]
    agreed = [
        f"- {row.aspect}: Kendall's W {row.kendall_w:.2f}; least in line {row.least_listener} "
        f"(Spearman {row.least_spearman:.2f} with the mean of the others)"
        for row in fit.itertuples()
    ]
    friedmans = [f"- {row.aspect}: p = {row.p:.2g}" for row in tests[tests.test == "Friedman"].itertuples()]
    parts = {
        f"Mean opinion scores, {ratings.listener.nunique()} listeners": (
            "1 to 5, more is better: mean over listeners of their means ± half of the 95 % t-interval "
            f"(n = listeners), in brackets the 95 % bootstrap interval over listeners.\n\n{table(scores)}"
        ),
        "All systems alike? (Friedman)": "\n".join(friedmans) or "Too few systems.",
        "Pairs that differ (Wilcoxon with Holm, p < 0.05)": "\n".join(differences) or "None.",
        "Do the listeners agree?": "\n".join(agreed),
        "Dropped": "\n".join(f"- {note}" for note in notes) or "Nothing.",
    }  # fmt: skip
    text = "\n\n".join(f"## {title}\n\n{body.strip()}" for title, body in parts.items())
    text = f"# {key['id']}\n\n{text}\n"
    with together(folder) as part:
        for name, rows in tables.items():
            rows.to_csv(part / f"{name}.csv", index=False)
        opinion_figure(scores).savefig(part / "mos.png", dpi=110)
        (part / "table3.md").write_text(text)
    return text


def analyse(results: Path, key: str | None = None, output_dir: Path | None = None) -> str:
    """Read what listeners sent, drop what must be dropped, and write the scores; returns them as markdown.

    Raises InputError as `read_results` does, or where a folder or the key is missing.
    """
    if not results.is_dir():
        raise InputError(f"{results} is no folder; name the one that holds what listeners sent.")
    path = Path(key) if key else results.parent / "key.json"
    if not path.is_file():
        raise InputError(f"{path} does not exist; name the test's key.json with --key.")
    key = read_key(path)
    ratings, notes = read_results(results, key)
    return report(ratings, key, notes, output_dir or path.parent / "analysis")


# -- without listeners ---------------------------------------------------------------------------------------


def proxy(folder: Path) -> str:
    """DNSMOS P.835 of the rated samples, a network's guess at what listeners would say of speech.

    Of separated singing it measures nothing; what it writes says so.

    Writes dnsmos.csv, one row a sample, and dnsmos.md, the means over recordings, into the test's folder;
    returns the latter. No listener is involved.

    Raises InputError where the folder is no test or `speechmos` is not installed.
    """
    key = read_key(folder / "key.json")
    rows = []
    for name, sample in tqdm(rated_samples(key).items(), desc="DNSMOS", unit="sample", disable=None):
        values = external.dnsmos(*audio.read(folder / "page" / "audio" / f"{name}.wav"))
        rows.append({"system": sample["system"], "track": sample["track"], "span": sample["span"], **values})
    scores = pandas.DataFrame(rows)
    means = scores.groupby("system").mean(numeric_only=True).loc[key["systems"]]
    text = (
        f"# Proxy, not listeners: DNSMOS P.835 of {key['id']}\n\n"
        "A network's guess at how people would rate speech from 1 to 5: the voice (sig), the background "
        "(bak), the whole (ovrl), and the whole after ITU-T P.808 (p808). Means over the rated excerpts. "
        f"{NO_MEASURE}\n\n    python -m dmxlib.listening proxy {shlex.quote(str(folder))}\n\n"
        + markdown(["system", *means], means.itertuples())
    )
    with together(folder) as part:
        scores.to_csv(part / "dnsmos.csv", index=False)
        (part / "dnsmos.md").write_text(text)
    return text
