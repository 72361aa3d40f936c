"""The loop survives kills and steps that are not finite, and a resumed run is the unbroken one."""

import contextlib
import json
import math
import os
import pickle
import resource
import shutil
import signal
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from dmxlib.config import parse_config
from dmxlib.data import VocalPairs, load_tracks
from dmxlib.errors import InputError
from dmxlib.reproduce import alone
from dmxlib.training import checkpoints, log, loop
from dmxlib.training.checkpoints import complete_checkpoints
from dmxlib.training.loop import TrainerConfig, make_accelerator, train
from dmxlib.training.optimizer import learning_rate

pytestmark = pytest.mark.usefixtures("fresh_accelerate")


class Items(torch.utils.data.Dataset):
    """Ten points; the epoch shifts them, so that a wrong one shows."""

    def __init__(self, count=10):
        self.points = torch.randn(count, 4, generator=torch.Generator().manual_seed(0))
        self.epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return len(self.points)

    def __getitem__(self, index):
        return {"x": self.points[index] + self.epoch / 10, "index": index}


class Toy(torch.nn.Module):
    """A linear map learns to negate its input, with noise from the generator; remembers what it was given."""

    def __init__(self, noise=0.1, broken_steps=()):
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)
        torch.nn.init.eye_(self.linear.weight)
        torch.nn.init.zeros_(self.linear.bias)
        self.register_buffer("statistic", torch.zeros(1))
        self.noise, self.broken_steps = noise, broken_steps
        self.seen, self.weights, self.validated, self.modes, self.seeds = [], [], [], [], []

    def forward(self, batch, generator):
        self.seen.append(batch["index"].tolist())
        self.weights.append(self.linear.weight.detach().clone())
        self.modes.append(self.training)
        self.seeds.append(generator.initial_seed())
        x = batch["x"]
        noise = self.noise * torch.randn(x.shape, generator=generator)
        loss = (self.linear(x) + x + noise).square().mean()
        return loss * float("nan") if len(self.seen) in self.broken_steps else loss

    def validate(self):
        self.validated.append(self.linear.weight.detach().clone())
        return {"loss": 1.5}, {"heard": torch.zeros(1, 8)}, 8000

    def save(self, folder):
        folder.mkdir(exist_ok=True)
        save_file(self.state_dict(), folder / "weights.safetensors")


def plot(path, waves, rate):
    """In place of a picture, which takes a second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{[*waves]} at {rate} Hz")


@pytest.fixture
def config(tmp_path):
    return TrainerConfig(
        output_dir=str(tmp_path / "run"),
        max_train_steps=6,
        train_batch_size=2,
        learning_rate=0.1,
        lr_warmup_steps=2,
        checkpointing_steps=2,
        validation_steps=3,
    )


@pytest.fixture
def fit(fresh_accelerate):
    """Train a Toy, as one process does that starts anew; gives it back."""

    def run(config, module=None, items=None):
        fresh_accelerate()
        module = module or Toy()
        train(module, items or Items(), config, make_accelerator(config), plot)
        return module

    return run


def log_of(config, key="loss"):
    """step -> value, from the run's log; asserts that no step stands there twice."""
    with open(f"{config.output_dir}/log.jsonl") as file:
        pairs = [(record["step"], record[key]) for record in map(json.loads, file) if key in record]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# -- a run and its folder -----------------------------------------------------------------------------------


def test_run_folder_tells_its_story(config, fit, tmp_path):
    fit(config)
    folder = tmp_path / "run"
    assert {"config.yaml", "run.json", "log.jsonl", "samples", "model"} <= set(names(folder))
    assert parse_config(TrainerConfig, ["--config", str(folder / "config.yaml")]) == config
    facts = json.loads((folder / "run.json").read_text())
    assert facts["processes"] == 1 and facts["torch"] == torch.__version__
    assert names(folder / "samples") == ["step-000000.png", "step-000003.png", "step-000006.png"]
    assert (folder / "samples" / "step-000006.png").read_text() == "['heard'] at 8000 Hz"
    assert list(log_of(config, "loss")) == list(log_of(config, "grad_norm")) == [1, 2, 3, 4, 5, 6]
    assert log_of(config, "validation_loss") == {0: 1.5, 3: 1.5, 6: 1.5}
    assert [path.name for path in complete_checkpoints(folder)] == ["checkpoint-4", "checkpoint-6"]


