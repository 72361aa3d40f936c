"""The command line writes what it says, all of it or nothing, and tells what is wrong in one sentence."""

import json
import pickle
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import soundfile as sf
import torch
from conftest import ENVIRONMENT, SEARCHED, make_codec, make_pipeline
from torch.utils._python_dispatch import TorchDispatchMode

from dmxlib import audio, baselines, pipeline, separate, weights
from dmxlib.ensemble import FILE, load_separator
from dmxlib.errors import sentence

BSRNN = baselines.load("bsrnn")
RATE, FRAMES = 22_050, 25_001  # 1.13 s


def song(samples=FRAMES, gain=0.1):
    """(2, samples): noise, each channel another."""
    return gain * np.random.default_rng(0).uniform(-1, 1, (2, samples)).astype(np.float32)


@pytest.fixture
def track(tmp_path):
    path = tmp_path / "songs" / "song.wav"
    audio.write(path, song(), RATE, "PCM_16")
    return path


@pytest.fixture
def run(model_folder, tmp_path, capsys):
    """Run the command with the tiny model and one step; gives (exit code, stdout, stderr)."""

    def command(*arguments, name=model_folder, out=tmp_path / "out", steps=1):
        argv = [str(part) for part in (*arguments, "-n", name, "-o", out, "--steps", steps)]
        try:
            separate.main(argv)
            code = 0
        except SystemExit as exit:  # a sentence stands for code 1
            code = exit.code
            if isinstance(code, str):
                print(code, file=sys.stderr)
                code = 1
        return (code, *capsys.readouterr())

    return command


def integers(path):
    return sf.read(path, dtype="int32")[0].T.astype(np.int64)


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# -- what is written ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "ending", "subtype"),
    [
        ([], "wav", "PCM_16"),
        (["--int24"], "wav", "PCM_24"),
        (["--float32"], "wav", "FLOAT"),
        (["--flac"], "flac", "PCM_16"),
        (["--flac", "--int24"], "flac", "PCM_24"),
        (["--mp3"], "mp3", "MPEG_LAYER_III"),
    ],
)
def test_vocals_and_the_rest_add_up_to_the_mixture(run, track, tmp_path, flags, ending, subtype):
    code, stdout, _ = run(track, *flags)
    paths = [tmp_path / "out" / "tiny" / "song" / f"{stem}.{ending}" for stem in ("vocals", "no_vocals")]
    assert code == 0 and stdout.split() == [str(path) for path in paths]
    assert files(tmp_path / "out") == [f"tiny/song/no_vocals.{ending}", f"tiny/song/vocals.{ending}"]
    for path in paths:
        info = sf.info(path)
        assert (info.subtype, info.samplerate, info.channels) == (subtype, RATE, 2)
        assert info.frames == FRAMES or ending == "mp3"
    vocals, rest = (audio.read(path)[0] for path in paths)
    mixture = audio.read(track)[0]
    assert vocals.std() > 0.001 and rest.std() > 0.001
    if subtype.startswith("PCM"):
        error = integers(paths[0]) + integers(paths[1]) - integers(track)
        assert np.abs(error).max() <= 2 ** (32 - audio.BITS[subtype])
    elif subtype == "FLOAT":
        assert np.abs(vocals + rest - mixture).max() < 1e-6
    else:
        assert np.corrcoef((vocals + rest)[0, :FRAMES], mixture[0])[0, 1] > 0.8


@pytest.mark.parametrize("rate", [44_100, 48_000])
@pytest.mark.parametrize("ending", ["wav", "flac"])
def test_length_and_rate_are_the_inputs(run, tmp_path, rate, ending):
    path = tmp_path / f"other.{ending}"
    audio.write(path, song(40_003), rate)
    run(path, "--refine", "none")
    for stem in ("vocals", "no_vocals"):
        info = sf.info(tmp_path / "out" / "tiny" / "other" / f"{stem}.wav")
        assert (info.samplerate, info.frames) == (rate, 40_003)


