"""The noise study shows what has to be true of noise and codecs, and writes what it promises."""

import argparse
import json
import shutil

import numpy as np
import pandas
import pytest
import torch
from safetensors.torch import save_file

from dmxlib import audio, metrics, report
from dmxlib.codec.load import OFFICIAL, hugging_face_name, load_codec
from dmxlib.codec.quantizer import QuantizedCodec
from dmxlib.data import load_tracks
from dmxlib.reproduce import seeded_generator
from dmxlib.studies import robustness
from dmxlib.studies.robustness import RobustnessConfig
from dmxlib.studies.robustness_report import NOISE, PAPER, PLACES, TITLES
from dmxlib.summary import medians

FILES = {"table1.csv", "rounding.csv", "bands.csv", "streams.csv", "original.csv", "table1.md", "run.json"}
FIGURES = {"noise.png", "codec.png"}
COLUMNS = ["track", "experiment", "noise_std", "bandwidth", "sdr", "lsd", "mel_mae"]


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def codec():
    """The trained codec that ships: with random weights noise could help as well as harm."""
    return load_codec("encodec-mini", quantized=True)


@pytest.fixture(scope="module")
def waves(toy_root, codec):
    """The loudest 1.3 s of three toy voices at the codec's rate, {song: (1, 1, T)}."""
    config = RobustnessConfig(excerpt_seconds=1.28)
    tracks = load_tracks(toy_root, "train")
    cut = {
        track.name: [
            robustness.for_codec(wave, track.rate, codec, config.excerpt_seconds)
            for wave in robustness.excerpts(track, codec, config)
        ]
        for track in tracks
    }
    return {name: max(waves, key=lambda wave: wave.square().sum()) for name, waves in cut.items()}


def code(name, codec, wave, noise_std, n_q=None):
    return robustness.code(name, codec, wave, codec.encode(wave), noise_std, seeded_generator(0), n_q)


def sdr(wave, estimate):
    return metrics.sdr(wave[0].numpy(), estimate[0].numpy())


# -- physical facts ------------------------------------------------------------------------------------------


def test_identity_is_the_closed_form(codec, waves):
    wave = next(iter(waves.values()))
    energy = wave.double().square().sum().item()
    levels = []
    for noise_std in (0.0, 1e-4, 1e-3, 1e-2, 0.1, 1.0):
        error = wave.numel() * noise_std**2
        expected = 10 * np.log10((energy + 1e-7) / (error + 1e-7))
        levels.append(sdr(wave, code("identity", codec, wave, noise_std)))
        assert levels[-1] == pytest.approx(expected, abs=0.15)
    assert np.diff(levels[2:]) == pytest.approx(-20, abs=0.01)


def test_without_noise_nq_is_encode_and_decode_at_the_inputs_level(codec, waves):
    wave = next(iter(waves.values()))
    level = wave.square().mean().sqrt()
    assert torch.allclose(code("nq", codec, wave, 0.0), level * codec.decode(codec.encode(wave)), atol=1e-6)
    assert torch.allclose(code("nq", codec, 0.1 * wave, 0.0), 0.1 * code("nq", codec, wave, 0.0), atol=1e-5)
    assert not code("nq", codec, 0 * wave, 0.0).any()  # silence stays silent


@pytest.mark.parametrize("n_q", [1, None])
def test_without_noise_aq_is_bq(codec, waves, n_q):
    wave = next(iter(waves.values()))
    latents = codec.dequantize(codec.quantize(codec.encode(wave), n_q))
    expected = wave.square().mean().sqrt() * codec.decode(latents)
    for name in ("bq", "aq", "aq_rounded"):
        assert torch.equal(code(name, codec, wave, 0.0, n_q), code("bq", codec, wave, 0.0, n_q))
        assert torch.allclose(code(name, codec, wave, 0.0, n_q), expected, atol=1e-6)


class Bare:
    """A codec whose quantiser and decoder leave latents as they are."""

    config = argparse.Namespace(normalize=False)

    def decode(self, latents):
        return latents

    def quantize(self, latents, n_q):
        return latents

    dequantize = decode


