"""The paper's commands, one after the other, from its configs: small in width, length and steps alone."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import reset_accelerate, separate

import dmxlib
from dmxlib import audio, baselines, train, train_codec
from dmxlib.data import load_tracks
from dmxlib.data.sets.toy import render_song
from dmxlib.ensemble import load_separator
from dmxlib.evaluation import __main__ as evaluation
from dmxlib.evaluation import tables
from dmxlib.metrics import external
from dmxlib.pipeline import VocalSeparationPipeline

CONFIGS = Path(dmxlib.__file__).parent / "configs"
FRAMES = 256  # latent frames of an excerpt, 1.7 s
QUICK = {
    "pairs": 8,
    "validation_pairs": 1,
    "max_train_steps": 2,
    "train_batch_size": 2,
    "dataloader_num_workers": 0,
    "mixed_precision": "no",  # bf16 is slow on processors
}
CODEC = {
    "init": "none",  # the official weights would be fetched
    "sampling_rate": 48_000,
    "channels": 2,
    "dimension": 16,
    "n_filters": 4,
    "ratios": [5, 4, 4, 4],
    "n_q": 2,
    "bins": 16,
    "excerpt_seconds": FRAMES * 320 / 48_000,
    "validation_excerpts": 2,
}
SEPARATOR = {
    "chunk_frames": FRAMES,
    "level_channels": [8, 8, 16, 16, 24, 24],
    "fourier_channels": 16,
    "time_channels": 16,
}
BASELINES = {
    "bsrnn": {"features": 8, "pairs_of_layers": 1, "chunk_samples": 16_384},
    "hdemucs": {"width": 4, "chunk_samples": 16_384},
    "msdm": {
        "level_channels": [8] * 11,
        "time_channels": 16,
        "fourier_channels": 16,
        "chunk_samples": 16_384,
    },
    "msgld": {
        "level_channels": [8] * 6,
        "blocks_per_level": 1,
        "chunk_samples": FRAMES * 320,
        "latent_channels": 16,
    },
    "instglow": {"blocks": 2, "hidden": 8, "chunk_samples": 8192},
}


def run(command, config, **settings):
    """A command with a config of the paper's size and what makes it small."""
    reset_accelerate()
    try:
        command.main(
            [
                "--config",
                str(CONFIGS / f"{config}.yaml"),
                *(f"--{key}={value}" for key, value in settings.items()),
            ]
        )
    finally:
        reset_accelerate()


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    """Two made songs of 20 s as MUSDB18-HQ has them: one to train on, one to validate on and to test."""
    root = tmp_path_factory.mktemp("musdb18-hq")
    for seed, split in enumerate(("train", "valid")):
        vocals, accompaniment = render_song(seed, 20.0, 44_100)
        for stem, wave in (("mixture", vocals + accompaniment), ("vocals", vocals)):
            audio.write(root / split / f"Song {seed}" / f"{stem}.wav", wave, 44_100, "PCM_16")
    (root / "test").symlink_to("valid")
    return root


@pytest.fixture(scope="module")
def runs(songs, tmp_path_factory):
    """The folders of the codec's and both stages' runs, made in their order."""
    folder = tmp_path_factory.mktemp("runs")
    shared = {"data_root": songs, **QUICK}
    codec, stage1, stage2 = (folder / name for name in ("codec", "stage1", "stage2"))
    run(train_codec, "paper_codec", data_root=songs, output_dir=codec, **CODEC)
    run(train, "paper_stage1", output_dir=stage1, codec=codec / "model", **shared, **SEPARATOR)
    run(train, "paper_stage2", output_dir=stage2, pretrained_model_name_or_path=stage1 / "model", **shared)
    return codec, stage1, stage2


@pytest.fixture(scope="module")
def peers(songs, runs, tmp_path_factory):
    """The run folders of the paper's other systems, by name."""
    folder = tmp_path_factory.mktemp("peers")
    for name, sizes in BASELINES.items():
        if name == "msgld":
            sizes = sizes | {"codec": runs[0] / "model"}
        run(train, f"paper_{name}", data_root=songs, output_dir=folder / name, **QUICK, **sizes)
    return {name: folder / name for name in BASELINES}


def losses(folder):
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [record["loss"] for record in records if "loss" in record]


def test_the_papers_chain(runs):
    codec, stage1, stage2 = runs
    assert not losses(codec), "the codec is frozen"
    assert len(losses(stage1)) == len(losses(stage2)) == QUICK["max_train_steps"]
    pipeline = VocalSeparationPipeline.from_pretrained(stage2 / "model")
    assert pipeline.config.chunk_frames == FRAMES and pipeline.codec.channels == 2
    assert pipeline.num_inference_steps == 50, "the config's, saved with the model"
    assert pipeline.unet.config.mask_channels == 0 and pipeline.unet.injections[2] is None


@pytest.mark.parametrize("name", BASELINES)
def test_the_papers_baselines(name, songs, peers):
    assert len(losses(peers[name])) == QUICK["max_train_steps"]
    model = baselines.load(name).from_pretrained(peers[name] / "model")
    (track,) = load_tracks(songs, "test")
    vocals = separate(model, track.mixture(0, 20_000), track.rate, steps=1)
    assert vocals.shape == (2, 20_000) and np.isfinite(vocals).all()


def test_table2_of_all_systems(runs, peers, songs, tmp_path, monkeypatch, fresh_accelerate):
    """One command scores them, each by the model that was trained; another times them; one table has it all.

    museval's figures are made up here: they take long, and tests/evaluation has them.
    """
    monkeypatch.setattr(external, "_museval", lambda *_: dict.fromkeys(("sdr", "isr", "sir", "sar"), 1.5))
    models = {name: folder / "model" for name, folder in peers.items()} | {"ldm-dmx-paper": runs[2] / "model"}
    names = {name: name if name in ("bsrnn", "hdemucs") else f"{name}@2" for name in models}
    labels = ["mixture", "irm", "ldm-dmx-paper-refined@2", *names.values()]
    flags = ["--data_root", str(songs), "--output_dir", str(tmp_path)]
    flags += [f"--model={name}={model}" for name, model in models.items()]
    evaluation.run([*labels, *flags, "--waves", "--musdb", "--excerpts=1"])
    fresh_accelerate()
    evaluation.run([*labels, *flags, "--time"], clip_seconds=1)
    rows, facts = tables.load_scores(tmp_path)
    assert {*facts} == {*labels} and all(fact["seconds"] > 0 for fact in facts.values())
    for name, label in names.items():
        assert facts[label]["model"] == str(models[name])
        assert facts[label]["parameters"] == count(load_separator(str(models[name])))
    found = {(row.system, row.metric) for row in rows[np.isfinite(rows.value)].itertuples()}
    assert found >= {(label, metric) for label in labels for metric in ("sdr", "musdb_sdr", "musdb_usdr")}
    assert {*rows.dropna(subset="excerpt").metric} == {"sdr", "si_sdr"}, "what --waves scores of an excerpt"
    text = tables.table2(tmp_path)
    assert "not measured" not in text
    assert all(text.count(f"| {fact['title']} | ") >= 3 for fact in facts.values())


def count(model):
    """Parameters, of LDM-dmx with the conditioner, as the paper counts."""
    parts = (model.unet, model.conditioner) if hasattr(model, "unet") else (model,)
    return sum(part.num_parameters() for part in parts)