def test_over_range_output_is_clamped_with_one_warning(run, tmp_path):
    """Of a network whose masks are -3 everywhere."""
    loud = BSRNN(features=8, pairs_of_layers=1, hop=512, chunk_samples=16_384)
    for mask, width in zip(loud.masks, loud.widths, strict=True):
        mask[-2].weight.data.zero_()
        mask[-2].bias.data = torch.tensor(width * [-3.0, 0.0] + 2 * width * [100.0])  # and the gates
    loud.save_pretrained(tmp_path / "tiny")
    for name in ("a.wav", "b.wav"):
        audio.write(tmp_path / name, song(gain=0.9), RATE)
    code, _, stderr = run(tmp_path / "a.wav", tmp_path / "b.wav", "--refine", "none", name=tmp_path / "tiny")
    told = [line for line in stderr.splitlines() if line.startswith("warning")]
    assert code == 0 and [line.split(": ")[1] for line in told] == [
        str(tmp_path / "a.wav"),
        str(tmp_path / "b.wav"),
    ]
    assert all("clamped" in line for line in told)
    out = tmp_path / "out" / "tiny" / "a"
    vocals, rest, mixture = map(integers, (out / "vocals.wav", out / "no_vocals.wav", tmp_path / "a.wav"))
    assert vocals.min() == -(2**31)  # not wrapped round
    assert np.array_equal(rest, np.clip(mixture - vocals, -(2**31), 2**31 - 2**16))


def test_float_output_keeps_what_passes_full_scale(run, tmp_path):
    path = tmp_path / "loud.wav"
    with sf.SoundFile(path, "w", RATE, 2, "FLOAT") as file:
        file.write(song(gain=3).T)
    code, _, stderr = run(path, "--float32")
    assert code == 0 and "warning" not in stderr
    out = tmp_path / "out" / "tiny" / "loud"
    total = audio.read(out / "vocals.wav")[0] + audio.read(out / "no_vocals.wav")[0]
    assert np.allclose(total, song(gain=3), atol=1e-5)


def test_written_vocals_are_the_pipelines(run, track, tiny_pipeline, tmp_path):
    run(track, "--float32", "--seed", 7, steps=2)
    settings = dict(num_inference_steps=2, generator=torch.Generator().manual_seed(7), refine="wiener")
    expected = tiny_pipeline(audio.read(track)[0], RATE, **settings).vocals
    written = audio.read(tmp_path / "out" / "tiny" / "song" / "vocals.wav")[0]
    assert np.allclose(written, expected, atol=1e-6)


def test_seed_steps_and_refinement_matter(run, track, tmp_path):
    written = {}
    for name, flags in {
        "seed 0": [],
        "again": ["--seed", 0],
        "seed 1": ["--seed", 1],
        "raw": ["--refine", "none"],
    }.items():
        assert run(track, *flags, out=tmp_path / name, steps=2)[0] == 0
        written[name] = integers(tmp_path / name / "tiny" / "song" / "vocals.wav")
    assert np.array_equal(written["seed 0"], written["again"])
    for name in ("seed 1", "raw"):
        assert not np.array_equal(written["seed 0"], written[name])


@pytest.mark.parametrize(
    ("start", "duration", "expected"), [(0, 0.5, 11_025), (0.4, 0.1, 2205), (1, 99, FRAMES - 22_050)]
)
def test_excerpt_is_cut_out(run, track, tmp_path, start, duration, expected):
    assert run(track, "--start", start, "--duration", duration)[0] == 0
    out = tmp_path / "out" / "tiny" / "song"
    total = integers(out / "vocals.wav") + integers(out / "no_vocals.wav")
    first = round(start * RATE)
    assert total.shape[1] == expected
    assert np.abs(total - integers(track)[:, first : first + expected]).max() <= 2**16


def test_filename_and_verbose(run, track, tmp_path):
    code, _, stderr = run(track, "--filename", "{stem} of {track}, once {trackext}.{ext}", "-v", "--flac")
    assert code == 0
    expected = [f"tiny/{stem} of song, once wav.flac" for stem in ("no_vocals", "vocals")]
    assert files(tmp_path / "out") == expected
    assert f"{track}: 1.1 s at 22050 Hz" in stderr


