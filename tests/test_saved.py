"""What was saved before the codec's quantiser and stage 3 had classes of their own goes on loading.

tests/saved/ holds a system and a stage 3 run of it, both as small as they get, written by commit 1a886be:
- pipeline/: its codec has codebooks, its model_index.json a `level_rule`;
- run/: the config with `log_weight`, and the checkpoint of its second step;
- expected.json: what the system made of `mixture()` then: every 2940th sample, every tenth frame of codes.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import reset_accelerate
from safetensors.torch import load_file

from dmxlib import audio, train
from dmxlib.codec import Codec, Conditioner
from dmxlib.codec.load import load_codec
from dmxlib.errors import InputError
from dmxlib.pipeline import VocalSeparationPipeline

SAVED = Path(__file__).parent / "saved"
RATE = 44_100
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def expected():
    return json.loads((SAVED / "expected.json").read_text())


def mixture():
    """A second of two tones, (2, 44 100)."""
    tone, bass = (np.sin(2 * np.pi * hertz * np.arange(RATE) / RATE) for hertz in (440, 97))
    return np.stack([0.3 * tone + 0.1 * bass, 0.2 * tone]).astype(np.float32)


@pytest.mark.parametrize(
    "name, settings",
    [("one step", (1, None)), ("four steps, refined", (4, "wiener"))],
)
def test_system_separates_as_before(expected, name, settings):
    pipeline = VocalSeparationPipeline.from_pretrained(SAVED / "pipeline")
    steps, refine = settings
    generator = torch.Generator().manual_seed(0)
    output = pipeline(mixture(), RATE, num_inference_steps=steps, refine=refine, generator=generator)
    assert output.vocals.shape == (2, RATE)
    np.testing.assert_allclose(output.vocals[:, ::2940].ravel(), expected[name], atol=1e-5)


def test_system_is_saved_again_without_codebooks(tmp_path, capfd):
    pipeline = VocalSeparationPipeline.from_pretrained(SAVED / "pipeline")
    assert (type(pipeline.codec), type(pipeline.conditioner)) == (Codec, Conditioner)
    pipeline.save_pretrained(tmp_path)
    told = capfd.readouterr().err
    assert "quantizer" not in told and "n_q" not in told and "level_rule" not in told
    old, new = (load_file(folder / "codec" / WEIGHTS) for folder in (SAVED / "pipeline", tmp_path))
    assert new.keys() == {key for key in old if not key.startswith("quantizer.")}
    assert all(torch.equal(tensor, old[key]) for key, tensor in new.items())
    assert json.loads((tmp_path / "model_index.json").read_text())["codec"] == ["dmxlib.codec", "Codec"]


@torch.no_grad()
def test_codebooks_beside_the_codec_are_read(expected, capfd):
    codec = load_codec(str(SAVED / "pipeline" / "codec"), quantized=True)
    wave = torch.from_numpy(audio.resample(mixture()[:1], RATE, 24_000))[None]
    codes = codec.quantize(codec.encode(wave))[0, :, ::10]
    assert codes.tolist() == expected["codes"]
    assert capfd.readouterr().err == ""


def test_level_rule_that_is_gone_is_refused(tmp_path):
    shutil.copytree(SAVED / "pipeline", tmp_path / "drawn")
    index = tmp_path / "drawn" / "model_index.json"
    index.write_text(index.read_text().replace("averaged", "drawn"))
    with pytest.raises(InputError, match="drawn"):
        VocalSeparationPipeline.from_pretrained(tmp_path / "drawn")


def test_stage_3_run_goes_on(tmp_path, toy_root):
    run = tmp_path / "run"
    shutil.copytree(SAVED / "run", run)
    flags = {
        "config": run / "config.yaml",
        "pretrained_model_name_or_path": SAVED / "pipeline",
        "data_root": toy_root,
        "output_dir": run,
        "max_train_steps": 3,
        "resume_from_checkpoint": "latest",
    }
    reset_accelerate()
    train.main([f"--{key}={value}" for key, value in flags.items()])
    reset_accelerate()
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    losses = {record["step"]: record["loss"] for record in log if "loss" in record}
    assert list(losses) == [1, 2, 3] and np.isfinite(losses[3])
    before, after = (load_file(run / f"checkpoint-{step}" / "model.safetensors") for step in (2, 3))
    assert before.keys() == after.keys()
    moved = [(after[key] - before[key]).abs().max() for key in before]
    assert 0 < max(moved) < 0.01  # one small step from where it was
    system = VocalSeparationPipeline.from_pretrained(run / "model")
    assert type(system.codec) is Codec
