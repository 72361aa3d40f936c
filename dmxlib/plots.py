"""The project's one plot style."""

from pathlib import Path

import librosa
import numpy as np

from dmxlib.metrics import FLOOR_DB


def save_spectrograms(path, waves: dict[str, np.ndarray], rate: int) -> None:
    """Draw mel spectrograms, one above the other on one scale of decibels, to an image file.

    Args:
        waves: title -> (channels, frames) at `rate` Hz; the mean of the channels is drawn.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    spectrograms(waves, rate).savefig(path, dpi=110)


def spectrograms(waves: dict[str, np.ndarray], rate: int):
    """The figure of `save_spectrograms`; a notebook shows it."""
    from matplotlib.figure import Figure  # not pyplot: no window, and nothing to close

    figure = Figure(figsize=(9, 1 + 2 * len(waves)), layout="constrained")
    powers = [
        librosa.feature.melspectrogram(y=wave.mean(axis=0), sr=rate, n_mels=128) for wave in waves.values()
    ]
    top = max(power.max() for power in powers)
    rows = figure.subplots(len(waves), 1, sharex=True, squeeze=False)[:, 0]
    for axes, title, power in zip(rows, waves, powers, strict=True):
        decibels = 10 * np.log10(np.maximum(power / max(top, 1e-10), 10 ** (FLOOR_DB / 10)))
        image = librosa.display.specshow(
            decibels, sr=rate, x_axis="time", y_axis="mel", cmap="magma", ax=axes
        )
        axes.set(title=title, xlabel="", ylabel="Hz")
        image.set_clim(FLOOR_DB, 0)
    rows[-1].set_xlabel("seconds")
    figure.colorbar(image, ax=list(rows), format="%+.0f dB")
    return figure


def waveforms(waves: dict[str, np.ndarray], rate: int, start: float = 0.0):
    """Draw waves (channels, frames) one above the other, from second `start` on; returns the figure."""
    figure, rows = _rows(len(waves), 1.4)
    mids = {title: wave.mean(axis=0) for title, wave in waves.items()}
    top = 1.05 * max(1e-6, *(np.abs(mid).max() for mid in mids.values()))
    for axes, (title, mid) in zip(rows, mids.items(), strict=True):
        axes.plot(start + np.arange(len(mid)) / rate, mid, linewidth=0.6)
        axes.set(title=title, ylabel="amplitude", ylim=(-top, top), xlim=(start, start + len(mid) / rate))
        axes.grid(alpha=0.3)
    rows[-1].set_xlabel("seconds")
    return figure


def latents(panels: dict[str, np.ndarray], frame_rate: float):
    """Draw latents (channels, F), `frame_rate` frames a second, one above the other; returns the figure."""
    figure, rows = _rows(len(panels), 1.6)
    for axes, (title, panel) in zip(rows, panels.items(), strict=True):
        extent = (0, panel.shape[1] / frame_rate, len(panel) - 0.5, -0.5)
        look = {"cmap": "RdBu_r", "clim": (-3, 3), "aspect": "auto", "interpolation": "nearest"}
        image = axes.imshow(panel, extent=extent, **look)
        axes.set(title=title, ylabel="channel")
    rows[-1].set_xlabel("seconds")
    figure.colorbar(image, ax=list(rows), label="standard deviations")
    return figure


def lines(curves: dict[str, tuple], xlabel: str, ylabel: str, **settings):
    """Draw curves, title -> (x, y), into one diagram; `settings` are the axes'. Returns the figure."""
    figure, (axes,) = _rows(1, 2.6)
    for title, (x, y) in curves.items():
        axes.plot(x, y, marker="o" if len(x) <= 50 else "", markersize=4, label=title)
    axes.set(xlabel=xlabel, ylabel=ylabel, **settings)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def uncertainty(voices: list[np.ndarray], rate: int):
    """Draw the mean and the deviation of a voice's mel spectrogram in dB over its draws (channels, frames).

    Powers are floored at FLOOR_DB under the loudest draw's peak. Returns the figure.
    """
    mids = np.stack([voice.mean(axis=0) for voice in voices])
    powers = librosa.feature.melspectrogram(y=mids, sr=rate, n_mels=128)  # (draws, bands, frames)
    relative = powers / max(powers.max(), 1e-10)
    decibels = 10 * np.log10(np.maximum(relative, 10 ** (FLOOR_DB / 10)))
    panels = {f"mean of {len(voices)} draws": (decibels.mean(axis=0), "magma", FLOOR_DB, 0)}
    panels["deviation between the draws"] = (decibels.std(axis=0), "viridis", 0, 20)
    figure, rows = _rows(2, 2.4)
    for axes, (title, (values, colors, low, high)) in zip(rows, panels.items(), strict=True):
        image = librosa.display.specshow(values, sr=rate, x_axis="time", y_axis="mel", cmap=colors, ax=axes)
        axes.set(title=title, xlabel="", ylabel="Hz")
        image.set_clim(low, high)
        figure.colorbar(image, ax=axes, format="%.0f dB", extend="neither" if high == 0 else "max")
    rows[-1].set_xlabel("seconds")
    return figure


