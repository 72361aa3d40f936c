"""What the tests share: a small prepared data set, a tiny codec and a tiny system, one thread, no network."""

import os
import socket
import subprocess
import sys

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported: a name that is unknown stays so

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState, GradientState

from dmxlib import audio, streaming
from dmxlib.codec import Codec
from dmxlib.codec.load import OFFICIAL
from dmxlib.codec.quantizer import QuantizedCodec
from dmxlib.data.sets.toy import render_song
from dmxlib.diffusion import make_scheduler
from dmxlib.pipeline import VocalSeparationPipeline
from dmxlib.unet import VocalUNet1D

RATE, SECONDS = 44_100, 6.0
# of commands that tests start: this code first, then what the tests themselves were given
SEARCHED = os.pathsep.join(
    [os.path.dirname(os.path.dirname(__file__)), *filter(None, [os.environ.get("PYTHONPATH")])]
)
ENVIRONMENT = {**os.environ, "PYTHONPATH": SEARCHED, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
ENCODEC = {  # EnCodec's two architectures, narrow
    name: dict(
        official,
        seanet=dict(official["seanet"], n_filters=2, dimension=8, ratios=[4, 2]),
        n_q=2,
        bins=16,
    )
    for name, official in OFFICIAL.items()
}


def pytest_collection_modifyitems(items):
    """`pytest -m gpu` runs what compares a GPU with the processor, where there is one."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="there is no GPU"))


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """The same sums on every machine, and no fight for cores with the DataLoader's workers."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming, "BFLOAT16", False)
        yield


@pytest.fixture
def rng():
    """A numpy generator, the same for every test."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def toy_root(tmp_path_factory):
    """A data set in the layout of MUSDB18-HQ: three toy songs to train on, one to test on, 6 s each."""
    root = tmp_path_factory.mktemp("toy")
    for seed, split in enumerate(("train", "train", "train", "test")):
        vocals, accompaniment = render_song(seed, SECONDS, RATE)
        folder = root / split / f"Toy Song {seed}"
        audio.write(folder / "mixture.wav", vocals + accompaniment, RATE)
        audio.write(folder / "vocals.wav", vocals, RATE)
    return root


def make_codec(rate):
    """A calibrated codec with random weights: mono, hop 320, 16 latent channels."""
    seanet = dict(channels=1, dimension=16, n_filters=4, ratios=[5, 4, 4, 4], norm="time_group_norm")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        codec = Codec(sampling_rate=rate, seanet=seanet).eval()
        codec.calibrate(torch.randn(1, 1, 320 * 64) for _ in range(4))
    return codec


@pytest.fixture(scope="session")
def quantized_codec(tiny_codec):
    """The tiny codec with four codebooks of 32 random entries."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        codec = QuantizedCodec.from_config(tiny_codec.config, n_q=4, bins=32)
    codec.load_state_dict(tiny_codec.state_dict(), strict=False)
    return codec.eval()


@pytest.fixture(scope="session")
def codec_folder(quantized_codec, tmp_path_factory):
    """It, as `save_pretrained` writes it."""
    folder = tmp_path_factory.mktemp("models") / "codec"
    quantized_codec.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_codec():
    """A calibrated codec with random weights: 24 kHz mono, hop 320, 16 latent channels."""
    return make_codec(24_000)


def same_weights(a, b):
    """Whether two modules hold the same tensors."""
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def make_pipeline(codec):
    """A system with random weights, 64 frames a chunk."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = VocalUNet1D(
            latent_channels=codec.dimension + 1,
            condition_channels=codec.dimension,
            level_channels=(16, 16, 16),
            blocks_per_level=1,
            first_injection=0,
            attention_from=2,
            fourier_channels=16,
            time_channels=16,
        )
    return VocalSeparationPipeline(codec, codec.conditioner(), unet, make_scheduler(), chunk_frames=64)


@pytest.fixture(scope="session")
def tiny_pipeline(tiny_codec):
    """A system with random weights: chunks of 0.85 s at 24 kHz mono."""
    return make_pipeline(tiny_codec)


@pytest.fixture(scope="session")
def model_folder(tiny_pipeline, tmp_path_factory):
    """The tiny system as `save_pretrained` writes it."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_pipeline.save_pretrained(folder)
    return folder


def separate(model, mixture, rate, steps=None, seed=0):
    """A system's vocals of a mixture (channels, samples), with noise that follows from a seed."""
    generator = torch.Generator().manual_seed(seed)
    return model(mixture, rate, num_inference_steps=steps, generator=generator).vocals


def reset_accelerate():
    """Accelerate keeps its settings for the process; a run in a test has to start without them."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@pytest.fixture
def fresh_accelerate():
    """Every run of a test starts without the last one's settings."""
    reset_accelerate()
    yield reset_accelerate
    reset_accelerate()


def start_launch(*words, machines=1):
    """`accelerate launch` of two processes, on as many machines, all of them this one: its launchers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**ENVIRONMENT, "ACCELERATE_USE_CPU": "true"}  # with --cpu it would start one process
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    command += ["--num_machines", machines, "--main_process_ip", "127.0.0.1", "--main_process_port", port]
    return [
        subprocess.Popen(
            [*map(str, [*command, "--machine_rank", rank, *words])],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(machines)
    ]


def launch(*words, machines=1):
    """`start_launch` to its end: the greatest exit code, and what the launchers told."""
    launchers = start_launch(*words, machines=machines)
    try:
        told = "".join(launcher.communicate(timeout=600)[1] for launcher in launchers)
    finally:
        for launcher in launchers:
            launcher.terminate()  # with its processes, where one hangs
    return max(launcher.returncode for launcher in launchers), told


class Evil:
    """What leaves a marker where it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


@pytest.fixture
def evil(tmp_path):
    """A pickled object, and a test's way to tell that nobody opened it: `evil.marker` does not exist."""
    return Evil(tmp_path / "the pickle was opened")
