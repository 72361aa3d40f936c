"""EnCodec as ONE stream of continuous latents, and the conditioner, a trainable copy of its encoder.

`encode` and `decode` bypass EnCodec's quantiser and its one-second chunks: a chunk border would be audible,
and a diffusion model samples continuous values. Latents are half whitened (`Normalization`); the statistics
belong to the codec and lie with its weights.
"""

import inspect
import math

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin  # the pipeline loader looks for it beside the class
from encodec.modules import SEANetDecoder, SEANetEncoder

from dmxlib.codec import fast
from dmxlib.errors import InputError
from dmxlib.weights import Saved


class Normalization(torch.nn.Module):
    """A linear map of latents (batch, dimension, F), fitted to some; the identity until it is. The map is
    what is saved, and so it is the same class for both kinds:

    - "range", the paper's: each channel from -1 to 1 about its mean, but for one frame in a thousand. Up to
      the farthest frame, a channel's deviation is a twelfth, and noise of variance 1 leaves nothing of it.
    - "half-whitened", ours: zero mean and a mean variance of 1. A codec keeps most of its latents' variance
      in a few directions. Left alone they are all that a squared error learns; whitened, it learns as much of
      the noise in the least. This is half way: every direction is divided by the root of its deviation.
    """

    def __init__(self, dimension: int):
        super().__init__()
        self.register_buffer("mean", torch.empty(dimension, 1))
        self.register_buffer("scale", torch.empty(dimension, dimension))
        self.reset()

    def reset(self) -> None:
        """Back to the identity."""
        self.mean.zero_()
        self.scale.copy_(torch.eye(len(self.scale)))

    @property
    def fitted(self) -> bool:
        """Whether `fit` was called, here or before a file was saved."""
        return not torch.equal(self.scale.cpu(), torch.eye(len(self.scale)))

    def fit(self, latents: torch.Tensor, kind: str = "half-whitened") -> None:
        """Take the statistics of raw latents (dimension, frames). Raises InputError for an unknown kind."""
        self.mean.copy_(latents.mean(1, keepdim=True))
        if kind == "range":
            far = max(1, latents.shape[1] // 1000)
            extent = (latents - self.mean).abs().topk(far, dim=1).values[:, -1]
            self.scale.copy_(extent.clamp(min=1e-6).diag())
            return
        if kind != "half-whitened":
            raise InputError(f"normalization '{kind}' is unknown; choose half-whitened or range.")
        variances, axes = torch.linalg.eigh(latents.cov())
        # a direction that a short excerpt leaves empty would be divided by nothing
        deviations = variances.clamp(min=1e-6 * variances.max()).sqrt()
        self.scale.copy_(axes * (deviations.sqrt() * deviations.mean().sqrt()) @ axes.T)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """Raw latents, as the encoder gives them -> normalised ones."""
        return torch.linalg.solve(self.scale, latents - self.mean)

    def inverse(self, latents: torch.Tensor) -> torch.Tensor:
        """Normalised latents -> raw ones, as the decoder and the quantiser take them."""
        return self.scale @ latents + self.mean


class LatentEncoder(Saved, ModelMixin, ConfigMixin):
    """EnCodec's encoder, with normalised latents: what the codec and the conditioner have in common.

    Args:
        seanet: keywords of `encodec.modules.SEANetEncoder` and `SEANetDecoder`.
        normalize: divide the excerpt's loudness out first, as EnCodec's 48 kHz model does. Group
            normalisation loses it anyway, and its epsilon would make quiet voices differ.
    """

    @register_to_config
    def __init__(self, seanet: dict, normalize: bool = True):
        super().__init__()
        self.encoder = SEANetEncoder(**seanet)
        self.normalization = Normalization(self.encoder.dimension)

    @property
    def hop_length(self) -> int:
        """Samples per latent frame."""
        return math.prod(self.config.seanet["ratios"])

    def _raw(self, wave: torch.Tensor) -> torch.Tensor:
        return _run(self.encoder, unit_rms(wave) if self.config.normalize else wave)

    def encode(self, wave: torch.Tensor) -> torch.Tensor:
        """(batch, channels, T) -> normalised latents (batch, dimension, ceil(T / hop_length))."""
        return self.normalization(self._raw(wave))


class Conditioner(LatentEncoder):
    """The encoder that the mixture goes through: a copy of the codec's, which may learn."""

    forward = LatentEncoder.encode


class Codec(LatentEncoder):
    """An EnCodec autoencoder on normalised continuous latents.

    Args:
        sampling_rate: in Hz; the number of channels is the seanet's.
        seanet, normalize: as in `LatentEncoder`.
    """

    _keys_to_ignore_on_load_unexpected = ["quantizer"]  # of a folder that `QuantizedCodec` reads whole

    @register_to_config
    def __init__(self, sampling_rate: int, seanet: dict, normalize: bool = True):
        super().__init__(seanet=seanet, normalize=normalize)
        self.decoder = SEANetDecoder(**seanet)

    @classmethod
    def from_config(cls, config, **kwargs):
        """As `ConfigMixin` does; the quantiser's sizes in the config are left to the class that has one."""
        foreign = {"n_q", "bins"} - inspect.signature(cls).parameters.keys()
        return super().from_config({key: config[key] for key in config if key not in foreign}, **kwargs)

    @property
    def channels(self) -> int:
        """Audio channels: 1 codes the mid of a stereo signal."""
        return self.encoder.channels

    @property
    def dimension(self) -> int:
        """Latent channels."""
        return self.encoder.dimension

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Normalised latents (batch, dimension, F) -> waves (batch, channels, F * hop_length).

        With `normalize`, their loudness says nothing: the level has to come from elsewhere (`dmxlib.level`).
        """
        return _run(self.decoder, self.normalization.inverse(latents))

    @torch.no_grad()
    def calibrate(self, waves, kind: str = "half-whitened") -> None:
        """Fit the normalisation, as the kind that `Normalization` names, to an iterable of waves (batch,
        channels, T)."""
        latents = [self._raw(wave).transpose(0, 1).flatten(1) for wave in waves]
        self.normalization.fit(torch.cat(latents, dim=1), kind)

    def conditioner(self) -> Conditioner:
        """A trainable copy of the encoder, sharing no tensor with the codec."""
        conditioner, state = Conditioner(self.config.seanet, self.config.normalize), self.state_dict()
        conditioner.load_state_dict({name: state[name] for name in conditioner.state_dict()})
        return conditioner


def _run(seanet, x):
    """The package's forward; `fast`'s where nothing is learned, on a processor."""
    learning = seanet.training or torch.is_grad_enabled()
    return seanet(x) if learning or x.device.type != "cpu" else fast.forward(seanet, x)


def unit_rms(wave: torch.Tensor) -> torch.Tensor:
    """Divide each excerpt (batch, channels, T) by its mid's RMS, as EnCodec does; -80 dBFS is silence."""
    return wave / mid_rms(wave).clamp(min=1e-4)


def mid_rms(wave: torch.Tensor) -> torch.Tensor:
    """RMS of each excerpt's mid, (batch, channels, T) -> (batch, 1, 1): the scale EnCodec sends along."""
    return wave.mean(dim=1, keepdim=True).square().mean(dim=2, keepdim=True).sqrt()
