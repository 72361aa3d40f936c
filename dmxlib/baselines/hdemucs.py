"""H-Demucs: hybrid spectrogram and wave U-Net (Defossez 2021), the implementation of torchaudio.

The paper fixes the network (48 channels doubled at each of six levels, window 4096, 44.1 kHz stereo), which
torchaudio builds, and the L1 loss of the waves. Ours: two sources, [vocals, accompaniment], in place of four,
and the excerpts' length. 83.6 M parameters at 48 channels; the LDM-dmx paper's column says 346 M, which no
size of this network gives (four of them have 334.6 M).
"""

from dataclasses import dataclass
from functools import partial

import torch
from diffusers.configuration_utils import register_to_config
from torch.nn import functional as F
from torchaudio import models, pipelines

from dmxlib.baselines import base
from dmxlib.baselines.base import Baseline, BaselineConfig
from dmxlib.config import setting
from dmxlib.errors import InputError
from dmxlib.streaming import bfloat16

OFFICIAL = {  # torchaudio's bundles, by what `from_pretrained` calls them
    "torchaudio:HDEMUCS_HIGH_MUSDB": "trained on MUSDB18-HQ's training songs",
    "torchaudio:HDEMUCS_HIGH_MUSDB_PLUS": "trained on its test songs too, and 150 more",
}


@dataclass
class TrainConfig(BaselineConfig):
    """Settings of a training run."""

    system: str = setting("hdemucs", "what is trained")
    width: int = setting(48, "channels of the first level")
    window: int = setting(4096, "samples of the STFT")
    chunk_samples: int = setting(485_100, "samples of an excerpt and channel")
    sampling_rate: int = setting(44_100, "in Hz")
    channels: int = setting(2, "audio channels", most=2)


class HDemucs(Baseline):
    """torchaudio's `HDemucs` at 44.1 kHz stereo.

    Args:
        width: channels of the first level.
        window: samples of its STFT; the paper's is 4096 at 44.1 kHz.
        sources: what it separates; "vocals" is one of them.
    """

    @register_to_config
    def __init__(
        self,
        width: int,
        chunk_samples: int,
        sources: tuple[str, ...] = ("vocals", "accompaniment"),
        window: int = 4096,
        sampling_rate: int = 44_100,
        channels: int = 2,
        target: str = "vocals",
    ):
        super().__init__()
        self.network = models.HDemucs(list(sources), channels, width, nfft=window)
        # torchaudio makes this norm and never calls it; a gradient that never comes would stop DDP
        self.network.time_encoder[-1].norm1.requires_grad_(False)

    @classmethod
    def from_pretrained(cls, folder, **kwargs):
        """Load a folder as `Baseline` does, or official weights by a name of OFFICIAL, fetched once.

        They are a pickle, which `get_model` opens by torch's default: weights only, no code.
        """
        if str(folder) not in OFFICIAL:
            return super().from_pretrained(folder, **kwargs)
        try:
            official = getattr(pipelines, folder.partition(":")[2]).get_model()
        except Exception as error:  # offline, cut off, damaged: many kinds of error, one answer
            raise InputError(
                "the official weights of H-Demucs are not on this machine and cannot be fetched from "
                f"torchaudio's address ({type(error).__name__}); go on-line once, or train a model."
            ) from error
        model = cls(TrainConfig.width, TrainConfig.chunk_samples, official.sources)
        model.network.load_state_dict(official.state_dict())
        return model.eval()

    def loss(self, vocals, accompaniment, generator):
        """L1 of the waves, the mean over the two sources."""
        return F.l1_loss(self.network(vocals + accompaniment), torch.stack([vocals, accompaniment], dim=1))

    def extract(self, mixture, steps, generator):
        """One pass."""
        with bfloat16(self.device):
            estimates = self.network(mixture)  # (batch, sources, channels, T)
        return estimates[:, list(self.config.sources).index("vocals")]


make_training = partial(base.make_training, HDemucs)
