"""Both stages train from the real command, survive a kill, and run in two processes."""

import dataclasses
import importlib
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
from functools import partialmethod
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ENVIRONMENT, launch, reset_accelerate, start_launch
from PIL import Image
from safetensors.torch import load_file
from torch.nn.modules.module import register_module_forward_hook

from dmxlib import train, train_codec
from dmxlib.codec.load import load_codec
from dmxlib.config import parse_config
from dmxlib.data import PairsConfig, VocalPairs, training_tracks
from dmxlib.latents import CachedPairs, LatentConfig, build_cache, pairs_of
from dmxlib.pipeline import VocalSeparationPipeline
from dmxlib.reproduce import seeded_generator
from dmxlib.studies import few_steps
from dmxlib.studies.few_steps import DistillStep
from dmxlib.training import checkpoints, decoded, log, separator
from dmxlib.training import codec as codec_training
from dmxlib.training.decoded import DecodedStep, decoded_loss
from dmxlib.training.separator import TrainConfig, TrainStep, make_pipeline

ROOT = Path(__file__).parents[2]
SMALL = {
    "chunk_frames": 64,
    "level_channels": "[16, 16, 16]",
    "attention_from": 2,
    "fourier_channels": 16,
    "time_channels": 16,
    "train_batch_size": 2,
    "learning_rate": 1e-3,
    "lr_warmup_steps": 2,
    "ema_decay": 0.9,
}


@pytest.fixture(scope="module")
def cache(toy_root, model_folder, tmp_path_factory):
    """The config of a latent cache of eight pairs."""
    config = LatentConfig(
        data_root=str(toy_root),
        codec=str(model_folder / "codec"),
        output_dir=str(tmp_path_factory.mktemp("latents")),
        pairs=8,
        shard_size=8,
        chunk_frames=64,
        hold_out_seconds=2.0,
        validation_pairs=1,
    )
    build_cache(config, quiet=True)
    return config


@pytest.fixture(scope="module")
def flags(cache):
    """Makes the command's flags from a folder and settings."""

    def make(output_dir, **settings):
        shared = {"codec": cache.codec, "latent_cache": cache.output_dir, "output_dir": output_dir}
        return [f"--{key}={value}" for key, value in {**SMALL, **shared, **settings}.items()]

    return make


def run(flags, command=train, pictures=False):
    """A command in this process; without the pictures, each of which takes a second."""
    reset_accelerate()
    try:
        command.main(flags, *[] if pictures else [lambda *_: None])
    finally:
        reset_accelerate()


