"""The sampling study: its variants do what their names say, and its command writes and redraws its files."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

from dmxlib import audio
from dmxlib.data import load_tracks
from dmxlib.pipeline import VocalSeparationPipeline
from dmxlib.refine import wiener
from dmxlib.streaming import SeparationOutput
from dmxlib.studies import sampling


@pytest.fixture(scope="module")
def pipeline(model_folder):
    pipeline = VocalSeparationPipeline.from_pretrained(model_folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def vocals(pipeline, toy_root):
    track = load_tracks(toy_root, "test")[0]
    wave = audio.to_model(track.vocals(), track.rate, pipeline.sampling_rate, pipeline.channels)
    return torch.from_numpy(wave[None, :, -pipeline.chunk_samples :])


def condition_of(pipeline, vocals):
    with torch.no_grad():
        return pipeline.conditioner(vocals)


@pytest.mark.parametrize("name", sampling.SOLVERS)
def test_solvers_sample_the_same_path(pipeline, vocals, name):
    condition = condition_of(pipeline, vocals)

    def drawn(pipeline, steps):
        return pipeline.sample(condition, steps, generator=torch.Generator().manual_seed(0))

    other = sampling.with_solver(pipeline, sampling.SOLVERS[name])
    assert torch.allclose(drawn(other, 1), drawn(pipeline, 1), atol=1e-2)
    exact, coarse = drawn(pipeline, 200), drawn(pipeline, 10)
    assert (drawn(other, 10) - exact).norm() < (coarse - exact).norm()


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
    monkeypatch.setattr(sampling, "refinements", lambda: {"exponent 2": partial(wiener, exponent=2)})
    monkeypatch.setattr(
        sampling,
        "variants",
        lambda pipeline: {
            "steps 1": (pipeline, {"num_inference_steps": 1}),
            "steps 2": (pipeline, {"num_inference_steps": 2}),
            "overlap 0.5": (pipeline, {"overlap": 0.5}),
        },
    )
    flags = ["--model", str(model_folder), "--data", str(toy_root), "--split", "test", "--out", str(tmp_path)]
    sampling.main(flags)
    rows = pd.read_csv(tmp_path / "sampling.csv")
    assert list(rows.setting.unique()) == ["steps 1", "steps 2", "overlap 0.5", "exponent 2"]
    assert rows.drop(columns=["silence_db", "refined_silence_db"]).notna().all(axis=None)
    assert (rows.seconds > 0).all() and rows.refined_sdr.nunique() == len(rows)
    drawn = rows[rows.setting.isin(["steps 1", "exponent 2"])].groupby("track").sdr.nunique()
    assert (drawn == 1).all(), "one step is the default, and a refinement changes nothing before it"
    assert "| steps 2 |" in (tmp_path / "sampling.md").read_text()
    (tmp_path / "sampling.png").unlink()
    assert all(path.exists() for path in sampling.draw(tmp_path))


def test_em_keeps_a_voice_that_the_mask_found():
    time = np.arange(44_100) / 44_100
    voice, rest = (
        0.1 * np.outer(image, np.sin(2 * np.pi * f * time)) for image, f in (((1, 1), 440), ((1, 0.2), 1500))
    )
    mixture = (voice + rest).astype(np.float32)
    pytest.importorskip("norbert")
    refined = sampling.expectation_maximization(mixture, voice.astype(np.float32), 44_100, 12_000)
    assert np.square(refined - voice).mean() < 1e-3 * np.square(voice).mean()


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