def test_the_papers_identity_column_is_ours():
    """Ours has its six numbers for vocals as long and as loud as two of them say. A hundredth of the samples,
    ten times as large, have the same energies."""
    power = 1e-4 * 10 ** (PAPER["identity"][NOISE.index(0.01)] / 10)  # an RMS of 0.068
    samples = 10 ** (PAPER["identity"][0] / 10) * 1e-7 / power  # without noise an epsilon is the error
    wave = 10 * torch.full((1, 1, round(samples / 100)), power**0.5)
    found = [
        sdr(wave, robustness.code("identity", Bare(), wave, None, 10 * noise_std, seeded_generator(0)))
        for noise_std in NOISE
    ]
    assert found == pytest.approx(PAPER["identity"], abs=0.05)


@pytest.mark.parametrize("place", ["nq", "bq"])
def test_latent_noise_is_relative_to_the_latents_deviation(codec, waves, place):
    latents = 3 * codec.encode(next(iter(waves.values()))) + 5
    noise, louder = (
        robustness.code(place, Bare(), None, gain * latents, 0.1, seeded_generator(0)) - gain * latents
        for gain in (1, 2)
    )
    assert noise.std().item() == pytest.approx(0.1 * latents.std().item(), rel=0.02)
    assert torch.allclose(louder, 2 * noise, atol=1e-4)


def test_more_noise_never_helps_beyond_the_interval(codec, waves):
    rows = [
        {"experiment": name, "noise_std": std, "track": track, "sdr": sdr(wave, code(name, codec, wave, std))}
        for name in TITLES
        for std in (0.0, 1e-6, 0.1, 3.0)
        for track, wave in waves.items()
    ]
    found = medians(pandas.DataFrame(rows), ["experiment", "noise_std"], "sdr")
    for name in TITLES:
        column = found.loc[name]
        for (_, less), (_, more) in zip(column[:-1].iterrows(), column[1:].iterrows(), strict=True):
            assert more["median"] <= less.high
        assert column["median"].iloc[-1] < column["median"].iloc[0] - 1


class Tapped:
    """A codec that keeps the codes that it decodes."""

    def __init__(self, codec):
        self.codec, self.config, self.quantize = codec, codec.config, codec.quantize

    def dequantize(self, codes):
        self.codes = codes
        return self.codec.dequantize(codes)

    def decode(self, latents):
        return self.codec.decode(latents)


def made_integers(codec, wave, name, noise_std):
    """(codes without noise, the codes that are decoded with it)."""
    tapped, z = Tapped(codec), codec.encode(wave)
    robustness.code(name, tapped, wave, z, noise_std, seeded_generator(0))
    return codec.quantize(z), tapped.codes


def test_truncation_takes_every_second_code_to_its_neighbour(codec, waves):
    """However small the noise: half of it is negative. Rounding gives every code back."""
    wave = next(iter(waves.values()))
    codes, truncated = made_integers(codec, wave, "aq", 1e-6)
    assert set((codes - truncated).unique().tolist()) == {0, 1}
    assert (codes != truncated).float().mean().item() == pytest.approx(0.5, abs=0.03)
    codes, rounded = made_integers(codec, wave, "aq_rounded", 1e-6)
    assert torch.equal(codes, rounded)


def test_noisy_codes_stay_in_the_codebook(codec, waves):
    codes, noisy = made_integers(codec, next(iter(waves.values())), "aq", 1.0)
    assert noisy.dtype == torch.long and noisy.min() == 0 and noisy.max() == codec.config.bins - 1
    expected = codes + codes.double().std() * torch.randn(codes.shape, generator=seeded_generator(0)).double()
    assert (noisy == expected.trunc().clamp(0, codec.config.bins - 1)).float().mean() > 0.99


# -- how it is measured --------------------------------------------------------------------------------------


def test_excerpts_have_one_length_and_whole_frames(codec, toy_root):
    track = load_tracks(toy_root, "test")[0]
    config = RobustnessConfig(excerpt_seconds=1.7, excerpts_per_track=None)
    waves = robustness.excerpts(track, codec, config)
    vocals, joined = track.vocals(), np.concatenate(waves, axis=1)
    assert len({wave.shape for wave in waves}) == 1
    assert np.array_equal(joined[:, : vocals.shape[1]], vocals) and not joined[:, vocals.shape[1] :].any()
    coded = {robustness.for_codec(wave, track.rate, codec, config.excerpt_seconds).shape for wave in waves}
    assert coded == {(1, 1, round(1.7 * 75) * 320)}
    config.excerpts_per_track = 2
    chosen = robustness.excerpts(track, codec, config)
    assert len(chosen) == 2 and all(any(np.array_equal(wave, one) for one in waves) for wave in chosen)


