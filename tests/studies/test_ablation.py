"""Variants are trained by the real command, scored, and kept row by row."""

from pathlib import Path

import pandas as pd
import pytest
import yaml

from dmxlib.studies import ablation

ROOT = Path(__file__).parents[2]


@pytest.fixture
def comparison(toy_root, model_folder, tmp_path):
    """Makes a comparison of one-step trainings, run in a folder of its own."""
    shared = {
        "codec": str(model_folder / "codec"),
        "data_root": str(toy_root),
        "max_train_steps": 1,
        "pairs": 4,
        "validation_pairs": 1,
        "hold_out_seconds": 2.0,
        "chunk_frames": 64,
        "level_channels": [16, 16, 16],
        "attention_from": 2,
    }

    def run(*variants, **more):
        file = tmp_path / "comparison.yaml"
        values = {
            "train": str(ROOT / "dmxlib/train.py"),
            "config": str(ROOT / "dmxlib/configs/mini_stage1.yaml"),
            "shared": shared | {"latent_cache": "none", "optimizer": "adamw", "train_batch_size": 1},
            "variants": list(variants),
            "results": str(tmp_path / "table.csv"),
        } | more
        file.write_text(yaml.safe_dump(values))
        ablation.main([str(file)], tmp_path / "runs")
        return pd.read_csv(tmp_path / "table.csv").set_index("variant")

    return run


def test_each_variant_is_trained_once(comparison):
    first = comparison({})
    second = comparison({}, {"mask_channels": 16})
    assert list(second.index) == ["base", "mask_channels=16"]
    assert first.loc["base"].equals(second.loc["base"]), "a row that is there is kept"
    assert "--mask_channels 16" in second.command["mask_channels=16"]
    assert (second.steps == 1).all() and second.validation_loss.nunique() == 2
    assert second.validation_si_sdr.notna().all()


def test_failing_variant_ends_it_and_keeps_the_others(comparison, capfd):
    with pytest.raises(SystemExit, match="this failed, for the reason above it: .* --mask_channels many"):
        comparison({}, {"mask_channels": "many"})
    assert "mask_channels: 'many' is not a int" in capfd.readouterr().err
    assert list(comparison({}).index) == ["base"]


def test_scores_are_medians(tmp_path):
    scores = tmp_path / "scores" / "songs"
    scores.mkdir(parents=True)
    rows = [
        (system, metric, value + shift)
        for shift, system in enumerate(("bsrnn", "ldm-dmx"))
        for metric in ("sdr", "si_sdr", "pesq")
        for value in (1.0, 2.0, 9.0)
    ]
    pd.DataFrame(rows, columns=["system", "metric", "value"]).to_csv(scores / "rows.csv", index=False)
    assert ablation.medians_of(scores) == {
        "songs_bsrnn_sdr": 2.0,
        "songs_bsrnn_si_sdr": 2.0,
        "songs_ldm-dmx_sdr": 3.0,
        "songs_ldm-dmx_si_sdr": 3.0,
    }


def test_a_variant_is_scored_on_each_set(comparison, toy_root, tmp_path):
    (tmp_path / "heard").symlink_to(toy_root)
    (tmp_path / "unheard").symlink_to(toy_root)
    scored = {f"{tmp_path}/heard": "--held-out 2 --waves", f"{tmp_path}/unheard": "--split test --waves"}
    row = comparison({}, systems=["ldm-dmx"], scored_on=scored).loc["base"]
    found = [row[f"{name}_ldm-dmx_si_sdr"] for name in ("heard", "unheard")]
    assert found[0] != found[1] and row["mean_ldm-dmx_si_sdr"] == pytest.approx(sum(found) / 2)
    assert "heard_ldm-dmx_lsd" not in row
