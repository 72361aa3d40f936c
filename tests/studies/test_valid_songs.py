"""The studies of valid songs: each row is what the system itself would give with those settings."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from dmxlib import baselines, load_separator
from dmxlib.data.tracks import training_tracks
from dmxlib.evaluation.scoring import Song
from dmxlib.expander import SLOPE
from dmxlib.refine import wiener
from dmxlib.studies import chunks, ensemble, temperature
from dmxlib.studies.sampling import scores

SECONDS = 2.0  # held out of each training song


@pytest.fixture(scope="module")
def pair(model_folder, tmp_path_factory):
    """A folder of a pair with random weights."""
    torch.manual_seed(0)
    sizes = dict(features=8, pairs_of_layers=1, window=512, hop=128, chunk_samples=8192)
    folder = tmp_path_factory.mktemp("pair")
    guide = baselines.load("bsrnn")(**sizes, sampling_rate=16_000, channels=2)
    guide.save_pretrained(folder / "guide")
    told = {
        "separator": str(model_folder),
        "guide": str(folder / "guide"),
        "guide_share": 0.25,
        "exponent": 1.5,
    }
    (folder / "ensemble.json").write_text(json.dumps(told))
    return folder


@pytest.fixture
def songs(toy_root):
    """Flags that name the songs of a study."""
    return ["--data_root", str(toy_root), "--hold_out_seconds", str(SECONDS)]


def test_each_row_is_what_the_pair_gives(pair, songs, toy_root, tmp_path):
    flags = [*songs, "--output_dir", str(tmp_path)]
    ensemble.main(["--model", str(pair), *flags])
    rows = pd.read_csv(tmp_path / "rows.csv")
    shares = len(ensemble.SHARES) + 1  # the pair's own, 0.25, is none of them
    others = len(ensemble.EXPONENTS) + len(ensemble.SLOPES) - 2  # two stand in two of the lists
    assert len(rows) == (2 * shares + others) * rows.track.nunique()
    track = training_tracks(toy_root, SECONDS)[1][0][0]
    model = load_separator(str(pair))
    mixture, generator = track.mixture(), torch.Generator().manual_seed(0)
    vocals = model(mixture, track.rate, generator=generator, refine="wiener").vocals
    expected = scores(Song(track), vocals)
    here = rows[rows.track == track.name]
    own = here[(here.slope == SLOPE) & (here.exponent == 1.5) & (here.guide_share == 0.25)]
    assert len(own) == 1
    for name, value in expected.items():
        assert np.allclose(own[name], value, atol=0.01, equal_nan=True), name
    sums = here[here.exponent.isna() & here.slope.isna()]
    assert sums.si_sdr.nunique() == shares, "each share sounds different"
    assert "| 0.25 | 1.50 | 2.00 |" in (tmp_path / "table.md").read_text()
    assert json.loads((tmp_path / "run.json").read_text())["commit"]


def test_chunks_are_as_long_as_their_row_says(pair, songs, toy_root, tmp_path):
    flags = [*songs, "--output_dir", str(tmp_path)]
    chunks.main(["--model", str(pair / "guide"), *flags])
    rows = pd.read_csv(tmp_path / "rows.csv")
    track = training_tracks(toy_root, SECONDS)[1][0][0]
    model = load_separator(pair / "guide")
    for excerpts, overlap in chunks.SETTINGS:
        model.excerpts_a_chunk = excerpts
        vocals = model(track.mixture(), track.rate, overlap=overlap).vocals
        row = rows[
            (rows.track == track.name) & (rows.excerpts_a_chunk == excerpts) & (rows.overlap == overlap)
        ]
        assert row.si_sdr.item() == pytest.approx(scores(Song(track), vocals)["si_sdr"], abs=1e-3)
    assert rows[rows.track == track.name].si_sdr.nunique() == len(chunks.SETTINGS)


def test_what_has_no_chunks_is_refused(pair, songs, tmp_path):
    with pytest.raises(SystemExit, match="--model is not a baseline"):
        chunks.main(["--model", str(pair), *songs, "--output_dir", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_each_row_has_its_steps_and_temperature(model_folder, songs, toy_root, tmp_path):
    temperature.main(["--model", str(model_folder), *songs, "--output_dir", str(tmp_path)])
    rows = pd.read_csv(tmp_path / "rows.csv")
    track = training_tracks(toy_root, SECONDS)[1][0][0]
    here, model = rows[rows.track == track.name], load_separator(str(model_folder))
    assert list(zip(here.steps, here.temperature, strict=True)) == [*temperature.SETTINGS]
    model.register_to_config(temperature=0.25)
    song, mixture, row = Song(track), track.mixture(), here.iloc[temperature.SETTINGS.index((4, 0.25))]
    generator = torch.Generator().manual_seed(0)
    vocals = model(mixture, track.rate, num_inference_steps=4, generator=generator).vocals
    refined = wiener(mixture, vocals, track.rate, model.sampling_rate / 2)
    for prefix, wave in (("", vocals), ("refined_", refined)):
        for name, value in scores(song, wave).items():
            assert np.allclose(row[prefix + name], value, atol=1e-3, equal_nan=True), prefix + name
    assert here.si_sdr.nunique() == len(here)
    assert here.missed_voiced.between(0, 1).all()


def test_what_draws_no_latents_has_no_temperature(pair, songs, tmp_path):
    with pytest.raises(SystemExit, match="--model is not LDM-dmx"):
        temperature.main(["--model", str(pair), *songs, "--output_dir", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
