"""What the losses of a prior are where they are known: white sources, a level of few channels."""

import csv

import numpy as np
import pytest
import torch

from dmxlib.baselines import load
from dmxlib.baselines.msdm import SIGMA_DATA
from dmxlib.studies import prior


def make_model(patch=16):
    torch.manual_seed(0)
    sizes = {"fourier_channels": 16, "time_channels": 16, "chunk_samples": 8192, "sampling_rate": 24_000}
    return load("msdm")(patch, [16, 16, 16], 1, 2, **sizes).eval()


def white(std=SIGMA_DATA):
    return std * torch.randn(8, 2, 8192, generator=torch.Generator().manual_seed(1))


def test_losses_of_white_sources():
    """Of the deviation that EDM expects: its weights make 1 of the loss of no network, and of the best."""
    table = prior.losses(make_model(), white())
    np.testing.assert_allclose(table[["nothing", "spectrum"]], 1, atol=0.02)
    np.testing.assert_allclose(table.width[:4], 0.5, atol=0.02)  # 16 channels for 32 numbers
    assert table.sigma.tolist() == list(prior.SIGMAS) and table.network.gt(0).all()


def test_spectrum_is_the_best_of_what_is_stationary():
    sources = torch.fft.irfft(torch.fft.rfft(white()) * (torch.arange(4097) < 400))
    table = prior.losses(make_model(), sources)
    assert (table.spectrum < table.nothing).all() and (table.spectrum[:5] < 0.2).all()


@pytest.mark.parametrize("width, expected", [(32, 0), (40, 0), (24, 0.25), (16, 0.5)])
def test_a_denoiser_of_few_dimensions_leaves_the_rest(width, expected):
    sigma = 0.1
    nothing = SIGMA_DATA**2 * sigma**2 / (SIGMA_DATA**2 + sigma**2)  # mean square error, white sources
    left = prior.left_by_width(white(), sigma, 16, width)
    assert left == pytest.approx(expected * nothing, rel=0.3, abs=1e-9) and left <= nothing


def test_the_least_important_modes_are_given_up():
    """A source of one frequency has all else for noise; a single dimension too few loses one frame's mode."""
    sources = torch.zeros(1, 2, 8192)
    sigma = 0.5
    skip = SIGMA_DATA**2 / (sigma**2 + SIGMA_DATA**2)
    sources[:, 0] = 5 * torch.sin(2 * torch.pi * torch.arange(8192) * 1000 / 8192)
    assert prior.left_by_width(sources, sigma, 16, 31) == pytest.approx(skip**2 * sigma**2 / 32, rel=1e-3)


def test_command(toy_root, tmp_path, capsys):
    make_model().save_pretrained(tmp_path / "model")
    arguments = [str(tmp_path / "model"), "--data_root", str(toy_root), "--excerpts=2", "--steps=2"]
    prior.main([*arguments, f"--output_dir={tmp_path}"])
    assert "spectrum" in capsys.readouterr().out and (tmp_path / "prior.png").is_file()
    assert (tmp_path / "run.json").is_file()
    rows = list(csv.DictReader((tmp_path / "prior.csv").open()))
    assert len(rows) == len(prior.SIGMAS) and {row["model"] for row in rows} == {"model"}
    (scores,) = csv.DictReader((tmp_path / "prior_si_sdr.csv").open())
    assert scores["data"] == toy_root.name and scores["steps"] == "2"
    assert all(np.isfinite(float(scores[name])) for name in ("mixture", "network", "nothing", "spectrum"))
