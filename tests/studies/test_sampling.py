"""The sampling study: its command writes its files and makes them again, and a seam is where it is heard."""

import numpy as np
import pandas as pd
import torch

from dmxlib.data import load_tracks
from dmxlib.streaming import SeparationOutput
from dmxlib.studies import sampling


def test_command_writes_its_files_and_makes_them_again(model_folder, toy_root, tmp_path):
    variants = {
        "steps 1": {"num_inference_steps": 1},
        "steps 2": {"num_inference_steps": 2},
        "overlap 0.5": {"overlap": 0.5},
    }
    flags = ["--model", str(model_folder), "--data", str(toy_root), "--split", "test", "--out", str(tmp_path)]
    sampling.main(flags, variants, {"exponent 2": {"exponent": 2}})
    rows = pd.read_csv(tmp_path / "sampling.csv")
    assert list(rows.setting.unique()) == ["steps 1", "steps 2", "overlap 0.5", "exponent 2"]
    assert rows.drop(columns=["silence_db", "refined_silence_db"]).notna().all(axis=None)
    assert (rows.seconds > 0).all() and rows.refined_sdr.nunique() == len(rows)
    drawn = rows[rows.setting.isin(["steps 1", "exponent 2"])].groupby("track").sdr.nunique()
    assert (drawn == 1).all(), "one step is the default, and a refinement changes nothing before it"
    assert "| steps 2 |" in (tmp_path / "sampling.md").read_text()
    (tmp_path / "sampling.png").unlink()
    assert all(path.exists() for path in sampling.write_report(tmp_path))


class Offset:
    """In a pipeline's place: each chunk is returned with an offset of its own, so that borders are all that
    two separations differ by but for a little noise."""

    chunk_seconds = 1.0

    def __init__(self, jump):
        self.jump = jump

    def __call__(self, mixture, rate, overlap, refine, generator):
        hop = rate - int(rate * overlap)
        place = np.arange(mixture.shape[1]) % hop
        noise = 0.01 * torch.randn(mixture.shape, generator=generator).numpy()
        return SeparationOutput(vocals=mixture + noise + self.jump * (place < rate - hop))


def test_seam_is_zero_without_and_positive_with_jumps_at_borders(toy_root):
    track = load_tracks(toy_root, "test")[0]
    assert abs(sampling.seam(Offset(0), track, 0.2)) < 0.5
    assert sampling.seam(Offset(1), track, 0.2) > 20


def test_what_was_tried_and_lost_keeps_its_rows(tmp_path):
    """Of settings that the code no longer has the table keeps the numbers; the figure leaves them out."""
    columns = ["seconds", "sdr", "lsd", "refined_sdr"]
    rows = pd.DataFrame(1.0, index=["steps 1", "steps 2", "overlap 0.5", "UniPC, steps 2"], columns=columns)
    rows.rename_axis("setting").reset_index().assign(track="song").to_csv(
        tmp_path / "sampling.csv", index=False
    )
    pd.DataFrame([["song", 0.1, 2.0]], columns=["track", "overlap", "seam_db"]).to_csv(
        tmp_path / "seams.csv", index=False
    )
    (tmp_path / "sampling.json").write_text('{"command": "python -m dmxlib.studies.sampling"}')
    sampling.write_report(tmp_path)
    assert "| UniPC, steps 2 | 1.00 |" in (tmp_path / "sampling.md").read_text()
    figure = sampling.figure(pd.read_csv(tmp_path / "sampling.csv"))
    assert [line.get_label().strip() for line in figure.axes[0].lines] == ["steps", "overlap"]