def test_loss_falls_on_one_batch(config, fit):
    config = replace(config, max_train_steps=60, checkpointing_steps=60, train_batch_size=10)
    fit(config, Toy(noise=0))
    losses = log_of(config)
    assert losses[60] < 0.05 * losses[1]


def test_every_epoch_takes_every_item_in_another_order(config, fit):
    module = fit(replace(config, max_train_steps=15))
    epochs = [sum(module.seen[start : start + 5], []) for start in (0, 5, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert all(module.modes)


def test_accumulated_gradients_are_those_of_the_bigger_batch(config, fit, tmp_path):
    big = fit(replace(config, train_batch_size=4), Toy(noise=0), Items(8))
    small = replace(config, gradient_accumulation_steps=2, output_dir=str(tmp_path / "small"))
    small = fit(small, Toy(noise=0), Items(8))
    assert len(small.seen) == 2 * len(big.seen) == 12
    assert torch.allclose(big.linear.weight, small.linear.weight, atol=1e-6)
    assert not torch.allclose(big.linear.weight, torch.eye(4), atol=0.1)


def test_learning_rate_warms_up_and_falls_to_zero(config, fit):
    config = replace(config, max_train_steps=10, lr_warmup_steps=4)
    rates = [learning_rate(config, step) for step in range(11)]
    assert rates[:5] == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1])
    assert rates[7] == pytest.approx(0.05) and rates[10] == pytest.approx(0)
    fit(config)
    assert list(log_of(config, "lr").values()) == rates[:10]


def test_learning_rate_falls_in_steps_or_stays(config):
    config = replace(config, learning_rate=0.1, lr_warmup_steps=2, lr_decay=0.5, lr_decay_steps=3)
    rates = [learning_rate(config, step) for step in range(9)]
    assert rates == pytest.approx([0.05, 0.1, 0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.025])
    assert {learning_rate(replace(config, lr_decay=1.0), step) for step in range(2, 9)} == {0.1}


def test_averaged_weights_are_validated_and_saved(config, fit, tmp_path):
    config = replace(config, ema_decay=0.5, validation_steps=6)
    module = fit(config)
    steps = module.weights[1:] + [module.linear.weight.detach()]  # what each step led to
    average = module.weights[0]
    for number, weight in enumerate(steps, start=1):
        decay = min(0.5, number / (9 + number)) if number > 1 else 0  # diffusers' ramp
        average = decay * average + (1 - decay) * weight
    assert torch.allclose(module.validated[-1], average, atol=1e-6)
    assert not torch.allclose(average, steps[-1], atol=1e-3)
    saved = load_file(tmp_path / "run" / "model" / "weights.safetensors")
    assert torch.equal(saved["linear.weight"], module.validated[-1])


def test_without_averages_the_last_weights_are_saved(config, fit, tmp_path):
    module = fit(replace(config, use_ema=False))
    saved = load_file(tmp_path / "run" / "model" / "weights.safetensors")
    assert torch.equal(saved["linear.weight"], module.linear.weight)


@pytest.mark.parametrize(
    "setting", [{"mixed_precision": "fp16"}, {"train_batch_size": 11}, {"optimizer": "sgd"}]
)
def test_settings_that_cannot_work_are_refused(config, fit, setting):
    with pytest.raises(InputError):
        fit(replace(config, **setting))


# -- what a step is made of ----------------------------------------------------------------------------------


def test_noise_is_another_in_each_step_run_and_process(config, fit, tmp_path):
    config = replace(config, gradient_accumulation_steps=2)
    seeds = fit(config).seeds
    again = fit(replace(config, output_dir=str(tmp_path / "again"))).seeds
    other = fit(replace(config, output_dir=str(tmp_path / "other"), seed=1)).seeds
    assert seeds == again and len({*seeds, *other}) == 2 * len(seeds)
    run = loop.Run(Toy(), Items(), config, make_accelerator(config))
    run.accelerator = SimpleNamespace(process_index=1, device="cpu")
    assert run.generator(0).initial_seed() not in seeds


