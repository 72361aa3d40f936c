"""The training of a small codec of the EnCodec architecture.

Squared error of the wave at unit RMS, plus L1 of a multi-scale
log mel spectrogram (EnCodec, Defossez and others 2022, section 3.4, has L1 for both). The last group norm
gives every output the same energy, and with L1 the decoder learned to hide it in one loud click, silent
elsewhere, for 800 steps and on; the squared error leaves no such way out. The decoder learns from the
continuous latents that the diffusion model samples; the quantiser's codebooks are fitted to them in the end.
With `adversarial_weight` EnCodec's discriminator judges the output as well. EnCodec's loss balancer is left
out: it calls backward itself, past Accelerate's accumulation.
"""

import inspect
import json
from dataclasses import dataclass
from pathlib import Path

import torch
import torchaudio
from encodec.modules import SEANetEncoder
from encodec.msstftd import MultiScaleSTFTDiscriminator

from dmxlib.codec import unit_rms
from dmxlib.codec.quantizer import QuantizedCodec
from dmxlib.config import setting
from dmxlib.data import AUGMENTATIONS, SongsConfig
from dmxlib.training.loop import TrainerConfig


@dataclass
class CodecTrainConfig(SongsConfig, TrainerConfig):
    """The loop's settings, the data's, and the codec's size (read only where `init` is none)."""

    excerpt_seconds: float = setting(
        1.7, "length of a training excerpt, rounded to latent frames", least=0.01
    )
    epoch_length: int = setting(2000, "training excerpts of an epoch")
    augmentations: list = setting(list(AUGMENTATIONS), "names of those in dmxlib/data/augment.py")
    init: str | None = setting(
        None,
        "codec to go on from, with its own sizes: a name, a folder, 48khz or 24khz; none: random weights",
    )
    train_decoder_only: bool = setting(False, "leave the encoder, and with it the latents, as they are")
    normalization: str | None = setting(
        None, "half-whitened or range: calibrate the latents anew; none: only where it is necessary"
    )
    fit_quantizer: bool = setting(
        False, "fit the codebooks anew in the end; where the encoder learns they always are"
    )
    sampling_rate: int = setting(24_000, "in Hz")
    channels: int = setting(1, "audio channels", most=2)
    dimension: int = setting(128, "latent channels")
    n_filters: int = setting(32, "channels of the first convolution")
    n_residual_layers: int = setting(0, "residual layers before each strided convolution", least=0)
    ratios: list = setting([5, 8, 8], "strides; their product is the samples of a latent frame")
    n_q: int = setting(16, "codebooks")
    bins: int = setting(1024, "entries of a codebook")
    spectral_weight: float = setting(0.1, "of the log mel spectrograms in the loss")
    adversarial_weight: float = setting(0.0, "of the discriminator's loss; 0 trains without it")
    validation_excerpts: int = setting(16, "excerpts of validation")
    calibration_excerpts: int = setting(256, "of training songs, that the latents are calibrated on")
    chunk_frames: int = setting(512, "latent frames of each of these: the separator's excerpt")


