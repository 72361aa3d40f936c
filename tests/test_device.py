"""A device by its name: what there is of it on machines of several kinds."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from conftest import SEARCHED

from dmxlib.device import cores, find_device, prefer_speed
from dmxlib.errors import InputError
from dmxlib.training.loop import TrainerConfig, make_accelerator


@pytest.fixture
def machine(monkeypatch):
    """Make torch say what a machine has: `machine(gpus=2)`."""

    def has(cuda_built=True, gpus=0, mps_built=False, mps=False):
        monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: cuda_built)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.backends.mps, "is_built", lambda: mps_built)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return has


def test_what_there_is_is_found(machine):
    machine(gpus=2)
    for name in ("cpu", "cuda", "cuda:0", "cuda:1"):
        assert find_device(name) == torch.device(name)
    assert find_device() == torch.device("cuda")
    machine(mps_built=True, mps=True)
    assert find_device("mps") == torch.device("mps")
    assert find_device() == torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "has", "words"),
    [
        ("cuda", dict(cuda_built=False), "torch with CUDA"),
        ("cuda:1", dict(cuda_built=False), "torch with CUDA"),
        ("cuda", dict(), "NVIDIA GPU and its driver"),
        ("cuda:2", dict(gpus=2), "end with cuda:1"),
        ("mps", dict(), "needs a Mac"),
        ("mps", dict(mps_built=True), "macOS"),
        ("abacus", dict(gpus=1), "unknown"),
        ("cuda:one", dict(gpus=1), "unknown"),
        ("cuda:-1", dict(gpus=1), "unknown"),
        ("lazy", dict(gpus=1), "unknown"),
    ],
)
def test_what_is_lacking_is_one_sentence(machine, name, has, words):
    machine(**has)
    with pytest.raises(InputError, match=words) as told:
        find_device(name)
    text = str(told.value)
    assert name in text and text.endswith(".") and text.count(". ") == 0


def test_a_macs_fallback_is_on_before_torch_is_loaded():
    """torch reads it once."""
    code = (
        "import sys, dmxlib, os; assert 'torch' not in sys.modules; "
        "print(os.environ['PYTORCH_ENABLE_MPS_FALLBACK'])"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTORCH_ENABLE_MPS_FALLBACK"}
    environment["PYTHONPATH"] = SEARCHED
    assert subprocess.check_output([sys.executable, "-c", code], env=environment, text=True).strip() == "1"


@pytest.fixture
def settings(monkeypatch):
    """The places that torch keeps its speed in, as they are without us."""
    matmul, cudnn = SimpleNamespace(allow_tf32=False), SimpleNamespace(allow_tf32=False, benchmark=False)
    monkeypatch.setattr(torch.backends.cuda, "matmul", matmul)
    monkeypatch.setattr(torch.backends, "cudnn", cudnn)
    yield lambda: (matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark)
    torch.use_deterministic_algorithms(False)


def test_a_gpu_is_fast_unless_determinism_is_asked_for(settings):
    torch.use_deterministic_algorithms(True)
    prefer_speed()
    assert settings() == (False, False, False)
    torch.use_deterministic_algorithms(False)
    prefer_speed()
    assert settings() == (True, True, True)


@pytest.mark.usefixtures("fresh_accelerate")
@pytest.mark.parametrize("deterministic", [False, True])
def test_a_training_asks_for_it_by_a_key(settings, deterministic):
    make_accelerator(TrainerConfig(deterministic=deterministic))
    assert settings() == (not deterministic,) * 3
    assert torch.are_deterministic_algorithms_enabled() == deterministic


def test_cores_are_those_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert cores() == 2
    monkeypatch.delattr(os, "sched_getaffinity")  # as on a Mac
    assert cores() == 64