def test_a_loud_gradient_is_clipped(config, fit, tmp_path):
    """To the norm of all others: Adam's moments, and with them every later step, are those of a quiet run."""

    class Loud(Toy):
        def forward(self, batch, generator):
            return super().forward(batch, generator) * (1000 if len(self.seen) == 2 else 1)

    weights = []
    for module, name in ((Toy(), "quiet"), (Loud(), "loud")):
        settings = dict(max_grad_norm=1e-3, output_dir=str(tmp_path / name))
        weights.append(fit(replace(config, **settings), module).linear.weight)
    torch.testing.assert_close(*weights, atol=1e-4, rtol=0)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_kernels_decay_and_biases_do_not(config, fit, optimizer):
    """Where the gradient is zero, by the sum of the learning rates."""

    class Still(Toy):
        def forward(self, batch, generator):
            return 0 * (super().forward(batch, generator) + self.linear.bias.sum())

    module = Still()
    torch.nn.init.ones_(module.linear.bias)
    fit(replace(config, optimizer=optimizer, adam_weight_decay=0.5), module)
    shrunk = math.prod(1 - 0.5 * learning_rate(config, step) for step in range(6))
    torch.testing.assert_close(module.linear.weight.detach(), shrunk * torch.eye(4))
    assert shrunk < 0.9 and torch.equal(module.linear.bias.detach(), torch.ones(4))


def test_bf16_is_what_the_module_computes_in(config, fit):
    class Watching(Toy):
        def forward(self, batch, generator):
            self.dtype = self.linear(batch["x"]).dtype
            return super().forward(batch, generator)

    assert fit(replace(config, max_train_steps=1), Watching()).dtype == torch.float32
    config = replace(config, max_train_steps=1, mixed_precision="bf16", output_dir=config.output_dir + "-16")
    module = fit(config, Watching())
    assert module.dtype == torch.bfloat16 and module.linear.weight.dtype == torch.float32


def test_workers_that_go_on_make_the_pairs_of_a_new_epoch(toy_root):
    tracks = load_tracks(toy_root, "train")
    pairs = VocalPairs(tracks, 2, 0.2, 16_000, 1, seed=0)
    loader = torch.utils.data.DataLoader(pairs, 2, num_workers=1, persistent_workers=True)
    heard = []
    for epoch in (0, 1):
        pairs.set_epoch(epoch)
        (batch,) = loader
        heard.append(batch["mixture"])
        assert torch.equal(heard[-1], torch.stack([pairs[index]["mixture"] for index in (0, 1)]))
    assert not torch.equal(*heard)


# -- steps that are not finite ------------------------------------------------------------------------------


def test_non_finite_steps_are_skipped_counted_and_logged(config, fit):
    module = fit(config, Toy(broken_steps=(3, 5)))
    same = [torch.equal(a, b) for a, b in zip(module.weights, module.weights[1:], strict=False)]
    assert same == [False, False, True, False, True]
    assert log_of(config, "skipped") == {1: 0, 2: 0, 3: 1, 4: 1, 5: 2, 6: 2}
    assert module.linear.weight.isfinite().all()


def test_an_infinite_gradient_of_a_finite_loss_is_skipped(config, fit):
    class Steep(Toy):
        def forward(self, batch, generator):
            return super().forward(batch, generator) + (self.linear.bias * 0).abs().sqrt().sum()

    module = fit(config, Steep())
    assert torch.equal(module.linear.weight, torch.eye(4))
    assert log_of(config, "skipped")[6] == 6


def test_too_many_non_finite_steps_stop_the_run(config, fit, tmp_path, monkeypatch):
    monkeypatch.setattr(log, "MAX_SKIPPED", 3)
    with pytest.raises(InputError, match=r"^3 steps in a row .* lower learning_rate .*[^.]\.$"):
        fit(replace(config, max_train_steps=20), Toy(broken_steps=(2, *range(4, 20))))
    assert [path.name for path in complete_checkpoints(tmp_path / "run")] == ["checkpoint-2", "checkpoint-4"]


def test_a_weight_that_is_not_finite_is_never_saved(config, fit, tmp_path):
    class Spoilt(Toy):
        def forward(self, batch, generator):
            if len(self.seen) == 2:
                self.statistic.fill_(float("inf"))
            return super().forward(batch, generator)

    with pytest.raises(InputError, match="not finite at step 4"):
        fit(config, Spoilt())
    assert [path.name for path in complete_checkpoints(tmp_path / "run")] == ["checkpoint-2"]
    assert not list(tmp_path.glob("run/.*"))


def test_the_log_is_the_same_however_seldom_it_is_written(config, fit, tmp_path):
    modules = [
        fit(replace(config, output_dir=str(tmp_path / str(n)), logging_steps=n), Toy(broken_steps=(3, 5)))
        for n in (1, 4)
    ]
    records = [
        [json.loads(line) for line in open(tmp_path / str(n) / "log.jsonl")]  # noqa: SIM115
        for n in (1, 4)
    ]
    often, seldom = ([{**record, "time": 0} for record in run] for run in records)
    assert str(often) == str(seldom)  # NaN is unequal to itself
    assert torch.equal(modules[0].linear.weight, modules[1].linear.weight)


