"""Which metrics listeners agree with: `python -m dmxlib.studies.listeners gensvs_eval_data.csv`.

The file is the table of Bereuter and others, "Towards reliable objective evaluation metrics for generative
singing voice separation models" (WASPAA 2025; github.com/pablebe/gensvs_eval, MIT licence): 50 clips as three
masking and two generative models separate them, how degraded listeners found each (DMOS, 1 to 5), and metrics
of each. For each kind of model a metric's worth is Spearman's rank correlation with the DMOS, with a 95 %
interval by bootstrap over the clips, each with all its models.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from dmxlib.errors import InputError, exit_on_input_error
from dmxlib.reproduce import facts, together
from dmxlib.summary import markdown

KINDS = {"discriminative": "masking", "generative": "generative"}  # their word: ours
# their column: (its name, the column of ours that it stands for; none where we have no such)
METRICS = {
    "sdr": ("SDR (BSS Eval)", "csdr"),
    "sisdr": ("SI-SDR", "si_sdr"),
    "sir": ("SIR", "sir"),
    "sar": ("SAR", "sar"),
    "multi_res_loss": ("multi-resolution STFT distance", "stft_distance"),
    "emb_mse_music2latent_df": ("squared error of Music2Latent's latents", "latent_distance"),
    "emb_mse_mert_df": ("squared error of MERT's features", ""),
    "visqol": ("ViSQOL", ""),
    "pam": ("PAM, without a reference", ""),
    "singmos": ("SingMOS, without a reference", ""),
}
DISTANCES = {"multi_res_loss", "emb_mse_music2latent_df", "emb_mse_mert_df"}  # less is better
RESAMPLES = 2000


def agreement(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each metric and kind of model: clips rated, and the correlation with its interval.

    Of a distance the sign is turned, so that 1 is a metric that ranks as listeners do.

    Args:
        table: has file_id, model_type, DMOS and the columns of METRICS; of each clip as many models.
    """
    rng, rows = np.random.default_rng(0), []
    for kind, word in KINDS.items():
        rated = table[table.model_type == kind].sort_values("file_id")
        clips = rated.groupby("file_id").ngroups
        models = np.arange(len(rated)).reshape(clips, -1)  # places of a clip's models
        samples = models[rng.integers(clips, size=(RESAMPLES, clips))].reshape(RESAMPLES, -1)
        dmos = rated.DMOS.to_numpy()
        for metric, (name, ours) in METRICS.items():
            values = (-1 if metric in DISTANCES else 1) * rated[metric].to_numpy()
            low, high = np.percentile(spearman(values[samples], dmos[samples]), (2.5, 97.5))
            rows.append((name, ours, word, len(rated), float(spearman(values, dmos)), low, high))
    return pd.DataFrame(rows, columns=["metric", "ours", "models", "ratings", "spearman", "low", "high"])


def spearman(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Rank correlation over the last axis, ties at their mean rank."""
    x, y = (stats.rankdata(values, axis=-1) for values in (x, y))
    x, y = (ranks - ranks.mean(axis=-1, keepdims=True) for ranks in (x, y))
    return (x * y).sum(axis=-1) / np.sqrt((x**2).sum(axis=-1) * (y**2).sum(axis=-1))


def read(path) -> pd.DataFrame:
    """The published table. Raises InputError where the file is not that."""
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read; fetch gensvs_eval_data.csv of gensvs_eval.") from error
    missing = {"file_id", "model_type", "DMOS", *METRICS} - {*table.columns}
    if missing:
        raise InputError(f"{path} lacks {', '.join(sorted(missing))}; give gensvs_eval_data.csv.")
    return table


def summary(rows: pd.DataFrame) -> str:
    """The table in markdown: a metric's correlation for each kind of model."""

    def cell(row):
        return f"{row.spearman:.2f} ({row.low:.2f} to {row.high:.2f})"

    cells = [
        [name, f"`{ours}`" if ours else "-", *(cell(row) for row in group.itertuples())]
        for (name, ours), group in rows.groupby(["metric", "ours"], sort=False)
    ]
    return markdown(["metric", "ours", *KINDS.values()], cells)


@exit_on_input_error
def main(argv=None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m dmxlib.studies.listeners", description=__doc__)
    parser.add_argument("table", metavar="CSV", help="gensvs_eval_data.csv")
    parser.add_argument("--output_dir", default="results/listeners", help="folder to write to")
    options = parser.parse_args(argv)
    rows = agreement(read(options.table))
    folder = Path(options.output_dir)
    with together(folder) as part:
        rows.round(3).to_csv(part / "correlations.csv", index=False)
        (part / "run.json").write_text(json.dumps(facts(), indent=2) + "\n")
    print(summary(rows))


if __name__ == "__main__":
    main()
