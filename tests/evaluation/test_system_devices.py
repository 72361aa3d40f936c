"""Every system separates on the device it is told, one of tensors without values.

It is torch's "lazy": gradients on "cuda", which two systems take as they separate, ask for its driver.
"""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, ModelMixin
from torch._subclasses.fake_tensor import FakeTensorMode

from dmxlib import baselines
from dmxlib.baselines import msgld
from dmxlib.codec.load import load_codec
from dmxlib.data import load_tracks
from dmxlib.evaluation.systems import Options, load_pipeline, make_system
from dmxlib.metrics import external

SMALL = {
    "bsrnn": {"features": 8, "pairs_of_layers": 1, "hop": 512, "chunk_samples": 16_384},
    "hdemucs": {"width": 4, "chunk_samples": 44_100},
    "instglow": {"blocks": 1, "hidden": 4, "chunk_samples": 65_536},
    "msdm": {
        "patch": 16, "level_channels": [8, 8], "blocks_per_level": 1, "attention_from": 1,
        "fourier_channels": 8, "time_channels": 8, "chunk_samples": 4096,
    },
}  # fmt: skip
DEVICE = "lazy:0"
CLASSES = {name: baselines.load(name) for name in SMALL}


@pytest.fixture
def gpu(monkeypatch):
    """The mode in which a tensor knows its device and has no values; a machine needs no GPU for it.

    `to` moves what a module registers, as CUDA would; what it forgets stays on the processor and does not
    mix. What such tensors cannot do (hold a number, run cuDNN) gives zeros of the right device and shape.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)

    def to(module, device, *args, **kwargs):
        for part in module.modules():
            for table in (part._parameters, part._buffers):
                for key, tensor in table.items():
                    if tensor is not None:
                        with mode:
                            moved = tensor.detach().to(device)
                        is_weight = key in part._parameters
                        table[key] = torch.nn.Parameter(moved) if is_weight else moved
        return module

    def numpy(tensor):
        assert tensor.device.type == "cpu"
        return np.full(tensor.shape, 0.1, np.float32)

    def lstm(module, x, state=None):
        assert x.device == module.weight_ih_l0.device
        return x.new_zeros(*x.shape[:-1], module.hidden_size * (1 + module.bidirectional)), None

    def istft(spectrum, *args, window, length, **settings):
        assert spectrum.device == window.device
        return spectrum.real.new_zeros(*spectrum.shape[:-2], length)

    def step(scheduler, v, timestep, sample, **settings):
        return SimpleNamespace(prev_sample=sample - v * (timestep > 0))

    class Generator(torch.Generator):  # another device's is None, which makes no difference to zeros
        def __new__(cls, device="cpu"):
            generator = super().__new__(cls)
            generator.on_cpu = torch.device(device).type == "cpu"
            return generator

        def manual_seed(self, seed):
            super().manual_seed(seed)
            return self if self.on_cpu else None

    for owner, name, stub in (
        (torch.nn.Module, "to", to),
        (ModelMixin, "to", to),
        (torch.Tensor, "numpy", numpy),
        (torch.Tensor, "tolist", lambda tensor: [1] * len(tensor)),
        (torch.Tensor, "item", lambda tensor: 1),
        (torch.nn.LSTM, "forward", lstm),
        (torch, "istft", istft),
        (torch, "Generator", Generator),
        (DDIMScheduler, "step", step),
    ):
        monkeypatch.setattr(owner, name, stub)
    return mode


@pytest.mark.filterwarnings("ignore:Accessing the data pointer")
@pytest.mark.parametrize("name", [*SMALL, "instglow-refined", "msdm-refined"])
def test_a_baseline_separates_on_its_device(name, tmp_path, toy_root, gpu):
    raw = name.removesuffix("-refined")
    CLASSES[raw](**SMALL[raw]).save_pretrained(tmp_path)
    separates(name, tmp_path, toy_root, gpu)


@pytest.mark.filterwarnings("ignore:Accessing the data pointer")
@pytest.mark.parametrize("name", ["ldm-dmx@2", "ldm-dmx-refined", "codec-ceiling"])
def test_ldm_dmx_separates_on_its_device(name, model_folder, toy_root, gpu):
    separates(name, model_folder, toy_root, gpu)


@pytest.mark.filterwarnings("ignore:Accessing the data pointer")
@pytest.mark.parametrize("name", ["msgld@2", "msgld-refined@2"])
def test_msgld_separates_on_its_device(name, codec_folder, tmp_path, toy_root, gpu, monkeypatch):
    """Its codec, which it does not hold, goes with it."""
    codec = load_codec(str(codec_folder))
    monkeypatch.setattr(msgld, "load_codec", lambda name: codec)
    sizes = {key: SMALL["msdm"][key] for key in ("level_channels", "fourier_channels", "time_channels")}
    sizes |= {"blocks_per_level": 1, "attention_from": 1, "latent_channels": 16, "chunk_samples": 32 * 320}
    msgld.MSGLD("none", **sizes).save_pretrained(tmp_path)
    separates(name, tmp_path, toy_root, gpu)
    assert codec.device == torch.device(DEVICE)


@pytest.mark.filterwarnings("ignore:Accessing the data pointer")
def test_a_pair_separates_on_its_device(model_folder, tmp_path, toy_root, gpu):
    """What dmxlib.separate and the evaluation take by default."""
    CLASSES["bsrnn"](**SMALL["bsrnn"]).save_pretrained(tmp_path / "guide")
    names = {"separator": str(model_folder), "guide": str(tmp_path / "guide"), "guide_share": 0.5}
    (tmp_path / "ensemble.json").write_text(json.dumps(names | {"exponent": 1.25}))
    separates("ldm-dmx-guided", tmp_path, toy_root, gpu)


def separates(name, folder, toy_root, mode):
    """The system of a folder gives a voice of the song's shape."""
    (track,) = load_tracks(toy_root, "test")
    system = make_system(name, Options(str(folder), steps=2, device=DEVICE))
    with mode:
        assert system.separate(track).shape == (2, track.samples)


@pytest.mark.filterwarnings("ignore:Accessing the data pointer")
def test_latent_distance_is_measured_on_the_codecs_device(model_folder, rng, gpu):
    codec = load_pipeline(Options(str(model_folder), device=DEVICE)).codec
    assert codec.device == torch.device(DEVICE)
    wave = rng.standard_normal((2, 44_100)).astype(np.float32)
    with gpu:
        assert external.latent_distance(wave, 0.5 * wave, 44_100, codec, 64 * codec.hop_length) == 1