def test_steps_that_a_scaler_skips_are_counted_like_others(config, fresh_accelerate, monkeypatch):
    """fp16's scaler, in fp32: what overflows is an infinite gradient."""
    accelerator = make_accelerator(config)
    accelerator.scaler, accelerator.native_amp = torch.amp.GradScaler("cpu", init_scale=2.0**127), True
    monkeypatch.setattr(type(accelerator), "mixed_precision", "fp16")
    monkeypatch.setattr(accelerator, "autocast", contextlib.nullcontext)
    module = Toy()
    run = loop.Run(module, Items(), replace(config, max_train_steps=30), accelerator, plot)
    run.folder.mkdir()
    run.loop()
    skipped = log_of(config, "skipped")
    assert 0 < skipped[30] < 10 and skipped[30] == skipped[20]  # until the scale fits
    assert accelerator.scaler.get_scale() == 2.0 ** (127 - skipped[30])
    steps = zip(module.weights, module.weights[1:], strict=False)
    assert sum(torch.equal(a, b) for a, b in steps) == skipped[30]


# -- told to stop -------------------------------------------------------------------------------------------


def test_sigterm_ends_a_run_with_a_checkpoint(config, fit, tmp_path, capsys):
    class Told(Toy):
        def forward(self, batch, generator):
            if len(self.seen) == 4:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().forward(batch, generator)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as exit:
        fit(config, Told())
    assert exit.value.code == 143 and signal.getsignal(signal.SIGTERM) == before
    assert "step 5; --resume_from_checkpoint latest" in capsys.readouterr().err
    assert complete_checkpoints(tmp_path / "run")[-1].name == "checkpoint-5"
    assert not (tmp_path / "run" / "model").exists() and list(log_of(config)) == [1, 2, 3, 4, 5]
    resumed = fit(replace(config, resume_from_checkpoint="latest"))
    unbroken = fit(replace(config, output_dir=str(tmp_path / "unbroken")))
    assert len(resumed.seen) == 1 and torch.allclose(resumed.linear.weight, unbroken.linear.weight, atol=1e-6)


def test_processes_that_read_go_on_when_all_are_told_to_stop(config):
    run = loop.Run(Toy(), Items(), replace(config, dataloader_num_workers=1), make_accelerator(config))
    batches = iter(run.loader)
    first = next(batches)
    (worker,) = torch.multiprocessing.active_children()
    os.kill(worker.pid, signal.SIGTERM)
    assert len([first, *batches]) == 5


# -- resuming -----------------------------------------------------------------------------------------------


@pytest.fixture
def broken_off(config, fit):
    """Breaks a run off after some steps, as a kill does; gives the config that resumes it."""

    def run(step, config=config):
        class Broken(Toy):
            def forward(self, batch, generator):
                if len(self.seen) == step * config.gradient_accumulation_steps:
                    raise KeyboardInterrupt
                return super().forward(batch, generator)

        with pytest.raises(KeyboardInterrupt):
            fit(config, Broken())
        return replace(config, resume_from_checkpoint="latest")

    return run