def training_curve(log, title: str):
    """Draw the losses of a run's log.jsonl (or the same as .csv) over its steps; returns the figure."""
    import pandas

    records = pandas.read_csv(log) if Path(log).suffix == ".csv" else pandas.read_json(log, lines=True)
    training = records.dropna(subset="loss").set_index("step").loss
    validation = records.dropna(subset="validation_loss").set_index("step").validation_loss
    figure, (axes,) = _rows(1, 2.8)
    width = max(1, len(training) // 40)
    axes.plot(
        training, color="C0", linewidth=0.6, alpha=1 if width == 1 else 0.35, label="each training step"
    )
    if width > 1:
        axes.plot(
            training.rolling(width, min_periods=1, center=True).mean(),
            color="C0",
            label=f"mean of {width} steps",
        )
    axes.plot(validation, color="C1", marker="o", markersize=4, label="validation, averaged weights")
    axes.set(title=title, xlabel="training step", ylabel="loss")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def noise_study(panels: dict[str, dict]):
    """Draw a noise study; returns the figure.

    Args:
        panels: "sdr", "lsd", "mel_mae" -> title of a curve -> frame over the noise's deviation with the
            columns median, low and high, as `dmxlib.summary.medians` makes it.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    figure = Figure(figsize=(11, 7.5), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True).ravel()
    names = {"sdr": "SDR (dB)", "lsd": "LSD", "mel_mae": "Mel-MAE (dB)"}
    for part, name in zip(axes, ("sdr", "sdr", "lsd", "mel_mae"), strict=True):
        _intervals(part, panels[name], ("0.45", "C0", "C1", "C3", "C2"))
        part.set(title=names[name])
        part.set_xscale("symlog", linthresh=1e-6, linscale=0.6)  # the 0 has its place on it
        part.set(xlim=(0, 4), xticks=[0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1])
        part.xaxis.set_minor_locator(NullLocator())
    decoded = [curve for title, curve in panels["sdr"].items() if title != "Identity"]
    low, high = min(curve.min(axis=None) for curve in decoded), max(curve.max(axis=None) for curve in decoded)
    axes[1].set(title="SDR (dB), the codec's range", ylim=(low - 2, high + 2))
    for part in axes[2:]:
        part.set_xlabel("deviation of the noise")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(panels["sdr"]))
    return figure


def codec_study(by_band: dict, by_bandwidth: dict, codings: dict):
    """Draw what a codec keeps by frequency band, by bandwidth and by way of coding; returns the figure.

    Args:
        by_band: title -> frame of SDR over the bands' lower edges in Hz, columns as in `noise_study`.
        by_bandwidth: title -> frame of SDR over kbit/s.
        codings: title -> frame of SDR, then of SI-SDR, over the names of the ways.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7.5), layout="constrained")
    axes = figure.subplot_mosaic([["bands", "bands"], ["bandwidths", "codings"]])
    edges = next(iter(by_band.values())).index
    _intervals(axes["bands"], {title: curve.set_axis(range(len(edges))) for title, curve in by_band.items()})
    axes["bands"].set(title="by frequency band", xlabel="Hz", ylabel="SDR (dB)")
    names = [f"{low:,} to {high:,}" for low, high in zip(edges, edges[1:], strict=False)]
    axes["bands"].set_xticks(range(len(edges)), [*names, f"above {edges[-1]:,}"])
    _intervals(axes["bandwidths"], by_bandwidth)
    axes["bandwidths"].set(title="by bandwidth of the quantiser", xlabel="kbit/s", ylabel="SDR (dB)")
    for number, (title, curve) in enumerate(codings.items()):
        places = np.arange(len(curve)) + 0.16 * (number - (len(codings) - 1) / 2)
        reach = [curve["median"] - curve.low, curve.high - curve["median"]]
        look = {"color": f"C{number % 2}", "mfc": "white" if number > 1 else None}
        axes["codings"].errorbar(curve["median"], places, xerr=reach, fmt="o", label=title, capsize=3, **look)
    axes["codings"].set_yticks(range(len(curve)), curve.index)
    axes["codings"].invert_yaxis()
    axes["codings"].set(title="one stream or chunks, without noise", xlabel="dB")
    axes["codings"].grid(alpha=0.3)
    axes["codings"].legend(loc="upper center", bbox_to_anchor=(0.4, -0.13), ncols=4, frameon=False)
    axes["bands"].legend()
    axes["bandwidths"].legend()
    return figure


