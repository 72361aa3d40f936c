"""How metrics rank against listeners: the sign of a distance, kinds apart, an interval over clips."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from dmxlib.studies import listeners


@pytest.fixture
def table():
    """Ratings of 20 clips by three masking and two generative models; SDR follows those of the former."""
    rng = np.random.default_rng(0)
    models = [("discriminative", f"mask {n}") for n in range(3)] + [
        ("generative", f"draw {n}") for n in range(2)
    ]
    rows = pd.DataFrame(
        [(f"clip {clip}", kind, model) for clip in range(20) for kind, model in models],
        columns=["file_id", "model_type", "model_name"],
    ).sample(frac=1, random_state=0, ignore_index=True)
    rows["DMOS"] = rng.integers(2, 11, len(rows)) / 2
    for metric in listeners.METRICS:
        rows[metric] = rng.standard_normal(len(rows))
    rows["sdr"] = np.where(rows.model_type == "discriminative", rows.DMOS, rows.sdr)
    rows["multi_res_loss"] = -np.exp(rows.DMOS)  # a distance that falls as listeners like more
    return rows


def test_agreement(table):
    rows = listeners.agreement(table).set_index(["metric", "models"])
    stft = rows.loc["multi-resolution STFT distance"]
    assert (stft.spearman == 1).all() and (stft.low == 1).all()
    masking, generative = rows.loc["SDR (BSS Eval)"].spearman[["masking", "generative"]]
    assert masking == 1 and abs(generative) < 0.4
    rated = table[table.model_type == "generative"]
    expected = stats.spearmanr(rated.visqol, rated.DMOS).statistic
    found = rows.loc["ViSQOL", "generative"]
    assert found.spearman == pytest.approx(expected, abs=1e-9) and found.low < expected < found.high
    assert found.ratings == 40 and rows.loc["ViSQOL", "masking"].ratings == 60


def test_clips_are_drawn_with_all_their_models(table):
    """Where a clip's models are all alike there are as many values as clips, and the interval is wider."""
    alike = table.assign(visqol=table.groupby("file_id").DMOS.transform("mean"))
    alike["DMOS"] = (
        alike.visqol + np.random.default_rng(1).standard_normal(20)[alike.file_id.str[5:].astype(int)]
    )
    together = listeners.agreement(alike).set_index(["metric", "models"]).loc["ViSQOL", "masking"]
    apart = alike.assign(file_id=range(len(alike)))
    alone = listeners.agreement(apart).set_index(["metric", "models"]).loc["ViSQOL", "masking"]
    assert together.high - together.low > 1.3 * (alone.high - alone.low)


def test_command(table, tmp_path, capsys):
    table.to_csv(tmp_path / "table.csv", index=False)
    listeners.main([str(tmp_path / "table.csv"), "--output_dir", str(tmp_path / "out")])
    assert len(pd.read_csv(tmp_path / "out" / "correlations.csv")) == 2 * len(listeners.METRICS)
    assert (tmp_path / "out" / "run.json").is_file()
    assert "| SDR (BSS Eval) | `csdr` | 1.00 (1.00 to 1.00) |" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="cannot be read; fetch gensvs_eval_data.csv"):
        listeners.main([str(tmp_path / "none.csv")])
    table.drop(columns="DMOS").to_csv(tmp_path / "table.csv", index=False)
    with pytest.raises(SystemExit, match="lacks DMOS; give gensvs_eval_data.csv"):
        listeners.main([str(tmp_path / "table.csv")])
