"""How many steps to sample in, and from how much noise: `python -m dmxlib.studies.temperature`.

The temperature is the deviation of the noise that sampling starts from. Files: `studies/valid_songs.py`, with
the scores as generated and refined; log_f0_rmse counts the frames voiced in both, missed_voiced the others.
"""

import numpy as np
import pandas as pd
import torch

from dmxlib import metrics
from dmxlib.data import Track
from dmxlib.errors import InputError
from dmxlib.evaluation.scoring import Song
from dmxlib.pipeline import VocalSeparationPipeline
from dmxlib.refine import wiener
from dmxlib.studies.sampling import scores
from dmxlib.studies.valid_songs import run

SETTINGS = ((1, 1), (1, 0), (2, 0), (4, 1), (4, 0.25), (4, 0), (10, 1), (10, 0))  # steps, temperature


def study(pipeline: VocalSeparationPipeline, track: Track) -> pd.DataFrame:
    """A row of scores of a track for each of SETTINGS.

    Raises InputError where the model is no VocalSeparationPipeline.
    """
    if not isinstance(pipeline, VocalSeparationPipeline):
        raise InputError(
            "--model is not LDM-dmx; name ldm-dmx-mini, or the model folder of its training run."
        )
    song, mixture, rows = Song(track), track.mixture(), []
    for steps, temperature in SETTINGS:
        pipeline.register_to_config(temperature=temperature)
        generator = torch.Generator().manual_seed(0)
        vocals = pipeline(mixture, track.rate, num_inference_steps=steps, generator=generator).vocals
        refined = wiener(mixture, vocals, track.rate, pipeline.sampling_rate / 2)
        figures = scores(song, vocals) | pitch(song, vocals)
        figures |= {f"refined_{name}": value for name, value in scores(song, refined).items()}
        rows.append({"steps": steps, "temperature": temperature, "track": track.name} | figures)
    return pd.DataFrame(rows)


def pitch(song: Song, estimate: np.ndarray) -> dict[str, float]:
    """Medians over the song's sung excerpts of an estimate (2, samples): `metrics.f0_error`."""
    errors = [
        metrics.f0_error(
            excerpt.reference()[1],
            metrics.f0(metrics.mono(estimate[:, place], song.track.rate), metrics.RATE),
        )
        for place, excerpt in zip(song.places, song.excerpts, strict=True)
    ]
    return pd.DataFrame(errors, columns=["log_f0_rmse", "missed_voiced"]).median().to_dict()


def main(argv=None) -> None:
    """Command line."""
    run(study, "temperature", __doc__, "ldm-dmx-mini", argv)


if __name__ == "__main__":
    main()