def test_original_sdr_counts_what_the_codec_leaves_out(codec, toy_root):
    track = load_tracks(toy_root, "test")[0]
    originals = robustness.excerpts(track, codec, RobustnessConfig(excerpt_seconds=1.7))
    coded = [robustness.for_codec(wave, track.rate, codec, 1.7) for wave in originals]
    perfect = robustness.joined(coded)  # the mid up to 12 kHz is all that this codec can give
    assert 10 < robustness.original_sdr(originals, track.rate, codec, perfect) < 60
    wide = [wave * np.float32([[1], [-1]]) for wave in originals]  # nothing of this is in the mid
    assert abs(robustness.original_sdr(wide, track.rate, codec, 0 * perfect)) < 1e-6


@pytest.mark.parametrize("seconds", [0.4, 1.0, 2.5])
def test_segments_join_without_a_seam(seconds):
    wave = torch.randn(1, 2, round(seconds * 1000), generator=seeded_generator(0))
    lengths = []
    same = robustness.in_segments(lambda part: lengths.append(part.shape[-1]) or part, wave, 1000)
    assert torch.allclose(same, wave, atol=1e-6)
    assert set(lengths) == {1000} and len(lengths) == 1 + max(0, np.ceil((len(wave[0, 0]) - 1000) / 990))


def test_without_loudness_normalisation_the_level_is_gone(codec, waves):
    wave = next(iter(waves.values()))
    rows = {
        (row["coding"], row["loudness_normalised"], row["experiment"]): estimate
        for row, estimate in robustness.stream_estimates(codec, [wave])
    }
    assert len(rows) == 8 and codec.config.normalize  # the codec itself is as it was
    normalised, bare = (rows["one stream", on, "nq"] for on in (True, False))
    reference = wave[0].numpy()
    assert np.square(bare).mean() > 10 * np.square(reference).mean()
    assert metrics.sdr(reference, bare) < metrics.sdr(reference, normalised) - 3
    assert not np.array_equal(normalised, rows["1-s chunks", True, "nq"])


def test_bands_see_their_own_error(rng):
    time = np.arange(24_000) / 24_000
    voice = 0.1 * rng.standard_normal((1, 24_000))
    bands = robustness.band_scores(voice, voice + 0.05 * np.sin(2 * np.pi * 3000 * time), 24_000)
    assert [(band["low_hz"], band["high_hz"]) for band in bands][-2:] == [(4000, 8000), (8000, 12_000)]
    assert min(bands, key=lambda band: band["sdr"])["low_hz"] == 2000


def test_bandwidths():
    official = {name: robustness.kbit_per_second(QuantizedCodec(**OFFICIAL[name])) for name in OFFICIAL}
    assert official["48khz"] == {1: 1.5, 2: 3, 4: 6, 8: 12, 16: 24}  # kbit/s, as EnCodec names them
    assert official["24khz"] == {1: 0.75, 2: 1.5, 4: 3, 8: 6, 16: 12, 32: 24}


# -- the command ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(toy_root, codec_folder, tmp_path_factory):
    """What the command writes of two toy songs and the codec with random weights."""
    folder = tmp_path_factory.mktemp("results") / "robustness" / "toy-tiny"
    flags = {"codec": codec_folder, "data_root": toy_root, "output_dir": folder}
    flags |= {"excerpt_seconds": 0.2, "excerpts_per_track": 1, "split": "all"}
    robustness.main([f"--{key}={value}" for key, value in flags.items()], axis=NOISE)
    return folder


def test_files(folder, tiny_codec):
    assert {path.name for path in folder.iterdir()} == FILES | FIGURES
    table = pandas.read_csv(folder / "table1.csv")
    assert list(table.columns) == COLUMNS
    assert set(table.experiment) == {"identity", "nq", "bq", "aq"} and table.track.nunique() == 4
    assert set(NOISE) == set(table.noise_std) and np.isfinite(table.sdr).all()
    assert not table.duplicated(COLUMNS[:4]).any()
    widths = table[table.experiment == "bq"].bandwidth
    assert sorted(widths.unique()) == pytest.approx([0.375, 0.75, 1.5])
    assert table[table.experiment.isin(["identity", "nq"])].bandwidth.isna().all()
    facts = json.loads((folder / "run.json").read_text())
    assert facts["seconds"] > 0 and facts["sampling_rate"] == 24_000 and len(facts["songs"]) == 4
    assert facts.keys() >= {"codec", "data_root", "commit", "seed"}