def test_folders_are_searched_and_bad_songs_skipped(run, track, tmp_path):
    folder = track.parent
    audio.write(folder / "Ünïcode 2.FLAC", song(5000), RATE)
    (folder / "broken.wav").write_text("no audio")
    (folder / "cover.jpg").write_text("no audio either")
    (folder / "._song.wav").write_text("what macOS leaves behind")
    code, stdout, stderr = run(folder, tmp_path / "missing.wav")
    assert code == 1 and len(stdout.splitlines()) == 4
    errors = [line for line in stderr.splitlines() if line.startswith("error")]
    assert len(errors) == 2 and "broken.wav" in errors[0] and "missing.wav" in errors[1]
    names = sorted(path.name for path in (tmp_path / "out" / "tiny").iterdir())
    assert names == ["song", "Ünïcode 2"]


def test_songs_of_one_name_do_not_overwrite_each_other(run, track, tmp_path):
    audio.write(tmp_path / "song.flac", song(5000), RATE)
    code, stdout, stderr = run(track, tmp_path / "song.flac")
    assert code == 1 and len(stdout.split()) == 2 and "--filename" in stderr
    assert sf.info(tmp_path / "out" / "tiny" / "song" / "vocals.wav").frames == FRAMES


def test_a_song_named_twice_is_separated_once(run, track, tmp_path):
    again = track.parent / ".." / track.parent.name / track.name
    code, stdout, stderr = run(track, again, track.parent)
    assert code == 0 and len(stdout.split()) == 2 and "error" not in stderr


@pytest.mark.parametrize("jobs", [1, 2])
def test_songs_side_by_side(run, track, tmp_path, jobs):
    for name in "ab":
        audio.write(tmp_path / f"{name}.wav", song(5000), RATE)
    (tmp_path / "broken.wav").write_text("no audio")
    songs = [tmp_path / f"{name}.wav" for name in ("a", "broken", "b")]
    code, stdout, stderr = run(*songs, "-j", jobs)
    assert code == 1 and [line for line in stderr.splitlines() if "error" in line] == [
        f"error: {songs[1]} is damaged, or not audio that soundfile or ffmpeg reads; convert it to wav."
    ]
    out = tmp_path / "out" / "tiny"
    written = [str(out / name / f"{stem}.wav") for name in "ab" for stem in ("vocals", "no_vocals")]
    assert stdout.splitlines() == written and len(files(out)) == 4
    # of several processes the calling one loads no model
    assert separate.load_system.cache_info().misses == (jobs == 1)


def test_a_smaller_batch_where_memory_is_short(tiny_pipeline):
    """Then one sentence; and the noise is what it would have been."""
    waves, settings, sizes, most = song(5 * RATE), dict(refine="wiener", batch_size=4), [], 1

    class OfASmallGPU(pipeline.VocalSeparationPipeline):
        def generate(self, mixture, *rest):
            sizes.append(len(mixture))
            if len(mixture) > most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
            return super().generate(mixture, *rest)

    def separated(system):
        return system(waves, RATE, generator=torch.Generator().manual_seed(1), **settings).vocals

    small = OfASmallGPU(**tiny_pipeline.components, chunk_frames=64)
    assert np.allclose(separated(small), separated(tiny_pipeline), atol=1e-6) and {4, 2, 1} <= {*sizes}
    most = 0
    with pytest.raises(torch.OutOfMemoryError) as caught:
        separated(small)
    assert sentence(caught.value) == (
        "the memory of the device is used up; close other programs or choose a smaller batch."
    )


