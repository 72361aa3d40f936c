"""Train a small codec of the EnCodec architecture: `python -m dmxlib.train_codec --config FILE`.

`--init` continues a codec, EnCodec's own ("48khz") too. With `--train_decoder_only yes` it learns to decode
vocals better from the latents and codes it has: a separator trained on them keeps its worth.
"""

from dmxlib.codec.load import load_codec
from dmxlib.config import parse_config, take
from dmxlib.data import VocalPairs, training_tracks
from dmxlib.errors import InputError, exit_on_input_error
from dmxlib.plots import save_spectrograms
from dmxlib.training.codec import CodecStep, CodecTrainConfig, new_codec, sizes
from dmxlib.training.loop import make_accelerator, train


@exit_on_input_error
def main(argv=None, plot=save_spectrograms) -> None:
    """Command line; `plot` is `dmxlib.training.loop.train`'s."""
    config = parse_config(CodecTrainConfig, argv, prog="python -m dmxlib.train_codec", description=__doc__)
    accelerator = make_accelerator(config)
    if config.train_decoder_only and not config.init:
        raise InputError("train_decoder_only continues a codec; name one with --init.")
    codec = load_codec(config.init, quantized=True) if config.init else new_codec(config)
    take(config, sizes(codec))
    kept, held = training_tracks(config.data_root, config.hold_out_seconds, config.target)
    rate, seconds = codec.config.sampling_rate, codec.hop_length / codec.config.sampling_rate

    def pairs(tracks, length, frames, **settings):
        return VocalPairs(tracks, length, frames * seconds, rate, codec.channels, **settings)

    frames = round(config.excerpt_seconds / seconds)  # the decoder gives whole latent frames
    validation = pairs(held, config.validation_excerpts, frames, seed=1, augmentations=())
    calibration = pairs(kept, config.calibration_excerpts, config.chunk_frames, seed=2, augmentations=())
    dataset = pairs(kept, config.epoch_length, frames, seed=config.seed, augmentations=config.augmentations)
    train(CodecStep(codec, dataset, validation, calibration, config), dataset, config, accelerator, plot)


if __name__ == "__main__":
    main()
