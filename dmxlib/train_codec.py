"""Train a small codec of the EnCodec architecture: `python -m dmxlib.train_codec --config FILE`.

`--init` continues a codec, EnCodec's own ("48khz") too. With `--train_decoder_only yes` it learns to decode
vocals better from the latents and codes it has: a separator trained on them keeps its worth.
"""

from dmxlib.codec.load import load_codec
from dmxlib.config import parse_config
from dmxlib.data import VocalPairs, training_tracks
from dmxlib.errors import InputError, exit_on_input_error
from dmxlib.training.codec import CodecStep, CodecTrainConfig, new_codec
from dmxlib.training.loop import make_accelerator, train


@exit_on_input_error
def main(argv=None) -> None:
    """Command line."""
    config = parse_config(CodecTrainConfig, argv, prog="python -m dmxlib.train_codec", description=__doc__)
    accelerator = make_accelerator(config)
    if config.train_decoder_only and not config.init:
        raise InputError("train_decoder_only continues a codec; name one with --init.")
    codec = load_codec(config.init, quantized=True) if config.init else new_codec(config)
    kept, held = training_tracks(config.data_root, config.hold_out_seconds)
    excerpts = (config.excerpt_seconds, codec.config.sampling_rate, codec.channels)
    validation = VocalPairs(held, config.validation_excerpts, *excerpts, seed=1, augmentations=())
    dataset = VocalPairs(kept, config.epoch_length, *excerpts, seed=config.seed)
    train(CodecStep(codec, dataset, validation, config), dataset, config, accelerator)


if __name__ == "__main__":
    main()
