"""A separator by any trained system's name, and two of them together."""

import json

import numpy as np
import pytest
import torch

from dmxlib import baselines, load_separator
from dmxlib.data import load_tracks
from dmxlib.ensemble import Ensemble
from dmxlib.errors import InputError
from dmxlib.evaluation.systems import Options, make_system
from dmxlib.expander import expand
from dmxlib.pipeline import VocalSeparationPipeline
from dmxlib.refine import wiener
from dmxlib.streaming import Separator

RATE = 22_050


class Gain(Separator):
    """Vocals are the mixture times a gain, whatever is refined."""

    sampling_rate, channels, num_inference_steps, device = RATE, 2, 1, "cpu"

    def __init__(self, gain, chunk_samples):
        self.gain, self.chunk_samples = gain, chunk_samples

    def generate(self, mixture, num_inference_steps=None, generator=None):
        return self.gain * mixture

    def separate_chunks(self, mixtures, *arguments, refine, **settings):
        return super().separate_chunks(mixtures, *arguments, refine=None, **settings)


def song(samples=50_001):
    return 0.1 * np.random.default_rng(0).standard_normal((2, samples), np.float32)


@pytest.fixture(scope="module")
def bsrnn_folder(tmp_path_factory):
    torch.manual_seed(0)
    sizes = dict(features=8, pairs_of_layers=1, window=512, hop=128, chunk_samples=8192)
    folder = tmp_path_factory.mktemp("models") / "tiny-bsrnn"
    baselines.load("bsrnn")(**sizes, sampling_rate=16_000, channels=1).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("share", [0, 0.25, 1])
def test_refined_vocals_are_the_weighted_sum(share):
    ensemble, mixture = Ensemble(Gain(0.5, 20_000), Gain(0.9, 7000), share), song()
    vocals = ensemble(mixture, RATE, refine="wiener").vocals
    assert np.allclose(vocals, (0.5 * (1 - share) + 0.9 * share) * mixture, atol=1e-6)
    assert np.allclose(ensemble(mixture, RATE).vocals, 0.5 * mixture, atol=1e-6), "raw ones are the first's"


def test_a_separator_of_one_channel_gives_its_mid_alone():
    mono = Gain(0.5, 20_000)
    mono.channels = 1
    mixture = song()
    vocals = Ensemble(mono, Gain(0.9, 7000), 0.25)(mixture, RATE, refine="wiener").vocals
    assert np.allclose(vocals, 0.75 * 0.5 * mixture.mean(axis=0) + 0.25 * 0.9 * mixture, atol=1e-6)


class Ramp(Gain):
    """Each chunk fades in, so that it is heard where chunks begin."""

    def generate(self, mixture, num_inference_steps=None, generator=None):
        return mixture * torch.linspace(0, 1, self.chunk_samples)


@pytest.mark.parametrize("share", [0, 1])
def test_the_overlap_is_both_systems(share):
    mixture, alone = song(), Ramp(1, 9000)
    both = Ensemble(alone, Ramp(1, 9000), share, expander=False)
    for overlap in (0.2, 0.5):
        vocals = both(mixture, RATE, refine="wiener", overlap=overlap).vocals
        assert np.allclose(vocals, alone(mixture, RATE, overlap=overlap).vocals, atol=1e-6)


def test_where_nobody_sings_refined_vocals_are_turned_down():
    quiet, mixture = (Gain(0.1, 20_000), Gain(0.1, 7000)), song()
    vocals = Ensemble(*quiet, 0.5)(mixture, RATE, refine="wiener").vocals
    assert np.allclose(vocals, expand(mixture, 0.1 * mixture, RATE), atol=1e-6)
    assert np.abs(vocals).max() < 0.06 * np.abs(mixture).max()
    for plain in (
        Ensemble(*quiet, 0.5, expander=False)(mixture, RATE, refine="wiener"),
        Ensemble(*quiet, 0.5)(mixture, RATE),
    ):
        assert np.allclose(plain.vocals, 0.1 * mixture, atol=1e-6)


def test_the_sum_is_sharpened_by_its_own_mask():
    mixture = song(300_000)  # two chunks
    for gain in (0.3, 0.8):
        both = Gain(gain, 20_000), Gain(gain, 7000)
        ensemble = Ensemble(*both, 0.5, exponent=1.5, expander=False)
        share = gain**1.5 / (gain**1.5 + (1 - gain) ** 1.5)
        vocals = ensemble(mixture, RATE, refine="wiener").vocals
        assert np.allclose(vocals, share * mixture, atol=1e-5)
        assert np.allclose(ensemble.finish(mixture, gain * mixture, RATE), vocals, atol=1e-6)


def test_channels_are_sharpened_by_themselves():
    mixture = song()
    vocals = wiener(mixture, mixture * [[0.9], [0.0]], RATE, exponent=1.5, mid=False)
    assert np.allclose(vocals[0], 0.9**1.5 / (0.9**1.5 + 0.1**1.5) * mixture[0], atol=1e-5)
    assert np.abs(vocals[1]).max() < 1e-6


