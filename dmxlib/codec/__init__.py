"""EnCodec as ONE stream of continuous latents, and the conditioner, a trainable copy of its encoder.

`encode` and `decode` bypass EnCodec's quantiser and its one-second chunks: a chunk border would be audible,
and a diffusion model draws continuous values. Latents are half whitened (`Normalization`); the statistics
belong to the codec and lie with its weights.
"""

import contextlib
import hashlib
import math
import re
from pathlib import Path

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin  # the pipeline loader looks for it beside the class
from encodec.model import ROOT_URL
from encodec.modules import SEANetDecoder, SEANetEncoder
from encodec.quantization import ResidualVectorQuantizer
from safetensors import SafetensorError
from safetensors.torch import load_file
from tqdm import tqdm

from dmxlib.codec import fast as fast_codec
from dmxlib.errors import InputError
from dmxlib.weights import find


class Normalization(torch.nn.Module):
    """Latents (batch, dimension, F) of zero mean and a mean variance of 1, half whitened; the identity until
    it is fitted.

    A codec keeps most of its latents' variance in a few directions. Left alone they are all that a squared
    error learns; whitened, it learns as much of the noise in the least. This is half way: every direction is
    divided by the square root of its deviation.
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

    def fit(self, latents: torch.Tensor) -> None:
        """Take the statistics of raw latents (dimension, frames)."""
        variances, axes = torch.linalg.eigh(latents.cov())
        # a direction that a short excerpt leaves empty would be divided by nothing
        deviations = variances.clamp(min=1e-6 * variances.max()).sqrt()
        self.mean.copy_(latents.mean(1, keepdim=True))
        self.scale.copy_(axes * (deviations.sqrt() * deviations.mean().sqrt()) @ axes.T)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """Raw latents, as the encoder gives them -> normalised ones."""
        return torch.linalg.solve(self.scale, latents - self.mean)

    def inverse(self, latents: torch.Tensor) -> torch.Tensor:
        """Normalised latents -> raw ones, as the decoder and the quantiser take them."""
        return self.scale @ latents + self.mean


class Conditioner(ModelMixin, ConfigMixin):
    """EnCodec's encoder, with normalised latents.

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

    forward = encode


