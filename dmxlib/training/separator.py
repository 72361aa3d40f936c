"""The latent diffusion separator's training, stages 1 and 2: the v loss.

Stage 1 keeps the conditioner frozen and reads latents alone; stage 2 starts from stage 1's model, unfreezes
the conditioner and trains it through the mixture's samples, at a small learning rate. Ours is stage 3, a step
of its own (dmxlib/training/decoded.py).
"""

from dataclasses import dataclass

import numpy as np
import torch

from dmxlib.codec import Codec
from dmxlib.codec.load import load_codec
from dmxlib.config import setting, take
from dmxlib.data import PairsConfig
from dmxlib.diffusion import make_scheduler, v_loss
from dmxlib.errors import InputError
from dmxlib.latents import CachedPairs, checksum, pairs_of
from dmxlib.metrics import si_sdr
from dmxlib.pipeline import VocalSeparationPipeline
from dmxlib.reproduce import seeded_generator
from dmxlib.training.loop import TrainerConfig
from dmxlib.unet import VocalUNet1D


@dataclass
class TrainConfig(PairsConfig, TrainerConfig):
    """The loop's settings, the data's, and the U-Net's size (without pretrained_model_name_or_path)."""

    system: str = setting("ldm-dmx", "what is trained")
    pretrained_model_name_or_path: str | None = setting(
        None, "saved system to go on from, with its own sizes; none: random weights"
    )
    codec: str = setting("data/runs/mini_codec/model", "name or folder of the codec of a new system")
    train_conditioner: bool = setting(False, "stage 2: the conditioner learns, too")
    compile: bool = setting(False, "torch.compile the U-Net: minutes once, steps 5 % faster on a processor")
    t_power: float = setting(1.0, "t is 1 - u^t_power with u uniform; more than 1: nearer to pure noise")
    latent_cache: str | None = setting(
        None, "folder that dmxlib.latents wrote; none: encode pairs as they come"
    )
    chunk_frames: int = setting(512, "latent frames of an excerpt")
    num_inference_steps: int | None = setting(
        None, "sampling steps, saved with the system; none: a saved one's, or 1"
    )
    level_channels: list = setting([128, 128, 192, 192, 256, 256], "U-Net channels of each level")
    blocks_per_level: int | list = setting(1, "residual blocks of each level, one number or a list")
    kernel_size: int = setting(3, "of the convolutions, in latent frames")
    level_channel: bool = setting(True, "generate the vocals' level beside their latents")
    interpolation: str = setting("area", "of the mixture to a level's length: area or linear")
    first_injection: int = setting(0, "first level, from 0, that the mixture is merged into", least=0)
    attention_from: int = setting(4, "first level, from 0, with self-attention", least=0)
    mask_channels: int = setting(0, "hidden channels of the mask branch; 0: none", least=0)
    fourier_channels: int = setting(256, "Fourier features of t")
    time_channels: int = setting(256, "channels of the embedding of t")


class TrainStep(torch.nn.Module):
    """The trained parts with their loss, `forward(batch, generator)`; the same object samples, as `pipeline`.

    The codec stays outside of the module: frozen, in eval(), never wrapped by DDP (its quantiser would update
    its codebooks), never in a checkpoint.

    Args:
        validation: a dataset of fixed pairs, as the training one's.
        t_power: how t is sampled, see `v_loss`.
    """

    def __init__(
        self,
        pipeline: VocalSeparationPipeline,
        train_conditioner: bool,
        validation,
        t_power: float = 1.0,
    ):
        super().__init__()
        self._pipeline = (pipeline,)  # a tuple hides it from torch.nn.Module
        self.unet = pipeline.unet
        self.train_conditioner, self.t_power = train_conditioner, t_power
        if train_conditioner:
            self.conditioner = pipeline.conditioner
        pipeline.conditioner.requires_grad_(train_conditioner)
        pipeline.codec.requires_grad_(False)
        self._validation = [validation[index] for index in range(len(validation))]

    @property
    def pipeline(self) -> VocalSeparationPipeline:
        """What users load."""
        return self._pipeline[0]

    def forward(self, batch, generator):
        """The v loss of a batch, a scalar.

        Args:
            batch: {"latents" (batch, latent channels, F), "condition" (batch, dimension, F) or "mixture"
                (batch, channels, F * hop)} of a cache, or waves {"vocals", "mixture"} of the latter shape.
            generator: of t and of the noise, on the batch's device.
        """
        return v_loss(self.unet, *self.encode(batch), generator, self.t_power)

    def encode(self, batch):
        """A batch as `forward` takes it -> the vocals' latents (batch, latent channels, F), which the U-Net
        learns to generate, and the condition (batch, dimension, F)."""
        if "latents" in batch:
            latents = batch["latents"][:, : self.unet.config.latent_channels]  # the last is the level
        else:
            latents = self.pipeline.encode(batch["vocals"], batch["mixture"])
        if "mixture" in batch:
            return latents, self.pipeline.conditioner(batch["mixture"])
        return latents, batch["condition"]

    def validation_loss(self, batch, encoded, generator):
        """The loss of one pair, with what `encode` gives for it: the v loss at eight t."""
        return v_loss(self.unet, *(tensor.expand(8, -1, -1) for tensor in encoded), generator)

    def validate(self):
        """Mean loss on the validation pairs with fixed noise, and the median SI-SDR in dB of what is sampled
        for them against the true latents, both decoded; the first pair's waves, and their rate in Hz."""
        device, losses, si_sdrs = next(self.parameters()).device, [], []
        for number, item in enumerate(self._validation):
            batch = {key: value[None].to(device) for key, value in item.items()}
            generator = seeded_generator(1, number, device=device)  # the same noise at every validation
            latents, condition = self.encode(batch)
            losses.append(self.validation_loss(batch, (latents, condition), generator))
            sampled = self.pipeline.sample(condition, generator=torch.Generator().manual_seed(number))
            codec = self.pipeline.codec
            waves = codec.decode(torch.cat([latents, sampled])[:, : codec.dimension]).cpu().numpy()
            si_sdrs.append(si_sdr(*waves))
            if number == 0:
                first = dict(zip(("true latents", "sampled latents"), waves, strict=True))
        figures = {"loss": torch.stack(losses).mean().item(), "si_sdr": float(np.median(si_sdrs))}
        return figures, first, self.pipeline.sampling_rate

    def save(self, folder):
        """Save the pipeline."""
        self.pipeline.save_pretrained(folder)


