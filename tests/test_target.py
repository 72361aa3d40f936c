"""Another stem than the voice: from the folder of a data set to the files that are written in its name."""

import json

import numpy as np
import pytest
from conftest import make_pipeline, reset_accelerate

from dmxlib import audio, baselines, data, latents, separate, train
from dmxlib.data.__main__ import main as data_main
from dmxlib.data.sets import album
from dmxlib.ensemble import Ensemble, load_separator
from dmxlib.errors import InputError
from dmxlib.evaluation.scoring import load_songs
from dmxlib.training import separator

RATE, SECONDS = 24_000, 3.0
HERTZ = {"vocals": 300, "drums": 500, "bass": 800}
SMALL = {
    "level_channels": [8, 8],
    "attention_from": 1,
    "fourier_channels": 8,
    "time_channels": 8,
    "max_train_steps": 1,
    "train_batch_size": 1,
}


def tone(name):
    """(2, samples) of a stem."""
    time = np.arange(int(RATE * SECONDS)) / RATE
    return np.tile(0.2 * np.sin(2 * np.pi * HERTZ[name] * time), (2, 1)).astype(np.float32)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two songs with all their stems, as MUSDB18-HQ has them."""
    root = tmp_path_factory.mktemp("stems")
    for split in ("train", "test"):
        waves = {name: tone(name) for name in HERTZ}
        for name, wave in (waves | {"mixture": sum(waves.values())}).items():
            audio.write(root / split / "Song" / f"{name}.wav", wave, RATE, "FLOAT")
    return root


@pytest.mark.parametrize("target", HERTZ)
def test_tracks_have_the_stem_in_the_vocals_place(root, target):
    (track,) = data.load_tracks(root, "train", target)
    np.testing.assert_allclose(track.vocals(), tone(target), atol=1e-6)
    rest = sum(tone(name) for name in HERTZ if name != target)
    np.testing.assert_allclose(track.mixture() - track.vocals(), rest, atol=1e-6)
    assert load_songs(root, "test", 0, target)[1] == data.load_tracks(root, "test", target)


def test_voices_that_lie_apart_are_of_no_use(root, tmp_path):
    audio.write(tmp_path / "train" / "voices" / "a.flac", tone("vocals"), RATE)
    (tmp_path / "valid").symlink_to(root / "test")
    assert [track.name for track in data.training_tracks(tmp_path, 1)[0][0]] == ["a"]
    with pytest.raises(InputError, match="holds no tracks for 'train'; expected .*mixture.wav and drums.wav"):
        data.training_tracks(tmp_path, 1, "drums")


@pytest.mark.parametrize("target", ["vocals", "drums", "bass"])
def test_the_albums_stems_by_name(tmp_path, monkeypatch, target):
    monkeypatch.setattr(album, "STEMS", "*_Stem_*_mobile.wav")  # m4a needs ffmpeg
    stems = {"VOX LEAD": "vocals", "OFF KICK": "drums", "TRAP BEAT": "drums", "SY BASS": "bass"}
    for name, source in stems.items():
        path = tmp_path / "clone" / "src" / "6.Caesium" / f"6.Caesium_Stem_{name}_mobile.wav"
        audio.write(path, tone(source), 48_000)
    arguments = [
        "prepare",
        "everything-is-free",
        str(tmp_path / "ready"),
        "--source",
        str(tmp_path / "clone"),
    ]
    data_main([*arguments, "--target", target])
    assert {path.name for path in (tmp_path / "ready").rglob("*.flac")} == {"mixture.flac", f"{target}.flac"}
    (track,) = data.load_tracks(tmp_path / "ready", "test", target)
    assert np.corrcoef(track.vocals()[0], tone(target)[0])[0, 1] > 0.999
    with pytest.raises(SystemExit, match="no stems of target 'piano'; choose vocals, drums, bass"):
        data_main([*arguments, "--target", "piano"])


def test_a_data_set_without_stems_has_no_target(tmp_path):
    with pytest.raises(SystemExit, match="toy has no --target; leave it out"):
        data_main(["prepare", "toy", str(tmp_path), "--target", "drums"])


def run(**settings):
    reset_accelerate()
    try:
        train.main([f"--{key}={value}" for key, value in (SMALL | settings).items()])
    finally:
        reset_accelerate()


def test_from_the_cache_to_the_files(root, codec_folder, tmp_path):
    cache = latents.LatentConfig(
        data_root=str(root),
        target="drums",
        codec=str(codec_folder),
        output_dir=str(tmp_path / "cache"),
        pairs=1,
        augmentations=[],
        chunk_frames=32,
        hold_out_seconds=1.0,
        validation_pairs=1,
    )
    latents.build_cache(cache, quiet=True)
    assert json.loads((tmp_path / "cache" / "cache.json").read_text())["target"] == "drums"
    shared = {"codec": codec_folder, "latent_cache": cache.output_dir, "chunk_frames": 32}
    with pytest.raises(SystemExit, match="cache was made with another target; make one for this model"):
        run(**shared, output_dir=tmp_path / "vocals")
    run(**shared, output_dir=tmp_path / "drums", target="drums")
    model = tmp_path / "drums" / "model"
    system = load_separator(str(model))
    assert system.target == "drums" == Ensemble(system, system, 0.5).target
    # a run that goes on from it takes out the same
    config = separator.TrainConfig(pretrained_model_name_or_path=str(model))
    separator.make_pipeline(config)
    assert config.target == "drums"
    song = root / "test" / "Song" / "mixture.wav"
    separate.main([str(song), "-n", str(model), "-o", str(tmp_path / "out"), "--float32"])
    drums, rest = (
        audio.read(tmp_path / "out" / "model" / "mixture" / f"{stem}.wav")[0]
        for stem in ("drums", "no_drums")
    )
    np.testing.assert_allclose(drums + rest, audio.read(song)[0], atol=1e-6)


def test_a_baseline_names_its_files_too(root, tmp_path):
    baselines.load("hdemucs")(4, 16_384, target="drums").save_pretrained(tmp_path / "model")
    song = root / "test" / "Song" / "mixture.wav"
    separate.main([str(song), "-n", str(tmp_path / "model"), "-o", str(tmp_path), "--duration=1"])
    written = {path.name for path in (tmp_path / "model" / "mixture").iterdir()}
    assert written == {"drums.wav", "no_drums.wav"}


def test_a_cache_of_before_there_were_targets_is_of_vocals(tmp_path):
    settings = {"pairs": 0, "validation_pairs": 1, "shard_size": 1}
    (tmp_path / "cache.json").write_text(json.dumps(settings))
    pairs = latents.CachedPairs(tmp_path, "condition")
    pairs.check(target="vocals")
    with pytest.raises(InputError, match="was made with another target"):
        pairs.check(target="drums")


@pytest.mark.parametrize("target", ["../drums", "", "a/b"])
def test_a_target_that_is_no_name_is_refused(tiny_codec, target):
    parts = make_pipeline(tiny_codec)
    with pytest.raises(InputError, match="choose a stem's name"):
        type(parts)(parts.codec, parts.conditioner, parts.unet, parts.scheduler, target=target)
    with pytest.raises(InputError, match="choose a stem's name"):
        baselines.load("hdemucs")(4, 16_384, target=target)
    assert parts.target == "vocals"
