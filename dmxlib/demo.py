"""`make demo`: separate 20 s of a song that the package makes, or of one of yours, and plot the result."""

import argparse
import tempfile
from pathlib import Path

from dmxlib import audio, separate
from dmxlib.data import folder_track
from dmxlib.data.sets.toy import render_song
from dmxlib.errors import InputError, exit_on_input_error
from dmxlib.plots import save_spectrograms

SEED, SECONDS, RATE = 100, 20.0, 44_100  # a seed that no toy data set has


def excerpt(folder: str | None, start: float):
    """(name, mixture, true vocals, rate) of the made song, or of a folder with mixture.* and vocals.*."""
    if folder is None:
        vocals, accompaniment = render_song(SEED, SECONDS, RATE)
        return "demo", vocals + accompaniment, vocals, RATE
    track = folder_track(Path(folder)) if Path(folder).is_dir() else None
    if track is None:
        raise InputError(
            f"{folder} is no folder with mixture and vocals (.wav, .flac ...); prepare a data set first."
        )
    if not 0 <= start * track.rate < track.samples:  # so is nan
        raise InputError(f"--start {start} lies outside of {folder}.")
    excerpt = (int(start * track.rate), round(SECONDS * track.rate))
    return track.name, track.mixture(*excerpt), track.vocals(*excerpt), track.rate


@exit_on_input_error
def main(argv=None) -> None:
    """Separate and plot; prints where the files are."""
    parser = argparse.ArgumentParser(prog="python -m dmxlib.demo", description=__doc__)
    parser.add_argument(
        "folder", nargs="?", help="a song's folder with mixture.* and vocals.*; default: a made song"
    )
    parser.add_argument("--start", type=float, default=0.0, metavar="S", help="begin at this second of it")
    options = parser.parse_args(argv)
    name, mixture, vocals, rate = excerpt(options.folder, options.start)
    with tempfile.TemporaryDirectory() as folder:
        song = Path(folder) / f"{name}.wav"
        audio.write(song, mixture, rate)
        separate.main([str(song), "-o", "separated"])
    folder = Path("separated") / Path(separate.DEFAULT_MODEL).name / name
    estimate, _ = audio.read(folder / "vocals.wav")
    audio.write(folder / "mixture.wav", mixture, rate)
    audio.write(folder / "true_vocals.wav", vocals, rate)
    waves = {"mixture": mixture, "separated vocals": estimate, "true vocals": vocals}
    save_spectrograms(folder / "spectrograms.png", waves, rate)
    print(
        "\nListen to mixture.wav, vocals.wav, no_vocals.wav and true_vocals.wav, and see spectrograms.png, "
        f"in {folder}."
    )


if __name__ == "__main__":
    main()