@pytest.mark.parametrize("setting", [{}, {"gradient_accumulation_steps": 2}, {"optimizer": "muon"}])
@pytest.mark.parametrize("step", [1, 5, 9])
def test_resumed_run_equals_the_unbroken_one(config, fit, broken_off, tmp_path, setting, step):
    config = replace(config, max_train_steps=12, validation_steps=5, **setting)
    unbroken = replace(config, output_dir=str(tmp_path / "unbroken"))
    expected = fit(unbroken)
    module = fit(broken_off(step, config))
    assert log_of(config) == pytest.approx(log_of(unbroken), abs=1e-6)
    assert list(log_of(config)) == list(range(1, 13))
    assert log_of(config, "validation_loss") == log_of(unbroken, "validation_loss")
    assert torch.allclose(module.linear.weight, expected.linear.weight, atol=1e-6)
    averages = [load_file(tmp_path / run / "model" / "weights.safetensors") for run in ("run", "unbroken")]
    assert torch.allclose(averages[0]["linear.weight"], averages[1]["linear.weight"], atol=1e-6)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_checkpoints_of_before_vectors_had_a_group_of_their_own(config, fit, tmp_path, optimizer):
    """Their state is in the module's order, here with a vector before a matrix."""

    class Scaled(Toy):
        def __init__(self):
            super().__init__()
            self.linear, self.scale = torch.nn.Linear(4, 4), torch.nn.Parameter(torch.ones(4))
            torch.nn.init.eye_(self.linear.weight)
            torch.nn.init.zeros_(self.linear.bias)

        def forward(self, batch, generator):
            return super().forward({**batch, "x": batch["x"] * self.scale}, generator)

    config = replace(config, optimizer=optimizer, adam_weight_decay=0.0)
    unbroken = fit(replace(config, output_dir=str(tmp_path / "unbroken")), Scaled())
    fit(config, Scaled())
    shutil.rmtree(tmp_path / "run" / "checkpoint-6")
    file = tmp_path / "run" / "checkpoint-4" / checkpoints.OPTIMIZER
    state = torch.load(file, weights_only=True)
    # grouped: weight, scale, bias; in the module's order: scale, weight, bias
    names = [name for name, _ in Scaled().named_parameters()]
    assert names == ["scale", "linear.weight", "linear.bias"]
    old = {"state": {0: state["state"][1], 1: state["state"][0], 2: state["state"][2]}}
    torch.save({**old, "param_groups": [{**state["param_groups"][0], "params": [0, 1, 2]}]}, file)
    resumed = fit(replace(config, resume_from_checkpoint="latest"), Scaled())
    for expected, parameter in zip(unbroken.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected, atol=1e-6, rtol=0)


def test_resumed_module_trains_though_it_was_loaded_for_use(config, fit, broken_off):
    module = fit(broken_off(5), Toy().eval())
    assert module.modes == [True, True]


def test_skipped_steps_are_still_counted_after_resuming(config, fit):
    fit(replace(config, max_train_steps=4), Toy(broken_steps=(2,)))
    fit(replace(config, resume_from_checkpoint="latest"))
    assert log_of(config, "skipped")[6] == 1


def test_resuming_may_lower_the_learning_rate(config, fit, broken_off):
    module = fit(replace(broken_off(5), learning_rate=1e-9))
    assert torch.allclose(module.linear.weight, module.weights[0], atol=1e-6)
    assert log_of(config, "lr")[6] < 1e-9


def test_finished_run_resumes_to_its_model(config, fit, tmp_path):
    fit(config)
    shutil.rmtree(tmp_path / "run" / "model")
    assert fit(replace(config, resume_from_checkpoint="latest")).seen == []
    assert (tmp_path / "run" / "model" / "weights.safetensors").is_file()
    assert list(log_of(config)) == [1, 2, 3, 4, 5, 6]


def test_latest_without_a_checkpoint_starts_anew(config, fit, broken_off):
    fit(broken_off(1))
    assert list(log_of(config)) == [1, 2, 3, 4, 5, 6]


def test_run_is_not_overwritten(config, fit, broken_off, tmp_path):
    broken_off(5)
    before = (tmp_path / "run" / "log.jsonl").read_text()
    with pytest.raises(InputError, match="resume_from_checkpoint latest"):
        fit(config)
    assert (tmp_path / "run" / "log.jsonl").read_text() == before


def test_half_written_checkpoint_is_removed(config, fit, broken_off, tmp_path):
    resumed, folder = broken_off(5), tmp_path / "run"
    half = folder / ".checkpoint-6.part123"  # of a kill
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    module = fit(resumed)
    assert len(module.seen) == 2
    assert not list(folder.glob(".*"))
    assert list(log_of(config)) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(("room", "refused"), [(200_000, SafetensorError), (600_000, RuntimeError)])
