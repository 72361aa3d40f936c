"""`VocalSeparationPipeline`: mixture in, vocals out; audio of any length, in chunks of one fixed length."""

from pathlib import Path

import torch
from diffusers import DDIMScheduler, DiffusionPipeline
from diffusers.models.modeling_utils import ModelMixin  # noqa: F401  the loader of custom components looks for it
from diffusers.utils.torch_utils import randn_tensor

from dmxlib.codec import Codec, Conditioner
from dmxlib.diffusion import check_steps
from dmxlib.errors import InputError
from dmxlib.level import decode_pair, encode_pair
from dmxlib.streaming import Separator, bfloat16, check_target
from dmxlib.unet import VocalUNet1D
from dmxlib.weights import find, places, shipped


class VocalSeparationPipeline(Separator, DiffusionPipeline):
    """Samples the vocal's latent given the mixture's, decodes it, and restores its level.

    Args:
        codec, conditioner, unet, scheduler: the four trained parts.
        chunk_frames: latent frames of a chunk. Group normalisation ties the model to the length it was
            trained with, so that every chunk has exactly this one and the last is padded.
        num_inference_steps: of sampling, where the caller names no other number.
        target: what it is trained to take out, a stem's name.
        temperature: deviation of the noise that sampling starts from. 1, the paper's, draws one of the voices
            that the mixture allows; less comes nearer to what they have in common.
    """

    batch_size = 4  # does not change the result
    refinement = "wiener"

    def __init__(
        self,
        codec: Codec,
        conditioner: Conditioner,
        unet: VocalUNet1D,
        scheduler: DDIMScheduler,
        chunk_frames: int = 512,
        num_inference_steps: int = 1,
        target: str = "vocals",
        temperature: float = 1.0,
    ):
        super().__init__()
        self.register_modules(codec=codec, conditioner=conditioner, unet=unet, scheduler=scheduler)
        check_target(target)
        self.register_to_config(
            chunk_frames=chunk_frames,
            num_inference_steps=num_inference_steps,
            target=target,
            temperature=temperature,
        )
        for module in (codec, conditioner, unet):
            module.eval()

    @classmethod
    def from_pretrained(cls, name, **kwargs):
        """Load a system that ships ("ldm-dmx-mini"), a local folder, or a repository of the Hugging Face hub.

        Raises InputError where it is none of these, a file of it is missing, or its weights are pickled.
        """
        folder = find(name, "model_index.json")
        if not folder and Path(name).is_file():
            raise InputError(
                f"{name} is a file; give a folder with model_index.json, pickles are not opened."
            )
        if not folder and any(place.is_dir() for place in places(name)):
            raise InputError(f"{name} holds no model_index.json; give the folder that save_pretrained wrote.")
        kwargs = {"use_safetensors": True, "low_cpu_mem_usage": False} | kwargs
        try:
            return super().from_pretrained(str(folder or name), **kwargs)
        except InputError:
            raise
        except (OSError, ValueError, RuntimeError) as error:  # the last for tensors of other shapes
            raise InputError(
                f"model {name} cannot be loaded: it does not ship ({', '.join(shipped())}), is no "
                f"complete folder of safetensors, and cannot be had from the hub ({_first_sentence(error)})."
            ) from error

    @classmethod
    def extract_init_dict(cls, config_dict, **kwargs):
        """As diffusers', without the `level_rule` of older folders: of two there is one left.

        Raises InputError for the other.
        """
        if config_dict.pop("level_rule", "averaged") != "averaged":
            raise InputError("the model was made for level rule 'drawn', which is gone; train it anew.")
        return super().extract_init_dict(config_dict, **kwargs)

    @property
    def sampling_rate(self) -> int:
        """The codec's rate in Hz."""
        return self.codec.config.sampling_rate

    @property
    def channels(self) -> int:
        """Audio channels of the codec."""
        return self.codec.channels

    @property
    def chunk_samples(self) -> int:
        """Length of a chunk at the codec's rate."""
        return self.config.chunk_frames * self.codec.hop_length

    @property
    def chunk_seconds(self) -> float:
        """Length of a chunk in seconds."""
        return self.chunk_samples / self.sampling_rate

    @property
    def num_inference_steps(self) -> int:
        """The pipeline's own number of sampling steps."""
        return self.config.num_inference_steps

    @property
    def target(self) -> str:
        """What it takes out."""
        return self.config.target

    def check_steps(self, num_inference_steps: int) -> None:
        """Raise InputError for a number of steps that does not divide the scheduler's 1000."""
        check_steps(num_inference_steps)

    @torch.no_grad()
    def generate(self, mixture, num_inference_steps=None, generator=None) -> torch.Tensor:
        """Sample the vocals of mixture chunks (batch, channels, chunk_samples) at the codec's rate."""
        latents = self.sample(self.conditioner(mixture), num_inference_steps, generator)
        with bfloat16(self.device):  # the decoder alone: the U-Net's change lies only 24 dB under
            return self.decode(latents, mixture)

    @torch.no_grad()
    def sample(self, condition, num_inference_steps=None, generator=None) -> torch.Tensor:
        """Sample vocal latents for a condition (batch, dimension, F): (batch, latent_channels, F).

        Args:
            num_inference_steps: None takes the pipeline's own number.
            generator: a CPU generator; None takes torch's global one.
        """
        # One generator a chunk, so that a chunk's noise does not depend on the batch it is in.
        seeds = torch.randint(2**62, (len(condition),), generator=generator).tolist()
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        shape = (len(condition), self.unet.config.latent_channels, condition.shape[-1])
        noise = randn_tensor(shape, generators, condition.device, condition.dtype)
        latents = self.config.temperature * noise
        self.scheduler.set_timesteps(num_inference_steps or self.num_inference_steps, device=condition.device)
        mixture_halves = self.unet.mixture_halves(condition, shape[-1])
        for timestep in self.scheduler.timesteps:
            v = self.unet(latents, timestep, mixture_halves).sample
            latents = self.scheduler.step(v, timestep, latents).prev_sample
        return latents

    def encode(self, vocals, mixture) -> torch.Tensor:
        """What the U-Net learns to sample: waves (batch, channels, T) -> (batch, latent_channels, F), the
        vocals' latents and their level, where the U-Net has a channel for it."""
        return encode_pair(self.codec, vocals, mixture)[:, : self.unet.config.latent_channels]

    def decode(self, latents, mixture) -> torch.Tensor:
        """The inverse: latents (batch, latent_channels, F) -> vocals (batch, channels, F * hop) at their
        level; gradients go through."""
        return decode_pair(self.codec, latents, mixture)


def _first_sentence(error):
    return str(error).split("\n")[0].split(". ")[0].rstrip(".")[:200]