@pytest.mark.parametrize("exponent", [None, 1.5])
def test_an_ensemble_streams_as_it_separates(exponent):
    ensemble, mixture = Ensemble(Gain(0.5, 20_000), Gain(0.1, 7000), 0.5, exponent), song(300_000)
    blocks = np.array_split(mixture, 7, axis=1)
    mixtures, vocals = zip(*ensemble.stream(blocks, RATE, refine="wiener"), strict=True)
    assert np.array_equal(np.concatenate(mixtures, axis=1), mixture)
    assert np.array_equal(np.concatenate(vocals, axis=1), ensemble(mixture, RATE, refine="wiener").vocals)


def test_folders_of_each_kind_are_loaded(model_folder, bsrnn_folder, tmp_path):
    settings = {"separator": str(model_folder), "guide": str(bsrnn_folder), "guide_share": 0.5}
    (tmp_path / "ensemble.json").write_text(json.dumps(settings))
    ours, guide, both = (load_separator(name) for name in (model_folder, bsrnn_folder, tmp_path))
    (tmp_path / "ensemble.json").write_text(json.dumps(settings | {"expander": False}))
    without = load_separator(tmp_path)
    assert isinstance(ours, VocalSeparationPipeline) and type(guide) is baselines.load("bsrnn")
    mixture = song(18_000)

    def separate(system, **more):
        return system(mixture, RATE, generator=torch.Generator().manual_seed(0), **more).vocals

    assert np.allclose(separate(both), separate(ours), atol=1e-6)
    expected = (separate(ours, refine="wiener").mean(axis=0) + separate(guide)) / 2  # the song is a chunk
    assert np.allclose(separate(without, refine="wiener"), expected, atol=1e-5)
    assert np.allclose(separate(both, refine="wiener"), expand(mixture, expected, RATE), atol=1e-5)
    (tmp_path / "ensemble.json").write_text(json.dumps(settings | {"expander": "false"}))
    with pytest.raises(InputError, match="expander is 'false'"):
        load_separator(tmp_path)
    (tmp_path / "ensemble.json").write_text(json.dumps(settings | {"exponent": 1.5, "expander": False}))
    inside = np.s_[:, :-1024]  # a chunk is longer, so half a window more of it lies over the song's end
    sharper = separate(load_separator(tmp_path), refine="wiener")[inside]
    assert np.allclose(sharper, wiener(mixture, expected, RATE, exponent=1.5, mid=False)[inside], atol=1e-5)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"separator": "a", "guide": "b", "guide_share": "half"}'])
def test_a_damaged_description_is_told_in_one_sentence(tmp_path, text):
    (tmp_path / "ensemble.json").write_text(text)
    with pytest.raises(InputError, match="does not hold separator, guide and guide_share"):
        load_separator(tmp_path)


def test_a_share_out_of_range_is_refused():
    with pytest.raises(InputError, match="choose 0 to 1"):
        Ensemble(Gain(1, 100), Gain(1, 100), 1.5)


@pytest.mark.parametrize("exponent", [0.0, -1.0, 2.1])
def test_an_exponent_out_of_range_is_refused(exponent):
    with pytest.raises(InputError, match="choose more than 0, 2 at most, or none"):
        Ensemble(Gain(1, 100), Gain(1, 100), 0.5, exponent)


@pytest.mark.parametrize("expander", ["false", 0, None])
def test_an_expander_that_is_neither_on_nor_off_is_refused(expander):
    with pytest.raises(InputError, match="choose true or false"):
        Ensemble(Gain(1, 100), Gain(1, 100), 0.5, expander=expander)


def test_silence_stays_silence():
    silence = np.zeros((2, 300_000), np.float32)
    ensemble = Ensemble(Gain(0.5, 20_000), Gain(0.5, 7000), 0.5, exponent=2.0)
    assert np.array_equal(ensemble(silence, RATE, refine="wiener").vocals, silence)


def test_a_codec_is_no_separator():
    with pytest.raises(InputError, match="holds no system that separates"):
        load_separator("encodec-mini")


def test_an_unknown_name_is_refused():
    with pytest.raises(InputError, match="cannot be loaded"):
        load_separator("no-such-model")


def test_the_guided_system_is_evaluated(model_folder, bsrnn_folder, toy_root, tmp_path):
    settings = {"separator": str(model_folder), "guide": str(bsrnn_folder), "guide_share": 0.5}
    (tmp_path / "ensemble.json").write_text(json.dumps(settings))
    track = load_tracks(toy_root, "test")[0]
    system = make_system("ldm-dmx-guided", Options(model=str(tmp_path)))
    generator = torch.Generator().manual_seed(0)
    expected = load_separator(tmp_path)(track.mixture(), track.rate, refine="wiener", generator=generator)
    assert np.allclose(system.separate(track), expected.vocals, atol=1e-6)
    parts = [
        load_separator(folder)(
            track.mixture(), track.rate, generator=torch.Generator().manual_seed(0), **how
        ).vocals
        for folder, how in ((model_folder, {"refine": "wiener"}), (bsrnn_folder, {}))
    ]
    assert np.allclose(system.combine(track, *parts), expected.vocals, atol=1e-6)
    assert system.steps == 1 and system.parameters > 0
    with pytest.raises(InputError, match="has no guide"):
        make_system("ldm-dmx-guided", Options(model=str(model_folder)))
