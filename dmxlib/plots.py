"""The project's one plot style, and a player; what only one module plots stands there."""

import io
from pathlib import Path

import librosa
import numpy as np

from dmxlib.errors import InputError
from dmxlib.metrics import FLOOR_DB
from dmxlib.reproduce import whole


def save_spectrograms(path, waves: dict[str, np.ndarray], rate: int) -> None:
    """Plot mel spectrograms, one above the other on one scale of decibels, to an image file.

    Args:
        waves: title -> (channels, samples) at `rate` Hz; the mean of the channels is plotted.
    """
    with whole(path) as part:
        spectrograms(waves, rate).savefig(part, dpi=110)


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
    """Plot waves (channels, samples) one above the other, from second `start` on; returns the figure."""
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
    """Plot latents (channels, F), `frame_rate` frames a second, one above the other; returns the figure."""
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
    """Plot curves, title -> (x, y), into one diagram; `settings` are the axes'. Returns the figure."""
    figure, (axes,) = _rows(1, 2.6)
    for title, (x, y) in curves.items():
        axes.plot(x, y, marker="o" if len(x) <= 50 else "", markersize=4, label=title)
    axes.set(xlabel=xlabel, ylabel=ylabel, **settings)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def uncertainty(voices: list[np.ndarray], rate: int):
    """Plot the mean and the deviation, in dB, of the mel spectrograms of voices that one mixture gave.

    Args:
        voices: each (channels, samples) at `rate` Hz. Powers are floored at FLOOR_DB under the highest peak.

    Returns the figure.
    """
    mids = np.stack([voice.mean(axis=0) for voice in voices])
    powers = librosa.feature.melspectrogram(y=mids, sr=rate, n_mels=128)  # (voices, bands, frames)
    relative = powers / max(powers.max(), 1e-10)
    decibels = 10 * np.log10(np.maximum(relative, 10 ** (FLOOR_DB / 10)))
    panels = {f"mean of {len(voices)} sampled voices": (decibels.mean(axis=0), "magma", FLOOR_DB, 0)}
    panels["deviation between them"] = (decibels.std(axis=0), "viridis", 0, 20)
    figure, rows = _rows(2, 2.4)
    for axes, (title, (values, colors, low, high)) in zip(rows, panels.items(), strict=True):
        image = librosa.display.specshow(values, sr=rate, x_axis="time", y_axis="mel", cmap=colors, ax=axes)
        axes.set(title=title, xlabel="", ylabel="Hz")
        image.set_clim(low, high)
        figure.colorbar(image, ax=axes, format="%.0f dB", extend="neither" if high == 0 else "max")
    rows[-1].set_xlabel("seconds")
    return figure


def training_curve(log, title: str):
    """Plot the losses of a run's log.jsonl (or the same as .csv) over its steps; returns the figure.

    Raises InputError where it is none; a last line that is cut, of a run that goes on, is left out.
    """
    import pandas

    try:
        if Path(log).suffix == ".csv":
            records = pandas.read_csv(log)
        else:
            lines = Path(log).read_text().rpartition("\n")[0]
            records = pandas.read_json(io.StringIO(lines), lines=True)
    except ValueError as error:
        raise InputError(f"{log} is damaged: it is no log of a training.") from error
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


def play(waves: dict[str, np.ndarray], rate: int) -> None:
    """Show a player for each wave (channels, samples) under its title; their levels compare."""
    from IPython.display import Audio, Markdown, display

    peak = max(1e-8, *(float(np.abs(wave).max()) for wave in waves.values()))
    for title, wave in waves.items():
        display(Markdown(title), Audio(wave / peak, rate=rate, normalize=False))


def _rows(count, height):
    """A figure with `count` axes one above the other, each `height` inches high."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 0.8 + height * count), layout="constrained")
    return figure, figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0]
