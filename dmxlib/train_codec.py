"""Train a small codec of the EnCodec architecture: `python -m dmxlib.train_codec --config FILE`.

Reconstruction only, without a discriminator: squared error of the wave at unit RMS, plus L1 of a multi-scale
log mel spectrogram (EnCodec, Defossez and others 2022, section 3.4, has L1 for both). The last group norm
gives every output the same energy, and with L1 the decoder learned to hide it in one loud click, silent
elsewhere, for 800 steps and on; the squared error leaves no such way out. The decoder learns from the
continuous latents that the diffusion model draws; the quantiser's codebooks follow the latents by their
moving average and send no gradient.

`--init` continues a codec, EnCodec's own ("48khz") too. With `--train_decoder_only yes` it learns to decode
vocals better from the latents and codes it has: a separator trained on them keeps its worth.
"""

from dataclasses import dataclass, field

import torch
import torchaudio

from dmxlib.codec import Codec, unit_rms
from dmxlib.config import parse_config
from dmxlib.data import VocalPairs, hold_out, load_tracks
from dmxlib.errors import InputError, exit_on_input_error
from dmxlib.plots import save_spectrograms
from dmxlib.trainer import TrainerConfig, make_accelerator, train


@dataclass
class CodecTrainConfig(TrainerConfig):
    """The loop's settings, the data's, and the codec's size (read only where `init` is none)."""

    data_root: str = "data/toy"
    hold_out_seconds: float = 8.0
    excerpt_seconds: float = 1.7
    epoch_length: int = 2000
    init: str | None = None
    train_decoder_only: bool = False
    sampling_rate: int = 24_000
    channels: int = 1
    dimension: int = 128
    n_filters: int = 16
    ratios: list = field(default_factory=lambda: [5, 4, 4, 4])
    n_q: int = 8
    spectral_weight: float = 0.1
    validation_excerpts: int = 16


class CodecStep(torch.nn.Module):
    """The codec with its loss on a batch of {"vocals", "mixture"} waves (batch, channels, T).

    Args:
        validation: the excerpts of `validate`; the latents are calibrated on their vocals.
        spectral_weight: of the second term of the loss.
        decoder_only: leave the encoder, its statistics and the quantiser as they are.
    """

    SCALES = ((256, 32), (512, 64), (1024, 64), (2048, 64))  # window and mel bands; hops of a quarter window

    def __init__(
        self,
        codec: Codec,
        validation: torch.utils.data.Dataset,
        spectral_weight: float,
        decoder_only: bool = False,
    ):
        super().__init__()
        self.codec = codec
        self.decoder_only = decoder_only
        codec.encoder.requires_grad_(not decoder_only)
        self.spectral_weight = spectral_weight
        self.mels = torch.nn.ModuleList(
            torchaudio.transforms.MelSpectrogram(
                codec.config.sampling_rate, n_fft=window, hop_length=window // 4, n_mels=bands, power=1
            )
            for window, bands in self.SCALES
        )
        self.validation = torch.utils.data.default_collate([validation[i] for i in range(len(validation))])

    def forward(self, batch, generator):
        """Mean loss over three vocals for each mixture, which the conditioner has to encode as well; vocals
        alone where only the decoder learns."""
        mixtures = 0 if self.decoder_only else len(batch["vocals"]) // 4
        wave = unit_rms(torch.cat([batch["vocals"][mixtures:], batch["mixture"][:mixtures]]))
        latents = self.codec.encoder(wave)
        if not self.decoder_only:
            with torch.no_grad():
                frame_rate = self.codec.config.sampling_rate // self.codec.hop_length
                self.codec.quantizer(latents.float(), frame_rate)
        return self.loss(self.codec.decoder(latents), wave)

    def loss(self, estimate, wave):
        """Squared error of the waves plus the weighted L1 of the log mel spectrograms."""
        spectral = [(log_mel(mel, estimate) - log_mel(mel, wave)).abs().mean() for mel in self.mels]
        return (estimate - wave).square().mean() + self.spectral_weight * torch.stack(spectral).mean()

    def validate(self, picture):
        """Loss and median SDR in dB on held-out vocals; draws the first of them."""
        wave = unit_rms(self.validation["vocals"])
        estimate = torch.cat([self.codec.decode(self.codec.encode(excerpt)) for excerpt in wave.split(1)])
        titles = {"vocals": wave[0].cpu().numpy(), "through the codec": estimate[0].cpu().numpy()}
        save_spectrograms(picture, titles, self.codec.config.sampling_rate)
        error = (estimate - wave).square().sum(dim=(1, 2))
        sdr = 10 * torch.log10(wave.square().sum(dim=(1, 2)) / error)
        return {"loss": self.loss(estimate, wave).item(), "sdr": sdr.median().item()}

    def save(self, folder):
        """Calibrate the latents on the held-out vocals, unless they have to stay, and save the codec."""
        if not (self.decoder_only and self.codec.config.latent_std):
            self.codec.calibrate(self.validation["vocals"].split(1))
        self.codec.save_pretrained(folder)


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
    if config.train_decoder_only and not config.init:
        raise InputError("train_decoder_only continues a codec; name one with --init.")
    codec = Codec.load(config.init) if config.init else new_codec(config)
    kept, held = hold_out(load_tracks(config.data_root, "train"), config.hold_out_seconds)
    excerpts = (config.excerpt_seconds, codec.config.sampling_rate, codec.channels)
    validation = VocalPairs(held, config.validation_excerpts, *excerpts, seed=1, augment=False)
    dataset = VocalPairs(kept, config.epoch_length, *excerpts, seed=config.seed)
    step = CodecStep(codec, validation, config.spectral_weight, config.train_decoder_only)
    train(step, dataset, config, accelerator)


if __name__ == "__main__":
    main()
