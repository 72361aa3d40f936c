"""The codec's speed beside what bounds it. Nothing here says how fast anything is."""

import pandas as pd
import torch

from dmxlib.codec import Codec
from dmxlib.codec.load import OFFICIAL
from dmxlib.studies import codec_speed, timing


def test_codec_steps_have_a_prediction(tmp_path):
    codec_speed.main(["--seconds", "0.1", "--repeats", "1", "--output_dir", str(tmp_path)])
    steps = pd.read_csv(tmp_path / "codec_steps.csv")
    assert list(steps.step) == 2 * list(codec_speed.ways(timing.computes_bf16()))
    assert (steps.predicted_seconds > steps.operations_seconds).all() and (steps.measured_seconds > 0).all()
    assert (steps.groupby("part").bytes_seconds.diff().dropna() < 0).all()  # each step moves less


@torch.no_grad()
def test_operations_of_the_codec():
    """Two for each multiplication: of the first convolution's kernel, and of the LSTM's weights, a frame."""
    codec = Codec.from_config(OFFICIAL["48khz"]).eval()
    first = codec.encoder.model[0]
    assert codec_speed.work(first, torch.randn(1, 2, 640))[0] == 2 * 2 * 32 * 7 * 640
    lstm = codec.decoder.model[1]
    assert codec_speed.work(lstm, torch.randn(1, 512, 5))[0] == 2 * 5 * timing.count(lstm)


def test_a_processor_without_an_computes_bf16_is_spared_it():
    everywhere = codec_speed.ways(bf16=False)
    assert set(codec_speed.WAYS) - set(everywhere) == {"in tiles, bf16"}
    assert codec_speed.ways(bf16=True) == codec_speed.WAYS
