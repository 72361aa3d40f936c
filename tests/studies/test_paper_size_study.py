"""What the paper's size needs, counted and run small. Nothing here says how long anything takes."""

import gc

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import ENCODEC
from torch._subclasses.fake_tensor import FakeTensorMode

from dmxlib.codec import Codec
from dmxlib.studies import paper_size
from dmxlib.training.separator import new_pipeline

SIZES = dict(level_channels=[16, 16], attention_from=1, fourier_channels=8, time_channels=8, chunk_frames=64)


@pytest.fixture
def small(monkeypatch, tmp_path):
    """The study of a small size: its configs, and its codec."""
    shared = dict(SIZES, num_inference_steps=2, validation_pairs=4, validation_steps=10, train_batch_size=2)
    for stage in (1, 2):
        values = {**shared, "train_conditioner": stage == 2, "augmentations": ["polarity"], "pairs": 16}
        (tmp_path / f"paper_stage{stage}.yaml").write_text(yaml.safe_dump(values))
    monkeypatch.setattr(paper_size, "CONFIGS", tmp_path)
    monkeypatch.setattr(paper_size, "OFFICIAL", ENCODEC)


@pytest.mark.parametrize("mode", [None, FakeTensorMode])
def test_what_is_held_is_what_is_alive(mode):
    def held():
        with paper_size.Held() as held:
            hidden = x @ weight  # 4 MB that its square keeps
            loss = hidden.square().sum()
            del hidden
            gc.collect()
            assert 4e6 <= held.now <= 8.1e6
            view = torch.ones(500, 1000).view(-1)
            before = held.now
            view.add_(1)
            assert held.now == before, "in place"
            del view
            loss.backward()  # the square's gradient, another beside it, the weight's
        return held

    x, weight = (torch.zeros(1000, 1000, requires_grad=grad) for grad in (False, True))
    if mode:
        with mode() as fake:
            x, weight = (fake.from_tensor(tensor) for tensor in (x, weight))
            assert 12e6 <= held().peak <= 20.1e6
    else:
        assert 12e6 <= held().peak <= 20.1e6


@pytest.mark.usefixtures("small")
def test_what_is_counted_follows_from_the_sizes():
    configs = paper_size.stage_configs()
    assert configs[2].train_conditioner and configs[2].level_channels == configs[1].level_channels
    found = {stage: paper_size.counted(config) for stage, config in configs.items()}
    pipeline = new_pipeline(Codec.from_config(ENCODEC["48khz"]), configs[1])
    unet, encoder = (
        sum(p.numel() for p in part.parameters()) for part in (pipeline.unet, pipeline.conditioner)
    )
    assert found[1]["checkpoint"] == pytest.approx(16 * unet, rel=0.01)
    assert found[2]["checkpoint"] == pytest.approx(16 * (unet + encoder), rel=0.01)
    # the conditioner's gradients, and what they need of the forward pass
    assert found[2]["bytes"] > found[1]["bytes"] > 20 * unet
    assert found[2]["operations"] > found[1]["operations"]
    assert 0 < found[1]["validation"] < 10
    twice = paper_size.counted(paper_size.replace(configs[1], train_batch_size=4))
    assert twice["operations"] == pytest.approx(found[1]["operations"], rel=0.01)
    assert twice["validation"] == pytest.approx(found[1]["validation"] / 2, rel=0.01)
    assert twice["bytes"] > found[1]["bytes"]


@pytest.mark.usefixtures("small", "fresh_accelerate")
def test_the_command_writes_what_it_found(tmp_path):
    flags = {"steps": 3, "batch": 2, "workers": 0, "songs": 5, "seconds": 6, "made": 1}
    argv = [f"--{key}={value}" for key, value in flags.items()]
    paper_size.main([*argv, f"--output_dir={tmp_path}"])
    table = pd.read_csv(tmp_path / "paper_size.csv")
    assert (table.value > 0).all() and set(table.stage) == {"stage 1", "stage 2"}
    values = table[table.stage == "stage 1"].groupby("what").value.apply(list)
    counted, measured = values["checkpoint"]
    assert measured == pytest.approx(counted, abs=2e-4), "names are written as well"
    assert values["of it, waiting for the loader"] < values["a step"]
    assert np.isfinite(table.value).all() and not list((tmp_path).glob("run*"))