def test_full_disk_while_a_checkpoint_is_written(config, fit, tmp_path, room, refused):
    """The system allows no larger file from step 3 on, of the weights' 400 kB and the optimiser's 800 kB:
    what safetensors and torch say of it names no reason; the earlier checkpoint stays whole."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    class Large(Toy):
        def __init__(self):
            super().__init__()
            self.more = torch.nn.Parameter(torch.zeros(100_000))

        def forward(self, batch, generator):
            if len(self.seen) == 2:
                resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
            return super().forward(batch, generator) + self.more.square().sum()

    try:
        with pytest.raises(InputError, match=r"checkpoint-4 cannot be written \(file too .*[^.]\.$") as told:
            fit(config, Large())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert isinstance(told.value.__cause__.__context__, refused)
    assert [path.name for path in complete_checkpoints(tmp_path / "run")] == ["checkpoint-2"]
    assert not list((tmp_path / "run").glob(".*"))


def test_a_second_run_in_the_folder_is_refused(config, fit, tmp_path):
    with alone(tmp_path / "run"), pytest.raises(InputError, match="run is written to by another process"):
        fit(config)
    assert not (tmp_path / "run").exists()


def test_going_back_needs_the_later_checkpoints_out_of_the_way(config, fit, tmp_path):
    fit(config)
    back = replace(config, resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-4"))
    with pytest.raises(InputError, match="holds checkpoint-6"):
        fit(back)
    assert list(log_of(config)) == [1, 2, 3, 4, 5, 6]
    shutil.rmtree(tmp_path / "run" / "checkpoint-6")
    assert len(fit(back).seen) == 2
    shutil.rmtree(tmp_path / "run" / "checkpoint-6")
    elsewhere = replace(back, output_dir=str(tmp_path / "elsewhere"))
    assert len(fit(elsewhere).seen) == 2 and list(log_of(elsewhere)) == [5, 6]


def test_checkpoint_with_a_missing_file_is_refused(config, fit, broken_off, tmp_path):
    resumed, checkpoint = broken_off(5), tmp_path / "run" / "checkpoint-4"
    (checkpoint / "optimizer.pt").unlink()
    for name in ("latest", str(checkpoint)):
        with pytest.raises(InputError, match="checkpoint-4"):
            fit(replace(resumed, resume_from_checkpoint=name))
    (checkpoint / checkpoints.MARKER).unlink()
    with pytest.raises(InputError, match="no complete checkpoint"):
        fit(replace(resumed, resume_from_checkpoint=str(checkpoint)))


def test_checkpoint_of_another_model_is_refused(config, fit, broken_off):
    module = Toy()
    module.linear = torch.nn.Linear(4, 4, bias=False)
    with pytest.raises(InputError, match="of other settings"):
        fit(broken_off(5), module)


def test_pickle_file_as_checkpoint_is_refused(config, fit, evil, tmp_path):
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(pickle.dumps(evil))
    with pytest.raises(InputError, match="pickles are not opened"):
        fit(replace(config, resume_from_checkpoint=str(path)))
    assert not evil.marker.exists()


@pytest.mark.parametrize("name", [checkpoints.WEIGHTS, checkpoints.AVERAGES, checkpoints.OPTIMIZER])
@pytest.mark.parametrize("save", [torch.save, lambda evil, path: path.write_bytes(pickle.dumps(evil, 2))])
def test_pickle_in_a_checkpoint_is_refused(config, fit, broken_off, evil, tmp_path, name, save):
    resumed = broken_off(5)
    save(evil, tmp_path / "run" / "checkpoint-4" / name)
    with pytest.raises(InputError, match="checkpoint-4 .*not opened"):
        fit(resumed)
    assert not evil.marker.exists()


@pytest.mark.parametrize("name", ["random_states_0.pkl", "custom_checkpoint_0.pkl", "pytorch_model.bin"])
def test_pickle_of_accelerate_in_a_checkpoint_is_not_opened(config, fit, broken_off, evil, tmp_path, name):
    resumed = broken_off(5)
    torch.save(evil, tmp_path / "run" / "checkpoint-4" / name)
    fit(resumed)
    assert not evil.marker.exists()


def test_checkpoint_files(config, fit, tmp_path):
    fit(config)
    expected = sorted((checkpoints.WEIGHTS, checkpoints.AVERAGES, checkpoints.OPTIMIZER, checkpoints.MARKER))
    assert names(complete_checkpoints(tmp_path / "run")[-1]) == expected


def test_only_the_newest_checkpoints_are_kept(config, fit, tmp_path):
    fit(replace(config, checkpointing_steps=1, checkpoints_total_limit=3))
    kept = [path.name for path in complete_checkpoints(tmp_path / "run")]
    assert kept == ["checkpoint-4", "checkpoint-5", "checkpoint-6"]


def test_the_best_checkpoint_is_kept(config, fit, tmp_path):
    class Judged(Toy):
        losses = iter([9.0, 5.0, 2.0, 3.0, 2.0, 4.0, 7.0])

        def validate(self):
            return {"loss": next(self.losses)}, *super().validate()[1:]

    fit(replace(config, checkpointing_steps=1, validation_steps=1, checkpoints_total_limit=1), Judged())
    kept = complete_checkpoints(tmp_path / "run")
    assert [path.name for path in kept] == ["checkpoint-4", "checkpoint-6"]
    assert checkpoints.best_checkpoint(tmp_path / "run") == kept[0]