class Codec(Conditioner):
    """An EnCodec autoencoder on normalised continuous latents, with its residual vector quantiser on request.

    Args:
        sampling_rate: in Hz; the number of channels is the seanet's.
        n_q, bins: codebooks of the quantiser, and entries in each.
        seanet, normalize: as in `Conditioner`.
    """

    @register_to_config
    def __init__(
        self,
        sampling_rate: int,
        seanet: dict,
        n_q: int = 16,
        bins: int = 1024,
        normalize: bool = True,
    ):
        super().__init__(seanet, normalize)
        self.decoder = SEANetDecoder(**seanet)
        # Its codebooks are fitted or loaded: EnCodec's moving average redraws every code that is chosen less
        # than twice a batch, and in small batches that is each of them; a tenth of the entries were in use.
        self.quantizer = ResidualVectorQuantizer(self.encoder.dimension, n_q, bins, kmeans_init=False)

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

    def quantize(self, latents: torch.Tensor, n_q: int | None = None) -> torch.Tensor:
        """Normalised latents -> integer codes (batch, n_q, F) of the first `n_q` codebooks (None: all)."""
        return self.quantizer.vq.encode(self.normalization.inverse(latents), n_q=n_q).transpose(0, 1)

    def dequantize(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes (batch, n_q, F) -> normalised latents (batch, dimension, F)."""
        return self.normalization(self.quantizer.decode(codes.transpose(0, 1)))

    @torch.no_grad()
    def calibrate(self, waves) -> None:
        """Fit the normalisation to an iterable of waves (batch, channels, T)."""
        self.normalization.fit(
            torch.cat([self._raw(wave).transpose(0, 1).flatten(1) for wave in waves], dim=1)
        )

    @torch.no_grad()
    def fit_quantizer(self, waves, seed: int = 0) -> None:
        """Learn the codebooks from an iterable of waves (batch, channels, T): each by k-means on what those
        before it leave of the latents.

        Raises InputError for fewer latent frames than a codebook has entries.
        """
        from sklearn.cluster import MiniBatchKMeans  # a second to import

        latents = [self._raw(wave).transpose(1, 2).flatten(0, 1).cpu() for wave in waves]
        residual = torch.cat(latents).numpy()
        bins = self.config.bins
        if len(residual) < bins:
            raise InputError(f"{len(residual)} latent frames cannot fill {bins} codes; give more audio.")
        for layer in tqdm(self.quantizer.vq.layers, desc="fit codebooks", unit="codebook", disable=None):
            means = MiniBatchKMeans(
                bins, init="random", batch_size=4096, max_iter=10, n_init=1, random_state=seed
            )
            nearest = means.fit_predict(residual)
            residual = residual - means.cluster_centers_[nearest]
            for buffer in (layer._codebook.embed, layer._codebook.embed_avg):
                buffer.copy_(torch.from_numpy(means.cluster_centers_))

    def conditioner(self) -> Conditioner:
        """A trainable copy of the encoder, sharing no tensor with the codec."""
        conditioner, state = Conditioner(self.config.seanet, self.config.normalize), self.state_dict()
        conditioner.load_state_dict({name: state[name] for name in conditioner.state_dict()})
        return conditioner

    @classmethod
    def load(cls, name: str) -> "Codec":
        """The codec that ships, "encodec-mini", a saved folder, or what `from_encodec` takes."""
        folder = find(name, "config.json")
        if folder:
            return cls.from_pretrained(folder, low_cpu_mem_usage=False).eval()
        return cls.from_encodec(name)

    @classmethod
    def from_encodec(cls, source: str) -> "Codec":
        """The official weights of "48khz" or "24khz", or those of a local .safetensors or .th file.

        A name is looked up on the Hugging Face hub (facebook/encodec_48khz), then at EnCodec's own address.
        Its latents are not calibrated: `python -m dmxlib.train_codec --init 48khz --max_train_steps 0` does
        that.

        Raises InputError where there is no such file, no connection, or a file with other weights.
        """
        path = _download(source) if source in OFFICIAL else Path(source)
        if not path.is_file():
            raise InputError(
                f"{path} does not exist; give '48khz', '24khz', or a .safetensors or .th file of them."
            )
        load = _load_th if path.suffix == ".th" else _load_hugging_face
        for official in OFFICIAL.values():
            codec = cls(**official)
            try:
                codec.load_state_dict(load(path, codec) | codec.normalization.state_dict(prefix=OURS))
                return codec.eval()
            except (KeyError, RuntimeError, TypeError):  # the other model's names or shapes, or no weights
                continue
        raise InputError(f"{path} does not hold the weights of EnCodec's 48 kHz or 24 kHz model.")


def _run(seanet, x):
    """The package's forward; `fast_codec`'s where nothing is learned, on a processor."""
    learning = seanet.training or torch.is_grad_enabled()
    return seanet(x) if learning or x.device.type != "cpu" else fast_codec.forward(seanet, x)


def unit_rms(wave: torch.Tensor) -> torch.Tensor:
    """Divide each excerpt (batch, channels, T) by its mid's RMS, as EnCodec does; -80 dBFS is silence."""
    return wave / mid_rms(wave).clamp(min=1e-4)


def mid_rms(wave: torch.Tensor) -> torch.Tensor:
    """RMS of each excerpt's mid, (batch, channels, T) -> (batch, 1, 1): the scale EnCodec sends along."""
    return wave.mean(dim=1, keepdim=True).square().mean(dim=2, keepdim=True).sqrt()


# What `EncodecModel.encodec_model_48khz` and `encodec_model_24khz` build.
OFFICIAL = {
    "48khz": {
        "sampling_rate": 48_000,
        "seanet": {"channels": 2, "norm": "time_group_norm", "causal": False, "ratios": [8, 5, 4, 2]},
        "n_q": 16,
        "normalize": True,
    },
    "24khz": {
        "sampling_rate": 24_000,
        "seanet": {"channels": 1, "norm": "weight_norm", "causal": True, "ratios": [8, 5, 4, 2]},
        "n_q": 32,
        "normalize": False,
    },
}
OURS = "normalization."  # the tensors that no official file has
TH_FILES = {"48khz": "encodec_48khz-7e698e3e.th", "24khz": "encodec_24khz-d7cc33bc.th"}


def _download(name: str) -> Path:
    from huggingface_hub import hf_hub_download

    with contextlib.suppress(Exception):  # offline, or a hub that is down: many kinds of error, one answer
        return Path(hf_hub_download(f"facebook/encodec_{name}", "model.safetensors"))
    path = Path(torch.hub.get_dir()) / "checkpoints" / TH_FILES[name]
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(ROOT_URL + TH_FILES[name], path)
        except OSError as error:
            raise InputError(
                f"EnCodec's {name} weights are not on this machine and cannot be fetched; download "
                f"model.safetensors of huggingface.co/facebook/encodec_{name} elsewhere and give its path."
            ) from error
    return path


def _load_th(path: Path, codec: Codec) -> dict:
    """EnCodec's own file: a pickle, so its checksum (in its name, as published) first, then weights only."""
    checksum = path.stem.rpartition("-")[2]
    if len(checksum) < 8 or not hashlib.sha256(path.read_bytes()).hexdigest().startswith(checksum):
        raise InputError(
            f"{path} is damaged: its SHA-256 does not begin as its name ends; download it again."
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # bytes that are no pickle can raise anything
        raise InputError(f"{path} is a pickle of something else than weights; it is not opened.") from error


def _load_hugging_face(path: Path, codec: Codec) -> dict:
    """The same weights under the names of the Hugging Face port."""
    try:
        state = load_file(path)
    except SafetensorError as error:
        raise InputError(f"{path} is no safetensors file; pickled weights are not opened.") from error
    names = [name for name in codec.state_dict() if not name.startswith(OURS)]
    return {name: state[hugging_face_name(name)] for name in names}


def hugging_face_name(name: str) -> str:
    """The package's parameter name -> that of the Hugging Face port; one to one."""
    name = re.sub(r"\.(conv|convtr)\.(conv|convtr)\.", ".conv.", name)
    name = re.sub(r"\.(conv|convtr)\.norm\.", ".norm.", name)
    name = re.sub(r"coder\.model\.(\d+)\.", r"coder.layers.\1.", name)
    return re.sub(r"quantizer\.vq\.layers\.(\d+)\._codebook\.", r"quantizer.layers.\1.codebook.", name)