def make_pipeline(config: TrainConfig) -> VocalSeparationPipeline:
    """The system to train: a saved one, whose sizes the config takes over, or a new U-Net on the codec that
    the config names."""
    if not config.pretrained_model_name_or_path:
        return new_pipeline(load_codec(config.codec), config)
    pipeline = VocalSeparationPipeline.from_pretrained(config.pretrained_model_name_or_path)
    if config.num_inference_steps:
        pipeline.register_to_config(num_inference_steps=config.num_inference_steps)
    take(config, pipeline.unet.config)
    config.codec = f"{config.pretrained_model_name_or_path}/codec"
    config.level_channel = pipeline.unet.config.latent_channels > pipeline.codec.dimension
    config.chunk_frames = pipeline.config.chunk_frames
    config.num_inference_steps, config.target = pipeline.num_inference_steps, pipeline.target
    return pipeline


def new_pipeline(codec: Codec, config: TrainConfig) -> VocalSeparationPipeline:
    """A codec, a copy of its encoder, and a U-Net of the config's size with random weights.

    Raises InputError where the levels cannot halve an excerpt as often as there are of them.
    """
    unet = VocalUNet1D(
        latent_channels=codec.dimension + int(config.level_channel),
        condition_channels=codec.dimension,
        level_channels=config.level_channels,
        blocks_per_level=config.blocks_per_level,
        kernel_size=config.kernel_size,
        first_injection=config.first_injection,
        attention_from=config.attention_from,
        mask_channels=config.mask_channels,
        interpolation=config.interpolation,
        fourier_channels=config.fourier_channels,
        time_channels=config.time_channels,
    )
    if config.chunk_frames % unet.frame_multiple:
        raise InputError(
            f"chunk_frames is {config.chunk_frames}; choose a multiple of {unet.frame_multiple}."
        )
    parts = (codec, codec.conditioner(), unet, make_scheduler())
    settings = (config.chunk_frames, config.num_inference_steps or 1, config.target)
    return VocalSeparationPipeline(*parts, *settings)


def make_datasets(config: TrainConfig, pipeline: VocalSeparationPipeline):
    """The (training, validation) pairs: of the latent cache where one is named, whose settings of the pairs
    the config takes over, else encoded as they come."""
    if config.latent_cache is None:
        return pairs_of(config, pipeline.codec)
    codec_checksum = checksum(pipeline.codec)
    # the cached condition is the codec's, and so is a conditioner that no training has touched or will
    touched = config.train_conditioner or checksum(pipeline.conditioner) != codec_checksum
    condition = "mixture" if touched else "condition"
    training, validation = (CachedPairs(config.latent_cache, condition, held) for held in (False, True))
    training.check(chunk_frames=config.chunk_frames, codec_checksum=codec_checksum, target=pipeline.target)
    take(config, training.pairs_settings)
    return training, validation


def make_parts(config: TrainConfig, device):
    """The pipeline on its device, and its (training, validation) pairs."""
    pipeline = make_pipeline(config)
    training, validation = make_datasets(config, pipeline)
    if config.compile:
        pipeline.unet.compile()
    return pipeline.to(device), training, validation


def make_training(config: TrainConfig, device) -> tuple[TrainStep, torch.utils.data.Dataset]:
    """What `dmxlib.training.loop.train` takes: the step, and its training pairs."""
    pipeline, training, validation = make_parts(config, device)
    return TrainStep(pipeline, config.train_conditioner, validation, config.t_power), training