def test_the_papers_numbers_stand_in_their_own_block(folder):
    ours, paper = (folder / "table1.md").read_text().split("## The paper")
    rows = [line.strip("| ").split(" | ") for line in paper.splitlines() if line.startswith("| ")]
    header, _, *rows = rows
    assert header[1:] == [*PLACES.values()] and [float(row[0]) for row in rows] == [*NOISE]
    columns = zip(*([float(cell) for cell in row[1:]] for row in rows), strict=True)
    assert [*columns] == [*PAPER.values()] and f"| {PAPER['identity'][0]} " not in ours
    table = pandas.read_csv(folder / "table1.csv").query("experiment == 'nq' and noise_std == 0")
    assert (
        f"| {table.sdr.median():.2f} [" in ours and f"[{table.sdr.min():.2f}, {table.sdr.max():.2f}]" in ours
    )


def test_figures_are_redrawn_from_the_tables(folder, tmp_path, monkeypatch, capsys):
    copy = tmp_path / "results" / "robustness" / "study"
    copy.mkdir(parents=True)
    for path in (*folder.glob("*.csv"), folder / "run.json"):
        shutil.copy(path, copy)
    monkeypatch.chdir(tmp_path)
    report.main()
    assert {path.name for path in copy.glob("*.png")} == FIGURES
    told = capsys.readouterr().out
    for name in {"table1.md", *FIGURES}:
        assert (copy / name).read_bytes() == (folder / name).read_bytes()
        assert f"results/robustness/study/{name}" in told
    (copy / "bands.csv").unlink()
    with pytest.raises(SystemExit, match="bands.csv does not exist"):
        report.main()


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg, which musdb needs, is missing")
def test_official_weights_on_the_tree_of_musdb(tmp_path, rng):
    """EnCodec's 48 kHz architecture from a file of the hub's format, MUSDB18-HQ as it is downloaded."""
    torch.manual_seed(0)
    codec = QuantizedCodec(**OFFICIAL["48khz"])
    state = {hugging_face_name(key): value.contiguous() for key, value in codec.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    songs = {"train": "Actions - One Minute Smile", "test": "AM Contra - Heart Peripheral"}
    for split, name in songs.items():
        for stem in ("mixture", "vocals"):
            wave = 0.1 * rng.standard_normal((2, 8000)).astype(np.float32)
            audio.write(tmp_path / "musdb18hq" / split / name / f"{stem}.wav", wave, 44_100)
    flags = {"codec": tmp_path / "model.safetensors", "data_root": tmp_path / "musdb18hq"}
    flags |= {"output_dir": tmp_path / "out", "excerpt_seconds": 0.06, "excerpts_per_track": 1}
    robustness.main([f"--{key}={value}" for key, value in flags.items()], axis=NOISE)
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES | FIGURES
    facts = json.loads((tmp_path / "out" / "run.json").read_text())
    assert facts["songs"] == [songs["test"]] and (facts["sampling_rate"], facts["channels"]) == (48_000, 2)
    table = pandas.read_csv(tmp_path / "out" / "table1.csv")
    assert table.bandwidth.max() == 24 and np.isfinite(table.sdr).all()


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--data_root=nowhere"], "nowhere holds no tracks"),
        (["--codec=nowhere"], "nowhere does not exist"),
        (["--excerpt_seconds=0"], "above 0"),
        (["--excerpts_per_track=0"], "above 0"),
    ],
)
def test_bad_input_is_one_sentence(flags, message, tmp_path, toy_root, codec_folder):
    output = tmp_path / "out"
    good = [f"--codec={codec_folder}", f"--data_root={toy_root}", f"--output_dir={output}"]
    with pytest.raises(SystemExit, match=rf"^error: .*{message}"):
        robustness.main([*good, *flags])
    assert not output.exists()