class CodecStep(torch.nn.Module):
    """The codec with its loss on a batch of {"vocals", "mixture"} waves (batch, channels, T).

    Args:
        dataset: the training excerpts, which the quantiser is fitted to.
        validation: the excerpts of `validate`.
        calibration: excerpts of the separator's length, as what a group norm gives depends on it; the latents
            are calibrated on their vocals.
    """

    SCALES = ((256, 32), (512, 64), (1024, 64), (2048, 64))  # window and mel bands; hops of a quarter window

    def __init__(self, codec: QuantizedCodec, dataset, validation, calibration, config: CodecTrainConfig):
        super().__init__()
        self.codec, self.config, self.dataset, self.calibration = codec, config, dataset, calibration
        codec.encoder.requires_grad_(not config.train_decoder_only)
        self.adversary = Adversary(codec.channels) if config.adversarial_weight else None
        self.mels = torch.nn.ModuleList(
            torchaudio.transforms.MelSpectrogram(
                codec.config.sampling_rate, n_fft=window, hop_length=window // 4, n_mels=bands, power=1
            )
            for window, bands in self.SCALES
        )
        self._held_out = torch.cat(list(vocals_of(validation, len(validation))))

    def forward(self, batch, generator):
        """Mean loss over three vocals for each mixture, which the conditioner has to encode as well; vocals
        alone where only the decoder learns."""
        mixtures = 0 if self.config.train_decoder_only else len(batch["vocals"]) // 4
        wave = unit_rms(torch.cat([batch["vocals"][mixtures:], batch["mixture"][:mixtures]]))
        estimate = self.codec.decoder(self.codec.encoder(wave))
        loss = self.loss(estimate, wave)
        if self.adversary:
            loss = loss + self.config.adversarial_weight * self.adversary(estimate, wave)
        return loss

    def loss(self, estimate, wave):
        """Squared error of the waves plus the weighted L1 of the log mel spectrograms."""
        spectral = [(log_mel(mel, estimate) - log_mel(mel, wave)).abs().mean() for mel in self.mels]
        return (estimate - wave).square().mean() + self.config.spectral_weight * torch.stack(spectral).mean()

    @property
    def held_out(self):
        """Vocals to validate on (excerpts, channels, T), of unit RMS, on the codec's device."""
        return unit_rms(self._held_out.to(self.codec.device))

    def validate(self):
        """Loss and median SDR in dB on held-out vocals; the first of them, and its rate in Hz."""
        wave = self.held_out
        estimate = torch.cat([self.codec.decode(self.codec.encode(excerpt)) for excerpt in wave.split(1)])
        titles = {"vocals": wave[0].cpu().numpy(), "through the codec": estimate[0].cpu().numpy()}
        figures = {"loss": self.loss(estimate, wave).item(), "sdr": median_sdr(wave, estimate)}
        return figures, titles, self.codec.config.sampling_rate

    def save(self, folder):
        """Calibrate the latents and fit the quantiser, where the encoder has learned or the config asks for
        it; save the codec.

        Beside it quantizer.json: held-out vocals' SDR in dB from codes, the share of the entries in use.
        """
        learned = self.config.max_train_steps > 0 and not self.config.train_decoder_only
        kind = self.config.normalization
        if learned or kind or not self.codec.normalization.fitted:
            waves = vocals_of(self.calibration, len(self.calibration))
            self.codec.calibrate((wave.to(self.codec.device) for wave in waves), kind or "half-whitened")
        if learned or self.config.fit_quantizer:
            waves = vocals_of(self.dataset, min(FITTED_EXCERPTS, len(self.dataset)))
            self.codec.fit_quantizer(wave.to(self.codec.device) for wave in waves)
        self.codec.save_pretrained(folder)
        wave = self.held_out
        codes = [self.codec.quantize(self.codec.encode(excerpt)) for excerpt in wave.split(1)]
        decoded = torch.cat([self.codec.decode(self.codec.dequantize(code)) for code in codes])
        used = [len(book.unique()) for book in torch.cat(codes, dim=2)[0]]
        figures = {
            "sdr_quantized": median_sdr(wave, decoded),
            "codebook_usage": sum(used) / len(used) / self.codec.config.bins,
        }
        (Path(folder) / "quantizer.json").write_text(json.dumps(figures, indent=2) + "\n")


FITTED_EXCERPTS = 1000  # of the training set, that the quantiser is fitted to


def vocals_of(dataset, count: int):
    """The vocals of a data set's first items, one after the other, (1, channels, T)."""
    return (dataset[index]["vocals"][None] for index in range(count))


class Adversary(torch.nn.Module):
    """EnCodec's multi-scale STFT discriminator (section 3.4) with its own loss and the codec's in one sum."""

    def __init__(self, channels: int):
        super().__init__()
        self.discriminator = MultiScaleSTFTDiscriminator(
            16, in_channels=channels
        )  # 16 filters ours, 32 theirs

    def forward(self, estimate, wave):
        """Sum of the discriminator's hinge loss, on a detached estimate, and of the estimate's hinge and
        feature matching losses, with detached weights; waves (batch, channels, T)."""
        real, real_maps = self.discriminator(wave)
        fake, _ = self.discriminator(estimate.detach())
        own = [(1 - r).relu().mean() + (1 + f).relu().mean() for r, f in zip(real, fake, strict=True)]
        weights = {name: weight.detach() for name, weight in self.discriminator.named_parameters()}
        fake, fake_maps = torch.func.functional_call(self.discriminator, weights, (estimate,))
        fooled = [(1 - f).relu().mean() for f in fake]
        matched = [
            (f - r.detach()).abs().mean() / r.detach().abs().mean()
            for maps in zip(real_maps, fake_maps, strict=True)
            for r, f in zip(*maps, strict=True)
        ]
        return sum(torch.stack(losses).mean() for losses in (own, fooled, matched))


def median_sdr(wave, estimate) -> float:
    """Over excerpts (batch, channels, T), in dB."""
    error = (estimate - wave).square().sum(dim=(1, 2))
    return (10 * torch.log10(wave.square().sum(dim=(1, 2)) / error)).median().item()


def log_mel(mel, wave):
    """Natural log of a magnitude mel spectrogram; the 1 keeps bands 30 to 40 dB under a unit-RMS wave's from
    dominating the gradient."""
    return torch.log(mel(wave) + 1)


def sizes(codec: QuantizedCodec) -> dict:
    """A codec's own of the config's keys, and more."""
    seanet = inspect.signature(SEANetEncoder).bind(**codec.config.seanet)
    seanet.apply_defaults()
    return {**seanet.arguments, **codec.config}


def new_codec(config: CodecTrainConfig) -> QuantizedCodec:
    """A codec of the config's size with random weights."""
    seanet = dict(
        channels=config.channels,
        dimension=config.dimension,
        n_filters=config.n_filters,
        n_residual_layers=config.n_residual_layers,
        ratios=config.ratios,
        norm="time_group_norm",
        # EnCodec's LSTM made a step a sixth slower and the output no better: correlation with the input after
        # 80 steps 0.80 with and without.
        true_skip=True,
        lstm=0,
    )
    return QuantizedCodec(config.sampling_rate, seanet, config.n_q, config.bins)
