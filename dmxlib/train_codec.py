"""Train a small codec of the EnCodec architecture: `python -m dmxlib.train_codec --config FILE`.

Squared error of the wave at unit RMS, plus L1 of a multi-scale
log mel spectrogram (EnCodec, Defossez and others 2022, section 3.4, has L1 for both). The last group norm
gives every output the same energy, and with L1 the decoder learned to hide it in one loud click, silent
elsewhere, for 800 steps and on; the squared error leaves no such way out. The decoder learns from the
continuous latents that the diffusion model draws; the quantiser's codebooks follow the latents by their
moving average and send no gradient. With `adversarial_weight` EnCodec's discriminator judges the output as
well. EnCodec's loss balancer is left out: it calls backward itself, past Accelerate's accumulation.
"""

from dataclasses import dataclass, field

import torch
import torchaudio
from encodec.msstftd import MultiScaleSTFTDiscriminator

from dmxlib.codec import Codec, unit_rms
from dmxlib.config import parse_config
from dmxlib.data import VocalPairs, training_tracks
from dmxlib.errors import InputError, exit_on_input_error
from dmxlib.plots import save_spectrograms
from dmxlib.trainer import TrainerConfig, make_accelerator, train


@dataclass
class CodecTrainConfig(TrainerConfig):
    """The loop's settings, the data's, and the codec's size (read only where `init` is none)."""

    data_root: str | list = "data/toy"
    hold_out_seconds: float = 8.0
    excerpt_seconds: float = 1.7
    epoch_length: int = 2000
    init: str | None = None
    sampling_rate: int = 24_000
    channels: int = 1
    dimension: int = 128
    n_filters: int = 16
    ratios: list = field(default_factory=lambda: [5, 4, 4, 4])
    n_q: int = 8
    spectral_weight: float = 0.1
    adversarial_weight: float = 0.0  # 0 trains without the discriminator
    validation_excerpts: int = 16


class CodecStep(torch.nn.Module):
    """The codec with its loss on a batch of {"vocals", "mixture"} waves (batch, channels, T)."""

    SCALES = ((256, 32), (512, 64), (1024, 64), (2048, 64))  # window and mel bands; hops of a quarter window

    def __init__(self, codec: Codec, validation, spectral_weight: float, adversarial_weight: float = 0.0):
        super().__init__()
        self.codec = codec
        self.spectral_weight, self.adversarial_weight = spectral_weight, adversarial_weight
        self.adversary = Adversary(codec.channels) if adversarial_weight else None
        self.mels = torch.nn.ModuleList(
            torchaudio.transforms.MelSpectrogram(
                codec.config.sampling_rate, n_fft=window, hop_length=window // 4, n_mels=bands, power=1
            )
            for window, bands in self.SCALES
        )
        self.validation = torch.utils.data.default_collate([validation[i] for i in range(len(validation))])

    def forward(self, batch, generator):
        """Mean loss over three vocals for each mixture, which the conditioner has to encode as well."""
        mixtures = len(batch["vocals"]) // 4
        wave = unit_rms(torch.cat([batch["vocals"][mixtures:], batch["mixture"][:mixtures]]))
        latents = self.codec.encoder(wave)
        with torch.no_grad():
            self.codec.quantizer(latents.float(), self.codec.config.sampling_rate // self.codec.hop_length)
        estimate = self.codec.decoder(latents)
        loss = self.loss(estimate, wave)
        return loss + self.adversarial_weight * self.adversary(estimate, wave) if self.adversary else loss

    def loss(self, estimate, wave):
        """Squared error of the waves plus the weighted L1 of the log mel spectrograms."""
        spectral = [(log_mel(mel, estimate) - log_mel(mel, wave)).abs().mean() for mel in self.mels]
        return (estimate - wave).square().mean() + self.spectral_weight * torch.stack(spectral).mean()

    def validate(self, picture):
        """Loss, median SDR in dB from continuous and from quantised latents, and the share of the codebooks'
        entries in use, on held-out vocals; draws the first of them."""
        wave = unit_rms(self.validation["vocals"])
        latents = [self.codec.encode(excerpt) for excerpt in wave.split(1)]
        codes = [self.codec.quantize(latent) for latent in latents]
        estimate = torch.cat([self.codec.decode(latent) for latent in latents])
        quantized = torch.cat([self.codec.decode(self.codec.dequantize(code)) for code in codes])
        titles = {"vocals": wave[0].cpu().numpy(), "through the codec": estimate[0].cpu().numpy()}
        save_spectrograms(picture, titles, self.codec.config.sampling_rate)
        used = [len(book.unique()) for book in torch.cat(codes, dim=2)[0]]
        return {
            "loss": self.loss(estimate, wave).item(),
            "sdr": median_sdr(wave, estimate),
            "sdr_quantized": median_sdr(wave, quantized),
            "codebook_usage": sum(used) / len(used) / self.codec.config.bins,
        }

    def save(self, folder):
        """Calibrate the latents on the held-out vocals and save the codec."""
        self.codec.calibrate(self.validation["vocals"].split(1))
        self.codec.save_pretrained(folder)


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


def new_codec(config: CodecTrainConfig) -> Codec:
    """A codec of the config's size with random weights."""
    seanet = dict(
        channels=config.channels,
        dimension=config.dimension,
        n_filters=config.n_filters,
        ratios=config.ratios,
        norm="time_group_norm",
        # EnCodec's LSTM made a step a sixth slower and the output no better: correlation with the input after
        # 80 steps 0.80 with and without.
        true_skip=True,
        lstm=0,
    )
    return Codec(config.sampling_rate, seanet, config.n_q)


@exit_on_input_error
def main(argv=None) -> None:
    """Command line."""
    config = parse_config(CodecTrainConfig, argv, prog="python -m dmxlib.train_codec", description=__doc__)
    accelerator = make_accelerator(config)
    if accelerator.num_processes > 1:
        raise InputError(
            "the codec trains in one process: its codebooks are updated outside of the gradient."
        )
    codec = Codec.load(config.init) if config.init else new_codec(config)
    kept, held = training_tracks(config.data_root, config.hold_out_seconds)
    excerpts = (config.excerpt_seconds, codec.config.sampling_rate, codec.channels)
    validation = VocalPairs(held, config.validation_excerpts, *excerpts, seed=1, augment=False)
    dataset = VocalPairs(kept, config.epoch_length, *excerpts, seed=config.seed)
    step = CodecStep(codec, validation, config.spectral_weight, config.adversarial_weight)
    train(step, dataset, config, accelerator)


if __name__ == "__main__":
    main()
