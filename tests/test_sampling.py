"""The sampling study: its variants do what their names say, and its command writes and redraws its files."""

import numpy as np
import pandas as pd
import pytest
import torch

from dmxlib import sampling
from dmxlib.data import load_tracks
from dmxlib.pipeline import VocalSeparationPipeline


@pytest.fixture(scope="module")
def pipeline(model_folder):
    pipeline = VocalSeparationPipeline.from_pretrained(model_folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def vocals(pipeline, toy_root):
    return sampling.codec_chunks(pipeline, load_tracks(toy_root, "test"))


def condition_of(pipeline, vocals):
    with torch.no_grad():
        return pipeline.conditioner(vocals)


def test_high_noise_has_unit_mean_variance_and_spares_the_level(pipeline, vocals):
    root = sampling.high_noise(pipeline, vocals).root
    covariance = (root @ root.T)[:-1, :-1]
    assert covariance.diagonal().mean() == pytest.approx(1, rel=1e-3)
    assert torch.linalg.eigvalsh(covariance).max() > 1.5, "some directions keep more of the high frequencies than others"
    assert not root[-1].any() and not root[:, -1].any()


def test_high_noise_replaces_what_eta_adds(pipeline, vocals):
    def run(scheduler, eta):
        other = VocalSeparationPipeline(**pipeline.components | {"scheduler": scheduler}, chunk_frames=64)
        generator = torch.Generator().manual_seed(0)
        return other.sample(condition_of(pipeline, vocals), 4, eta, generator)

    high = sampling.high_noise(pipeline, vocals)
    assert torch.equal(run(high, 0.0), run(pipeline.scheduler, 0.0))
    assert not torch.allclose(run(high, 0.5), run(pipeline.scheduler, 0.5))
    white = sampling.HighNoise.from_config(pipeline.scheduler.config)
    white.root = torch.eye(len(high.root))
    assert torch.allclose(run(white, 0.5), run(pipeline.scheduler, 0.5), atol=1e-5)


def test_means_are_means_of_draws(pipeline, vocals):
    condition = condition_of(pipeline, vocals)
    mean = sampling.MeanLatents(**pipeline.components, chunk_frames=64)
    drawn = mean.sample(condition, 2, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    draws = [pipeline.sample(condition, 2, generator=generator) for _ in range(sampling.SEEDS)]
    assert torch.allclose(drawn, torch.stack(draws).mean(0), atol=1e-6)

    spectra = sampling.MeanSpectra(**pipeline.components, chunk_frames=64)
    mean = spectra.generate(vocals, 2, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    draws = [pipeline.generate(vocals, 2, generator=generator) for _ in range(sampling.SEEDS)]
    correlation = [np.corrcoef(mean.flatten(), draw.flatten())[0, 1] for draw in draws]
    assert mean.shape == draws[0].shape and correlation[0] > max(correlation[1:]), "the phase is the first's"


def test_command_writes_its_files_and_redraws_them(model_folder, toy_root, tmp_path, monkeypatch):
    monkeypatch.setattr(
        sampling,
        "variants",
        lambda pipeline, vocals: {
            "steps 1": (pipeline, {"num_inference_steps": 1}),
            "steps 2": (pipeline, {"num_inference_steps": 2}),
            "overlap 0.5": (pipeline, {"overlap": 0.5}),
        },
    )
    flags = ["--model", str(model_folder), "--data", str(toy_root), "--split", "test", "--out", str(tmp_path)]
    sampling.main(flags)
    rows = pd.read_csv(tmp_path / "sampling.csv")
    assert list(rows.setting.unique()) == ["steps 1", "steps 2", "overlap 0.5"] and (rows.seconds > 0).all()
    assert rows.notna().all(axis=None) and rows.sdr.nunique() == len(rows)
    assert "| steps 2 |" in (tmp_path / "sampling.md").read_text()
    (tmp_path / "sampling.png").unlink()
    assert all(path.exists() for path in sampling.draw(tmp_path))