@pytest.fixture(scope="module")
def stage1(flags, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "stage1"
    run(flags(folder, max_train_steps=4, checkpointing_steps=2, validation_steps=2), pictures=True)
    return folder


@pytest.fixture(scope="module")
def stage2(flags, stage1):
    folder = stage1.with_name("stage2")
    model = dict(pretrained_model_name_or_path=stage1 / "model", train_conditioner="true")
    ignored = dict(chunk_frames=512, level_channels="[32]", mask_channels=8, level_channel="no", codec="mine")
    run(flags(folder, max_train_steps=2, **ignored, **model))
    return folder


def log_of(folder, key="loss"):
    """step -> value, from the run's log; asserts that no step stands there twice."""
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    pairs = [(record["step"], record[key]) for record in records if key in record]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def parts(folder):
    """Name of each part of a saved system -> its weights."""
    paths = folder.glob("model/*/*.safetensors")
    return {path.parent.name: load_file(path) for path in paths}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


# -- the two stages -----------------------------------------------------------------------------------------


def test_run_folder(stage1):
    names = {path.name for path in stage1.iterdir()}
    assert {
        "config.yaml",
        "run.json",
        "log.jsonl",
        "samples",
        "model",
        "checkpoint-2",
        "checkpoint-4",
    } <= names
    config = parse_config(TrainConfig, ["--config", str(stage1 / "config.yaml")])
    assert config.output_dir == str(stage1) and config.level_channels == [16, 16, 16]
    pictures = sorted((stage1 / "samples").iterdir())
    assert [path.name for path in pictures] == [f"step-00000{step}.png" for step in (0, 2, 4)]
    assert all(np.asarray(Image.open(path)).std() > 10 for path in pictures)
    assert list(log_of(stage1)) == [1, 2, 3, 4] and list(log_of(stage1, "validation_loss")) == [0, 2, 4]
    assert json.loads((stage1 / "run.json").read_text())["processes"] == 1


def test_stages_train_what_they_should(stage1, stage2, tiny_codec):
    before, after = parts(stage1), parts(stage2)
    conditioner = tiny_codec.conditioner().state_dict()
    assert same(before["codec"], after["codec"]) and same(before["codec"], tiny_codec.state_dict())
    assert same(before["conditioner"], conditioner)
    changed = [not torch.equal(after["conditioner"][key], conditioner[key]) for key in conditioner]
    assert sum(changed) > 0.9 * len(changed)
    assert not same(before["unet"], after["unet"])
    assert list(log_of(stage2)) == [1, 2]


def test_saved_system_keeps_its_own_chunk_length(stage2):
    assert VocalSeparationPipeline.from_pretrained(stage2 / "model").config.chunk_frames == 64
    assert parse_config(TrainConfig, ["--config", str(stage2 / "config.yaml")]).chunk_frames == 64


def test_the_config_says_what_was_trained_and_not_what_was_asked_for(stage2):
    config = vars(parse_config(TrainConfig, ["--config", str(stage2 / "config.yaml")]))
    saved = json.loads((stage2 / "model" / "unet" / "config.json").read_text())
    sizes = saved.keys() & config.keys()
    assert len(sizes) == 9 and {key: config[key] for key in sizes} == {key: saved[key] for key in sizes}
    assert config["level_channel"] and config["num_inference_steps"] == 1
    assert load_codec(config["codec"]).dimension == saved["condition_channels"]


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_the_config_says_what_the_latent_cache_was_made_of(request, cache, stage):
    folder = request.getfixturevalue(stage)
    config = parse_config(TrainConfig, ["--config", str(folder / "config.yaml")])
    for field in dataclasses.fields(PairsConfig):
        assert getattr(config, field.name) == getattr(cache, field.name), field.name
    assert config.pairs == 8 and config.output_dir == str(folder), "the cache's pairs, the run's own folder"


def test_averages_are_what_is_saved(stage1):
    averages = load_file(stage1 / "checkpoint-4" / checkpoints.AVERAGES)
    last = load_file(stage1 / "checkpoint-4" / "model.safetensors")
    names = [key for key in last if not key.endswith("time_proj.weight")]
    saved = {f"unet.{key}": value for key, value in parts(stage1)["unet"].items()}
    assert len(averages) >= len(names) - 1
    assert all(any(torch.equal(saved[key], value) for value in averages.values()) for key in names)
    assert not any(torch.equal(saved[key], last[key]) for key in names if last[key].dim() > 1)


def make_step(cache, conditioner):
    config = TrainConfig(**{**SMALL, "level_channels": [16, 16, 16]}, codec=cache.codec)
    torch.manual_seed(0)
    validation = CachedPairs(cache.output_dir, "mixture" if conditioner else "condition", validation=True)
    return TrainStep(make_pipeline(config), conditioner, validation)


@pytest.mark.parametrize("conditioner", [False, True], ids=["stage1", "stage2"])
def test_cache_and_raw_audio_give_the_same_loss(cache, tiny_codec, conditioner):
    step = make_step(cache, conditioner)
    raw = pairs_of(cache, tiny_codec)[0]
    cached = CachedPairs(cache.output_dir, "mixture" if conditioner else "condition")
    losses = {"raw": [], "cached": []}
    for key, pairs in (("raw", raw), ("cached", cached)):
        for indices in ((0, 1), (2, 3)):
            batch = torch.utils.data.default_collate([pairs[index] for index in indices])
            losses[key].append(step(batch, seeded_generator(0)).item())
    assert losses["raw"] == pytest.approx(losses["cached"], rel=1e-4)
    assert losses["raw"][0] != pytest.approx(losses["raw"][1], rel=1e-3)


def test_frozen_conditioner_is_the_one_that_ships(cache, stage1, tiny_codec):
    """After stage 2 it is no longer the codec's encoder, whose latents the cache keeps."""
    pipeline = VocalSeparationPipeline.from_pretrained(stage1 / "model")
    with torch.no_grad():
        next(pipeline.conditioner.parameters()).mul_(2)
    config = TrainConfig(latent_cache=cache.output_dir, pretrained_model_name_or_path=str(stage1 / "model"))
    config.chunk_frames = pipeline.config.chunk_frames
    cached, _ = separator.make_datasets(config, pipeline)
    raw, _ = pairs_of(cache, tiny_codec)
    step = TrainStep(pipeline, False, [])
    for item in (cached[0], raw[0]):
        batch = {key: tensor[None] for key, tensor in item.items()}
        condition = step.encode(batch)[1]
        torch.testing.assert_close(condition, pipeline.conditioner(batch["mixture"]))
        assert not condition.requires_grad
        assert (condition - pipeline.codec.encode(batch["mixture"])).abs().max() > 0.01


def test_stage_1_goes_on_from_cached_conditions(cache, stage1):
    """A frozen conditioner that is still the codec's encoder need not encode a mixture anew at each step."""
    config = TrainConfig(latent_cache=cache.output_dir, pretrained_model_name_or_path=str(stage1 / "model"))
    _, training, _ = separator.make_parts(config, "cpu")
    assert set(training[0]) == {"latents", "condition"}
    config.train_conditioner = True
    _, training, _ = separator.make_parts(config, "cpu")
    assert set(training[0]) == {"latents", "mixture"}


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_command_runs_on_raw_audio(flags, cache, stage1, tmp_path, stage):
    settings = dict(latent_cache="none", data_root=cache.data_root, pairs=4, hold_out_seconds=2.0)
    if stage > 1:
        settings |= dict(pretrained_model_name_or_path=stage1 / "model", train_conditioner="true")
    if stage == 3:
        settings["system"] = "ldm-dmx-stage3"
    run(flags(tmp_path / "raw", max_train_steps=2, validation_pairs=1, **settings))
    assert list(log_of(tmp_path / "raw")) == [1, 2]


def test_stage_3_learns_from_what_is_heard(cache, stage1):
    """Gradients reach the U-Net, and the conditioner where asked, through the decoder, which is frozen."""
    training, _ = pairs_of(cache, separator.load_codec(cache.codec))
    batch = torch.utils.data.default_collate([training[0], training[1]])
    for train_conditioner in (False, True):
        pipeline = VocalSeparationPipeline.from_pretrained(stage1 / "model")
        step = DecodedStep(pipeline, train_conditioner, [], log_weight=0.1).train()
        before = {name: tensor.clone() for name, tensor in pipeline.codec.state_dict().items()}
        optimizer, losses = torch.optim.AdamW(step.parameters(), 1e-3), []
        for _ in range(8):
            loss = step(batch, seeded_generator(0))
            loss.backward()
            assert all(p.grad.isfinite().all() for p in step.parameters() if p.requires_grad)  # DDP waits
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        assert losses[-1] < 0.95 * losses[0]
        assert same(before, pipeline.codec.state_dict())
        learned = any(name.startswith("conditioner") for name, _ in step.named_parameters())
        assert learned == train_conditioner


def test_decoded_loss_is_of_what_is_heard(rng):
    vocals, rest = torch.from_numpy(rng.standard_normal((2, 1, 1, 8000), np.float32))
    mixture = vocals + rest
    loss = [decoded_loss(x, vocals, mixture, 0.1).item() for x in (vocals, mixture, torch.zeros_like(vocals))]
    assert loss[0] < 0.5 * min(loss[1:])  # what is left of it is the mask's
    assert decoded_loss(mixture, vocals, mixture, 0.1) != decoded_loss(mixture, vocals, mixture, 0.2)
    louder = decoded_loss(7 * mixture, 7 * vocals, 7 * mixture, 0.1)
    assert louder.item() == pytest.approx(loss[1], rel=1e-4)
    silent = torch.zeros_like(vocals).requires_grad_()
    decoded_loss(silent, 0 * vocals, 0 * mixture, 0.1).backward()
    assert silent.grad.isfinite().all()


@pytest.mark.parametrize("stage3", [{"log_weight": 0.1}, {"system": "ldm-dmx-stage3"}])
def test_stage_3_refuses_a_cache(flags, stage1, tmp_path, stage3):
    with pytest.raises(SystemExit, match="^error: log_weight asks for waves"):
        run(flags(tmp_path / "run", **stage3, pretrained_model_name_or_path=stage1 / "model"))


def test_configs_of_before_stage_3_had_a_name(tmp_path):
    """`log_weight` selects it, wherever it stands; a null there asks for nothing."""
    file = tmp_path / "config.yaml"
    for text, system, module in (
        ("system: ldm-dmx\nlog_weight: 0.2", "ldm-dmx-stage3", decoded),
        ("log_weight: 0.2\nt_power: 4", "ldm-dmx-stage3", decoded),
        ("system: ldm-dmx\nlog_weight: null\nt_power: 4", "ldm-dmx", separator),
        ("system: student\nlog_weight: null", "student", few_steps),
    ):
        file.write_text(text)
        arguments = ["--config", str(file)]
        assert train.chosen(arguments) == system and train.TRAINABLE[system] == module.__name__
        config = parse_config(module.TrainConfig, arguments)
        assert getattr(config, "log_weight", 0.2) == 0.2
    assert train.chosen(["--log_weight=0.2"]) == "ldm-dmx-stage3"


def test_configs_of_kept_runs_are_read():
    paths = sorted(ROOT.glob("results/training/*/config.yaml"))
    assert len(paths) > 10
    for path in paths:
        arguments = ["--config", str(path)]
        if "codec" in path.parent.name:
            parse_config(codec_training.CodecTrainConfig, arguments)
        else:
            module = importlib.import_module(train.TRAINABLE[train.chosen(arguments)])
            parse_config(module.TrainConfig, arguments)


def test_loss_falls_on_one_batch(cache):
    step = make_step(cache, False)
    pairs = CachedPairs(cache.output_dir, "condition")
    batch = torch.utils.data.default_collate([pairs[0], pairs[1]])
    optimizer = torch.optim.AdamW(step.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        loss = step(batch, seeded_generator(0))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_codec_is_no_part_of_the_trained_module(cache):
    step = make_step(cache, True).train()
    assert not any("decoder" in name or "quantizer" in name for name in step.state_dict())
    assert step.conditioner.training and not step.pipeline.codec.training
    assert not any(parameter.requires_grad for parameter in step.pipeline.codec.parameters())


def test_validation_is_repeatable(cache):
    step = make_step(cache, False)
    with torch.no_grad():
        figures = [step.validate()[0] for _ in range(2)]
    assert figures[0] == figures[1] and np.isfinite(figures[0]["loss"])


# -- a student -----------------------------------------------------------------------------------------------


def make_student(cache, stage1, **settings):
    config = few_steps.TrainConfig(pretrained_model_name_or_path=str(stage1 / "model"), **settings)
    pipeline = VocalSeparationPipeline.from_pretrained(stage1 / "model")
    return DistillStep(pipeline, CachedPairs(cache.output_dir, "condition", validation=True), config)


def student_loss(step, cache):
    pairs = CachedPairs(cache.output_dir, "condition")
    return step(torch.utils.data.default_collate([pairs[0], pairs[1]]), seeded_generator(0))


def test_ddim_steps_of_any_length_agree_where_v_is_exact():
    """Of data that are one point the exact v is known, and every path is straight."""
    (point, noise), t = torch.randn(2, 3, 4, 8, generator=seeded_generator(0)), torch.tensor([1.0, 0.7, 0.4])
    (alpha, sigma), (alpha_end, sigma_end) = few_steps.amplitudes(t), few_steps.amplitudes(t / 2)

    def unet(z, timestep, condition):
        alpha, sigma = few_steps.amplitudes((timestep + 1) / 1000)
        return SimpleNamespace(sample=(alpha * z - point) / sigma)

    start = alpha * point + sigma * noise
    end = few_steps.ddim_step(unet, start, t, t / 2, None)
    torch.testing.assert_close(end, alpha_end * point + sigma_end * noise)
    torch.testing.assert_close(few_steps.ddim_step(unet, end, t / 2, 0 * t, None), point)


def test_student_has_nothing_to_learn_from_a_teacher_of_its_own_steps(cache, stage1):
    assert student_loss(make_student(cache, stage1, teacher_steps=4, student_steps=4), cache) < 1e-6
    assert student_loss(make_student(cache, stage1, teacher_steps=4, student_steps=1), cache) > 1e-3
    assert student_loss(make_student(cache, stage1, teacher_steps=4, method="consistency"), cache) > 1e-5


@pytest.mark.parametrize("method", few_steps.METHODS)
def test_student_learns_where_its_teacher_goes(cache, stage1, method):
    step = make_student(cache, stage1, teacher_steps=4, method=method)
    (teacher,) = step._teacher
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    optimizer, losses = torch.optim.AdamW(step.parameters(), 1e-2), []
    for _ in range(60):
        loss = student_loss(step, cache)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    assert same(before, teacher.state_dict()) and not any("teacher" in key for key in step.state_dict())


def test_student_trains_by_command(flags, stage1, tmp_path, capsys):
    sizes = ("chunk_frames", "level_channels", "attention_from", "fourier_channels", "time_channels")
    arguments = [
        flag for flag in flags(tmp_path / "run", max_train_steps=2) if not flag[2:].startswith(sizes)
    ]
    model = f"--pretrained_model_name_or_path={stage1 / 'model'}"
    run([*arguments, model, "--system=student", "--teacher_steps=2"])
    assert list(log_of(tmp_path / "run")) == [1, 2]
    assert not same(parts(tmp_path / "run")["unet"], parts(stage1)["unet"])
    for wrong in ("--method=magic", "--student_steps=3", "--train_conditioner=yes"):
        with pytest.raises(SystemExit, match="^error: (method|teacher_steps|train_.*) is .*; choose "):
            run([*arguments, model, "--system=student", wrong])
    with pytest.raises(SystemExit):  # learns latents, not waves
        run([*arguments, model, "--system=student", "--log_weight=0.1"])
    assert "unrecognized arguments: --log_weight=0.1" in capsys.readouterr().err


# -- what cannot be used ------------------------------------------------------------------------------------


def test_unknown_key_is_refused(flags, tmp_path, capsys):
    config = tmp_path / "config.yaml"
    config.write_text("learning_rat: 1\n")
    with pytest.raises(SystemExit, match="^error: unknown key learning_rat;"):
        run([*flags(tmp_path / "run"), "--config", str(config)])
    with pytest.raises(SystemExit):
        run([*flags(tmp_path / "run"), "--learning_rat=1"])
    assert "unrecognized arguments: --learning_rat=1" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_excerpts_that_the_levels_cannot_halve_are_refused(flags, tmp_path):
    with pytest.raises(SystemExit, match="^error: chunk_frames is 65; choose a multiple of 2.$"):
        run(flags(tmp_path / "run", chunk_frames=65))
    assert not (tmp_path / "run").exists()


def test_run_is_not_overwritten(flags, stage1):
    before = (stage1 / "log.jsonl").read_text()
    with pytest.raises(SystemExit, match="^error: .* holds a run already"):
        run(flags(stage1, max_train_steps=9))
    assert (stage1 / "log.jsonl").read_text() == before


def test_cache_of_another_codec_or_length_is_refused(flags, cache, tmp_path):
    with pytest.raises(SystemExit, match="^error: .*chunk_frames"):
        run(flags(tmp_path / "run", chunk_frames=32))
    copy = shutil.copytree(cache.output_dir, tmp_path / "cache")
    settings = json.loads((copy / "cache.json").read_text())
    (copy / "cache.json").write_text(json.dumps({**settings, "codec_checksum": "0"}))
    with pytest.raises(SystemExit, match="^error: .*codec_checksum"):
        run(flags(tmp_path / "run", latent_cache=copy))


@pytest.mark.parametrize("key", ["resume_from_checkpoint", "pretrained_model_name_or_path"])
def test_pickle_as_a_checkpoint_is_refused(flags, evil, tmp_path, key):
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(pickle.dumps(evil))
    with pytest.raises(SystemExit, match="^error: .*pickles are not opened"):
        run(flags(tmp_path / "run", **{key: path}))
    assert not evil.marker.exists()


def test_diverged_run_stops_with_one_sentence(flags, tmp_path, monkeypatch):
    monkeypatch.setattr(log, "MAX_SKIPPED", 3)
    losses = []

    def spoil(module, _, loss):
        if isinstance(module, TrainStep):
            losses.append(loss)
            return loss * float("nan") if len(losses) == 2 or len(losses) > 4 else loss

    with register_module_forward_hook(spoil), pytest.raises(SystemExit, match="^error: 3 steps in a row"):
        run(flags(tmp_path / "run", max_train_steps=20, checkpointing_steps=1))
    saved = load_file(tmp_path / "run" / "checkpoint-6" / "model.safetensors")
    assert all(tensor.isfinite().all() for tensor in saved.values())
    assert list(log_of(tmp_path / "run", "skipped").values()) == [0, 1, 1, 1, 2, 3, 4]


# -- as a user runs it --------------------------------------------------------------------------------------


def start_command(flags):
    return subprocess.Popen([sys.executable, ROOT / "dmxlib" / "train.py", *flags], env=ENVIRONMENT)


def wait_for(steps, folder):
    """Until a run's log says so many steps."""
    deadline, log = time.time() + 240, folder / "log.jsonl"
    while time.time() < deadline and (not log.exists() or log.read_text().count('"grad_norm"') < steps):
        time.sleep(0.002)


def kill_after(steps, process, folder):
    """Kill a run as soon as its log says so many steps."""
    wait_for(steps, folder)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL  # it was still at work


def test_a_compiled_unet_learns_the_same(flags, stage1, tmp_path, monkeypatch):
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch.nn.Module, "compile", partialmethod(torch.nn.Module.compile, backend=backend))
    run(flags(tmp_path / "run", max_train_steps=4, validation_steps=2, compile="yes"))
    assert graphs
    expected, model = (
        load_file(folder / "model/unet/diffusion_pytorch_model.safetensors")
        for folder in (stage1, tmp_path / "run")
    )
    assert expected.keys() == model.keys()
    assert all(torch.allclose(expected[key], model[key], atol=1e-5) for key in model)


def test_pairs_are_drawn_on_the_device(flags, toy_root, tmp_path):
    """Losses are those of the usual pairs, but for the half sample that excerpts may begin beside."""
    settings = dict(latent_cache="none", data_root=toy_root, hold_out_seconds=2.0, validation_pairs=1)
    settings |= dict(pairs=4, augmentations="[polarity, levels]", max_train_steps=2)
    losses = []
    for name in ("no", "yes"):
        run(flags(tmp_path / name, data_on_device=name, **settings))
        losses.append(list(log_of(tmp_path / name).values()))
    assert losses[0] == pytest.approx(losses[1], rel=0.05) and losses[0] != losses[1]
    with pytest.raises(SystemExit, match="^error: data_on_device asks for waves"):
        run(flags(tmp_path / "cached", data_on_device="yes"))


def test_kill_and_resume_is_the_unbroken_run(flags, tmp_path):
    settings = dict(max_train_steps=40, checkpointing_steps=3, validation_steps=1000)
    moments = random.Random(0)
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    run(flags(unbroken, **settings))
    kill_after(moments.randint(8, 14), start_command(flags(killed, **settings)), killed)
    newest = checkpoints.complete_checkpoints(killed)[-1]
    half = killed / f".checkpoint-{int(newest.name.split('-')[1]) + 3}.part1"  # what a kill may leave
    shutil.rmtree(half, ignore_errors=True)
    shutil.copytree(newest, half, ignore=shutil.ignore_patterns(checkpoints.MARKER))
    (half / "model.safetensors").write_bytes(b"half of it")
    with open(killed / "log.jsonl", "a") as log:
        log.write('{"step": 9')
    settings["resume_from_checkpoint"] = "latest"
    kill_after(moments.randint(20, 30), start_command(flags(killed, **settings)), killed)
    assert len(checkpoints.complete_checkpoints(killed)) == 2
    run(flags(killed, **settings))
    assert list(log_of(killed)) == list(range(1, 41))
    assert log_of(killed) == pytest.approx(log_of(unbroken), abs=1e-6)
    assert log_of(killed, "validation_loss") == pytest.approx(log_of(unbroken, "validation_loss"), abs=1e-6)
    for name, weights in parts(unbroken)["unet"].items():
        assert torch.allclose(parts(killed)["unet"][name], weights, atol=1e-6)


REPORTING = """
import torch
from safetensors.torch import save_file
from dmxlib.config import parse_config
from dmxlib.latents import CachedPairs
from dmxlib.reproduce import seeded_generator
from dmxlib.training.loop import make_accelerator, train
from dmxlib.training.separator import TrainConfig, TrainStep, make_parts

heard, epochs = [], [-1.0]

class Pairs(CachedPairs):
    def set_epoch(self, epoch):
        epochs.append(float(epoch))

class Step(TrainStep):
    def forward(self, batch, generator):
        noise = torch.randn((), generator=seeded_generator(generator.initial_seed()))
        heard.append(torch.stack([batch["latents"].mean(), noise, torch.tensor(epochs[-1])]))
        return super().forward(batch, generator)

config = parse_config(TrainConfig)
accelerator = make_accelerator(config)
pipeline, _, validation = make_parts(config, accelerator.device)
step = Step(pipeline, config.train_conditioner, validation)
train(step, Pairs(config.latent_cache, "condition"), config, accelerator)
tensors = {name: tensor.contiguous() for name, tensor in step.state_dict().items()}
name = f"rank{accelerator.process_index}.safetensors"
save_file({**tensors, "heard": torch.stack(heard)}, f"{config.output_dir}/{name}")
"""


def test_two_process_run_agrees_and_resumes(flags, tmp_path):
    def launched(script, **settings):
        code, told = launch(script, *flags(folder, **settings))
        assert code == 0, told[-3000:]
        assert json.loads((folder / "run.json").read_text())["processes"] == 2

    folder = tmp_path / "run"
    settings = dict(max_train_steps=6, checkpointing_steps=2, validation_steps=1000)
    launched(ROOT / "dmxlib" / "train.py", **settings)
    losses = log_of(folder)
    assert list(losses) == [1, 2, 3, 4, 5, 6]
    unbroken = parts(folder)["unet"]
    shutil.rmtree(folder / "checkpoint-6")
    script = tmp_path / "reporting.py"
    script.write_text(REPORTING)
    launched(script, **settings, resume_from_checkpoint="latest")
    ranks = [load_file(folder / f"rank{rank}.safetensors") for rank in (0, 1)]
    heard = [rank.pop("heard") for rank in ranks]
    # other pairs and other noise in each process; of the epoch, two steps long, both data sets are told
    assert len(heard[0]) == len(heard[1]) == 2 and not (heard[0] == heard[1])[:, :2].any()
    assert heard[0][:, 2].tolist() == heard[1][:, 2].tolist() == [2, 2]
    assert same(*ranks)
    assert log_of(folder) == pytest.approx(losses, abs=1e-6)
    for name, weights in parts(folder)["unet"].items():
        assert torch.allclose(weights, unbroken[name], atol=1e-6)
    run(
        flags(folder, **{**settings, "max_train_steps": 7}, resume_from_checkpoint="latest")
    )  # in one process
    assert list(log_of(folder)) == [1, 2, 3, 4, 5, 6, 7]


def test_a_launch_that_is_told_to_stop_writes_a_checkpoint_of_all_processes(flags, tmp_path):
    """The launcher alone hears it, as from a scheduler, and passes it on."""
    settings = dict(max_train_steps=100_000, checkpointing_steps=100_000, logging_steps=2)
    (launcher,) = start_launch(ROOT / "dmxlib" / "train.py", *flags(tmp_path / "run", **settings))
    wait_for(4, tmp_path / "run")
    launcher.terminate()
    told = launcher.communicate(timeout=240)[1]
    assert launcher.returncode and "--resume_from_checkpoint latest goes on" in told, told[-3000:]
    (checkpoint,) = checkpoints.complete_checkpoints(tmp_path / "run")
    step = int(checkpoint.name.rpartition("-")[2])
    assert step % 2 == 0 and list(log_of(tmp_path / "run")) == [*range(1, step + 1)]


# -- the codec ----------------------------------------------------------------------------------------------


def test_codec_trains_resumes_and_starts_the_next(toy_root, tmp_path):
    settings = dict(
        data_root=toy_root,
        hold_out_seconds=2.0,
        excerpt_seconds=0.4,
        n_filters=4,
        dimension=8,
        n_q=2,
        bins=16,
        train_batch_size=4,
        epoch_length=8,
        validation_excerpts=2,
        calibration_excerpts=2,
        chunk_frames=64,
        checkpointing_steps=2,
    )

    def codec_run(name, **extra):
        values = {**settings, "output_dir": tmp_path / name, **extra}
        run([f"--{key}={value}" for key, value in values.items()], train_codec)
        return load_codec(str(tmp_path / name / "model"), quantized=True)

    codec = codec_run("first", max_train_steps=4)
    assert list(log_of(tmp_path / "first")) == [1, 2, 3, 4]
    quantizer = json.loads((tmp_path / "first" / "model" / "quantizer.json").read_text())
    assert np.isfinite(quantizer["sdr_quantized"]) and 0.5 < quantizer["codebook_usage"] <= 1
    assert codec.normalization.fitted and codec.dimension == 8
    shutil.copytree(tmp_path / "first" / "checkpoint-2", tmp_path / "resumed" / "checkpoint-2")
    resumed = codec_run("resumed", max_train_steps=4, resume_from_checkpoint="latest")
    for key, tensor in codec.state_dict().items():  # codebooks included
        assert torch.allclose(tensor, resumed.state_dict()[key], atol=1e-5), key
    judged = codec_run("judged", max_train_steps=1, adversarial_weight=1.0)
    assert judged.state_dict().keys() == codec.state_dict().keys()  # the discriminator is not saved with it
    again = codec_run("second", max_train_steps=0, init=tmp_path / "first" / "model")
    assert same(again.state_dict(), codec.state_dict())


def test_latents_are_calibrated_on_vocals_of_the_separators_length(toy_root, tmp_path):
    """And the decoder's excerpts are whole latent frames, whatever seconds are asked for."""
    settings = dict(n_filters=2, dimension=8, n_q=1, bins=2, epoch_length=4, validation_excerpts=1)
    settings |= dict(calibration_excerpts=3, chunk_frames=20, hold_out_seconds=2.0, train_batch_size=4)
    settings |= dict(data_root=toy_root, output_dir=tmp_path, max_train_steps=1, excerpt_seconds=0.123)
    run([f"--{key}={value}" for key, value in settings.items()], train_codec)
    kept, _ = training_tracks(str(toy_root), 2.0)
    pairs = VocalPairs(kept, 3, 20 * 320 / 24_000, 24_000, 1, seed=2, augmentations=())
    codec = load_codec(str(tmp_path / "model"))
    calibrated = {name: buffer.clone() for name, buffer in codec.normalization.named_buffers()}
    codec.calibrate(pairs[index]["vocals"][None] for index in range(3))
    for name, buffer in codec.normalization.named_buffers():
        torch.testing.assert_close(buffer, calibrated[name])


def test_discriminator_and_codec_learn_from_their_own_losses():
    torch.manual_seed(0)
    adversary, wave = codec_training.Adversary(1), torch.randn(1, 1, 4096)
    noise = torch.nn.Parameter(torch.randn(1, 1, 4096))
    weights = list(adversary.parameters())
    gradients = torch.autograd.grad(adversary(noise, wave), [noise, *weights])
    # the codec's terms leave no gradient in the discriminator's weights: without them it is the same
    real, fake = (adversary.discriminator(signal)[0] for signal in (wave, noise.detach()))
    hinge = sum((1 - r).relu().mean() + (1 + f).relu().mean() for r, f in zip(real, fake, strict=True)) / len(
        real
    )
    for expected, gradient in zip(torch.autograd.grad(hinge, weights), gradients[1:], strict=True):
        torch.testing.assert_close(gradient, expected)
    assert gradients[0].abs().sum() > 0


def test_decoder_alone_learns_vocals_from_the_latents_there_are(toy_root, codec_folder, tmp_path):
    values = dict(
        init=codec_folder,
        n_filters=64,  # which the codec has not
        train_decoder_only="yes",
        data_root=toy_root,
        output_dir=tmp_path / "run",
        hold_out_seconds=2.0,
        excerpt_seconds=0.4,
        train_batch_size=2,
        epoch_length=16,
        validation_excerpts=2,
        max_train_steps=8,
        learning_rate=3e-3,
        lr_warmup_steps=1,
        use_ema="no",
    )
    run([f"--{key}={value}" for key, value in values.items()], train_codec)
    before = load_codec(str(codec_folder), quantized=True)
    after = load_codec(str(tmp_path / "run" / "model"), quantized=True)
    told = parse_config(codec_training.CodecTrainConfig, ["--config", str(tmp_path / "run" / "config.yaml")])
    saved = after.config.seanet | {key: after.config[key] for key in ("sampling_rate", "n_q", "bins")}
    sizes = ("sampling_rate", "channels", "dimension", "n_filters", "ratios", "n_q", "bins")
    assert all(getattr(told, key) == saved[key] for key in sizes)
    for part in ("encoder", "normalization", "quantizer"):
        assert same(getattr(before, part).state_dict(), getattr(after, part).state_dict())
    assert not same(before.decoder.state_dict(), after.decoder.state_dict())
    for key, better in (("validation_sdr", 1), ("validation_loss", -1)):
        first, last = log_of(tmp_path / "run", key).values()
        assert better * (last - first) > 0
    with pytest.raises(SystemExit, match="^error: train_decoder_only .*--init"):
        run(["--train_decoder_only=yes", f"--output_dir={tmp_path / 'none'}"], train_codec)