class NoDoubles(TorchDispatchMode):
    """Lets no tensor of float64 come about: a Mac's GPU has none."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **kwargs or {})
        for tensor in torch.utils._pytree.tree_leaves(result):
            assert not isinstance(tensor, torch.Tensor) or tensor.dtype != torch.float64, function
        return result


@pytest.mark.parametrize("name", ["ldm-dmx-mini", "bsrnn-mini", "hdemucs-mini", "msdm-mini", "instglow-mini"])
def test_no_system_needs_what_a_macs_gpu_lacks(name, monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)  # as diffusers asks
    system = load_separator(name)
    if name == "ldm-dmx-mini":  # past the fast path, a processor's alone
        system.codec.train(), system.conditioner.train()
    tensors = [*system.state_dict().values()] if isinstance(system, torch.nn.Module) else []
    assert all(tensor.dtype != torch.float64 for tensor in tensors)
    mixture = torch.randn(
        1, system.channels, system.chunk_samples, generator=torch.Generator().manual_seed(0)
    )
    with NoDoubles():
        system.generate(mixture, 1, torch.Generator().manual_seed(0))


def test_models_are_listed_by_what_their_folders_say(run, monkeypatch, tmp_path):
    for name, told in {
        "a": {"title": "System A", "si_sdr": 1.26, "speed": 30.2},
        "b": {"title": "System B", "si_sdr": 0.0, "speed": None},
        "c": {"speed": 0.31},
    }.items():
        (tmp_path / "ship" / name).mkdir(parents=True)
        (tmp_path / "ship" / name / "about.json").write_text(json.dumps(told))
    (tmp_path / "ship" / "a-codec").mkdir()
    monkeypatch.setattr(weights, "FOLDER", tmp_path / "ship")
    code, stdout, _ = run("--list-models")
    assert code == 0 and stdout.splitlines() == [
        f"{'a':22} System A; SI-SDR 1.3 dB on unheard singers; 30.2 times real time",
        f"{'b':22} System B; SI-SDR 0.0 dB on unheard singers; speed not measured",
        f"{'c':22} not described; not scored; 0.3 times real time",
    ]


def test_every_system_that_ships_is_listed_and_found():
    listed = weights.shipped("about.json")
    assert {f"{name}-mini" for name in ("ldm-dmx", "bsrnn", "hdemucs", "msdm", "instglow")} <= set(listed)
    assert all(separate.about(name).startswith(name) for name in listed)
    files = ("model_index.json", "config.json", FILE)
    assert all(any((weights.FOLDER / name / file).is_file() for file in files) for name in listed)


def test_a_baseline_separates_by_the_same_command(run, track, tmp_path):
    sizes = dict(features=8, pairs_of_layers=1, window=512, hop=128, chunk_samples=8192)
    BSRNN(**sizes, sampling_rate=16_000, channels=1).save_pretrained(tmp_path / "tiny-bsrnn")
    assert run(track, name=tmp_path / "tiny-bsrnn")[0] == 0
    out = tmp_path / "out" / "tiny-bsrnn" / "song"
    total = integers(out / "vocals.wav") + integers(out / "no_vocals.wav")
    assert np.abs(total - integers(track)).max() <= 2**16 and sf.info(out / "vocals.wav").samplerate == RATE


def test_no_song_is_a_usage_error(run):
    code, _, stderr = run()
    assert code == 2 and "name at least one song" in stderr


# -- what cannot be used ------------------------------------------------------------------------------------


def one_sentence(result, *words):
    code, stdout, stderr = result
    errors = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert code == 1 and stdout == "" and len(errors) == 1, stderr
    assert "Traceback" not in stderr and errors[0].endswith(".")
    assert all(str(word) in errors[0] for word in words), errors[0]


def bad_input(kind, path):
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("la la la " * 500)
    elif kind == "folder":
        path.mkdir()
    elif kind == "no frames":
        sf.write(path, np.zeros((0, 2)), RATE)
    elif kind == "nan":
        wave = song(3 * FRAMES)
        wave[1, -5] = np.nan
        sf.write(path, wave.T, RATE, subtype="FLOAT")


@pytest.mark.parametrize("kind", ["missing", "empty", "text", "folder", "no frames", "nan"])
def test_bad_input_is_told_in_one_sentence(run, tmp_path, kind):
    path = tmp_path / "bad.wav"
    bad_input(kind, path)
    one_sentence(run(path), path)
    assert not (tmp_path / "out").exists() or files(tmp_path / "out") == []


def test_truncated_flac_leaves_nothing_and_an_older_result_alone(run, tmp_path, monkeypatch):
    monkeypatch.setattr(separate, "BLOCK_SECONDS", 1)  # so that it is noticed after much is written
    path = tmp_path / "song.flac"
    audio.write(path, song(6 * RATE), RATE)
    assert run(path)[0] == 0
    out = tmp_path / "out" / "tiny" / "song"
    before = {name: (out / name).read_bytes() for name in files(out)}
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 3 // 4])
    one_sentence(run(path, "--seed", 1), path, "truncated")
    assert {name: (out / name).read_bytes() for name in files(out)} == before
    one_sentence(run(path, out=tmp_path / "new"), path)
    assert files(tmp_path / "new") == []


@pytest.mark.parametrize(("name", "jobs"), [("no-such-model", 1), ("no/such/folder", 1), ("no/such", 2)])
def test_unknown_model_is_told(run, track, tmp_path, name, jobs):
    one_sentence(run(track, "-j", jobs, name=name), name)
    assert not (tmp_path / "out").exists()


def test_a_loop_of_links_as_a_model_is_told(run, track, tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    one_sentence(run(track, name=tmp_path / "loop"), "loop")


def test_checkpoint_with_a_missing_file_is_told(run, track, model_folder, tmp_path):
    copy = shutil.copytree(model_folder, tmp_path / "copy")
    (copy / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    one_sentence(run(track, name=copy), copy)


@pytest.mark.parametrize("place", ["model.pt", "copy/unet/diffusion_pytorch_model.bin"])
def test_pickle_as_a_checkpoint_is_refused(run, track, model_folder, evil, tmp_path, place):
    copy = shutil.copytree(model_folder, tmp_path / "copy")
    (copy / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    path = tmp_path / place
    path.write_bytes(pickle.dumps(evil))
    name = path if place == "model.pt" else copy
    one_sentence(run(track, name=name), name)
    assert not evil.marker.exists()


def test_file_in_the_output_folders_place_is_told(run, track, tmp_path):
    (tmp_path / "out").write_text("I am a file")
    one_sentence(run(track), "cannot be written", "choose another folder")
    assert (tmp_path / "out").read_text() == "I am a file"


def test_an_empty_name_is_not_the_current_folder(run, track, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one_sentence(run(track, out=""), "--out is empty; name a folder")


@pytest.mark.parametrize(
    "flags",
    [
        ["--start", 9],
        ["--start", -1],
        ["--start", "nan"],
        ["--duration", 0],
        ["--duration", -2],
        ["--overlap", 0.7],
        ["--filename", "{song}.{ext}"],
        ["--filename", "{track.up}{stem}.{ext}"],
        ["--filename", "{track}.{ext}"],
        ["--filename", "{stem}.docx"],
        ["--filename", "{stem:>300}.wav"],
        ["--seed", -1],
        ["--seed", 2**64],
        ["--flac", "--float32"],
        ["--device", "abacus"],
        ["--device", "cuda:99"],
    ],
    ids=str,
)
def test_flags_out_of_range_are_told(run, track, tmp_path, flags):
    one_sentence(run(track, *flags))
    assert not (tmp_path / "out").exists() or files(tmp_path / "out") == []


@pytest.mark.parametrize("steps", [0, 3, -1])
def test_steps_out_of_range_are_told(run, track, steps):
    one_sentence(run(track, steps=steps), "number of steps")


# -- as a user runs it --------------------------------------------------------------------------------------


def python(*arguments, cwd, **environment):
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(
        command, env={**ENVIRONMENT, **environment}, cwd=cwd, capture_output=True, text=True, timeout=900
    )


def test_the_command(track, model_folder, tmp_path):
    arguments = ["-m", "dmxlib.separate", track, tmp_path / "none.wav", "-n", model_folder, "--steps", 1]
    done = python(*arguments, cwd=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"error: {tmp_path / 'none.wav'}" in done.stderr
    assert done.stdout.split() == [f"separated/tiny/song/{stem}.wav" for stem in ("vocals", "no_vocals")]
    assert files(tmp_path / "separated") == ["tiny/song/no_vocals.wav", "tiny/song/vocals.wav"]


@pytest.mark.parametrize("library", ["numpy", "torch", "diffusers"])
def test_ctrl_c_while_a_library_is_imported(track, model_folder, tmp_path, library):
    """Of one that sends the signal when it is imported; torch is first wanted after the flags were read."""
    code = (
        "import os, signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background jobs ignore it
        "os.kill(os.getpid(), signal.SIGINT)\n"
    )
    (tmp_path / library).mkdir()
    (tmp_path / library / "__init__.py").write_text(code)
    arguments = ["-m", "dmxlib.separate", track, "-n", model_folder]
    done = python(*arguments, cwd=tmp_path, PYTHONPATH=f"{tmp_path}:{SEARCHED}")
    assert (done.returncode, done.stderr) == (1, "interrupted\n")


def test_help_and_a_wrong_flag_need_no_torch(tmp_path):
    (tmp_path / "torch.py").write_text("raise AssertionError('torch is imported')")
    for flag, code in (("--help", 0), ("--hlep", 2)):
        done = python("-m", "dmxlib.separate", flag, cwd=tmp_path, PYTHONPATH=f"{tmp_path}:{SEARCHED}")
        assert done.returncode == code and "Traceback" not in done.stderr


def test_a_name_that_the_terminal_cannot_print(model_folder, tmp_path):
    audio.write(tmp_path / "ünï.wav", song(), RATE)
    environment = {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    arguments = ["-m", "dmxlib.separate", "ünï.wav", "-n", model_folder, "--steps", 1]
    done = python(*arguments, cwd=tmp_path, **environment)
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert done.stdout.splitlines()[0] == r"separated/tiny/\udcc3\udcbcn\udcc3\udcaf/vocals.wav"
    assert (tmp_path / "separated" / "tiny" / "ünï" / "no_vocals.wav").exists()


def test_memory_does_not_grow_with_the_length(tmp_path):
    """Two minutes, then 24, whose samples are 84 MB more; the peak, which wavers by 40, rises by less."""
    make_pipeline(make_codec(2000)).save_pretrained(tmp_path / "model")  # chunks of 10 s
    for name, minutes in (("short.wav", 2), ("long.wav", 24)):
        minute = song(60 * 8000).T
        with sf.SoundFile(tmp_path / name, "w", 8000, 2, "PCM_16") as file:
            for _ in range(minutes):
                file.write(minute)
    script = """
        import resource, torch
        from dmxlib import separate
        torch.set_num_threads(1)
        for name in ("short.wav", "long.wav"):
            separate.main([name, "-n", "model", "--steps", "1", "--refine", "none"])
            print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    """
    done = python("-c", textwrap.dedent(script), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    short, long = (float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("peak"))
    assert sf.info(tmp_path / "separated" / "model" / "long" / "vocals.wav").frames == 24 * 60 * 8000
    assert long - short < 60


def test_the_command_line_takes_the_models_own_number_of_steps(run, track, tiny_pipeline, tmp_path):
    parts = tiny_pipeline.components | {"chunk_frames": 64, "num_inference_steps": 4}
    pipeline.VocalSeparationPipeline(**parts).save_pretrained(tmp_path / "four")
    written = []
    for steps in ([], ["--steps", 4], ["--steps", 1]):
        separate.main([str(track), "-n", str(tmp_path / "four"), "-o", str(tmp_path), *map(str, steps)])
        written.append(integers(tmp_path / "four" / "song" / "vocals.wav"))
    assert np.array_equal(written[0], written[1]) and not np.array_equal(written[0], written[2])