def _intervals(axes, curves: dict, colors=("C0", "C1", "C2", "C3")):
    """Draw medians as lines, each in the band of its interval."""
    for color, (title, curve) in zip(colors, curves.items(), strict=False):
        axes.plot(curve.index, curve["median"], "o-", color=color, markersize=4, label=title)
        axes.fill_between(curve.index, curve.low, curve.high, color=color, alpha=0.12, linewidth=0)
    axes.grid(alpha=0.3)


def opinion_scores(scores):
    """Draw a table of `dmxlib.listening.analyse.opinion_scores` with its t-intervals; returns the figure."""
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


def scores(ours, systems: list[str], paper, metrics: dict[str, str]):
    """Draw Table II: medians with their intervals, and the paper's values under them; returns the figure.

    Args:
        ours: frame over (system, metric) with the columns median, low, high.
        systems: from top to bottom.
        paper: frame over models with a column for each metric.
        metrics: name -> title, one column of panels each, on one scale.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 1.8 + 0.3 * (len(systems) + len(paper))), layout="constrained")
    heights = {"height_ratios": [len(systems), len(paper)]}
    panels = figure.subplots(2, len(metrics), sharex="col", sharey="row", gridspec_kw=heights)
    for (metric, title), (top, bottom) in zip(metrics.items(), panels.T, strict=True):
        chosen = ours.reindex([(system, metric) for system in systems])
        reach = [chosen["median"] - chosen.low, chosen.high - chosen["median"]]
        top.errorbar(chosen["median"], range(len(systems)), xerr=reach, fmt="o", markersize=5, capsize=3)
        bottom.plot(paper[metric], range(len(paper)), "D", color="0.4", markersize=5)
        top.set(title=title)
        for axes in (top, bottom):
            axes.grid(alpha=0.3)
            axes.tick_params(labelbottom=True)
    for (axes, *_), names, block in ((panels[0], systems, "ours"), (panels[1], paper.index, "the paper's")):
        axes.set_yticks(range(len(names)), names)
        axes.set(ylim=(len(names) - 0.4, -0.6), ylabel=block)
    return figure


def speed(ours, sweeps, paper, metrics: dict[str, str]):
    """Draw scores over the seconds for a clip of 12 s, ours and the paper's beside them; returns the figure.

    Args:
        ours, paper: frames over systems with the columns seconds and each metric.
        sweeps: frame of system, steps, seconds and each metric: lines with the steps beside their points.
        metrics: name -> title, one row of panels each.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 1.6 + 2.8 * len(metrics)), layout="constrained")
    panels = figure.subplots(len(metrics), 2, sharex="col", squeeze=False)
    for (metric, title), row in zip(metrics.items(), panels, strict=True):
        for axes, frame in zip(row, (ours, paper), strict=True):
            for name, point in frame.dropna(subset="seconds").iterrows():
                axes.plot(point.seconds, point[metric], "o", label=name)
            axes.set(xscale="log", ylabel=title)
            axes.margins(0.1)
            axes.grid(alpha=0.3)
        for _, runs in sweeps.groupby("system", sort=False):
            row[0].plot(runs.seconds, runs[metric], ".-", color="0.6", linewidth=1, zorder=0)
            for run in runs.itertuples():
                place = run.seconds, getattr(run, metric)
                row[0].annotate(f"T={run.steps}", place, (0, -11), textcoords="offset points", fontsize=8)
    for axes, block in zip(panels[0], ("ours", "the paper's"), strict=True):
        axes.legend(title=block, loc="lower center", bbox_to_anchor=(0.5, 1.02), ncols=3, frameon=False)
    for axes in panels[-1]:
        axes.set_xlabel("seconds for 12 s of audio")
    return figure


def quality_by_seconds(settings, titles: dict[str, str]):
    """Draw scores over computing time, settings of one kind (their first word) as a line; returns the figure.

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


def _rows(count, height):
    """A figure with `count` axes one above the other, each `height` inches high."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 0.8 + height * count), layout="constrained")
    return figure, figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0]
