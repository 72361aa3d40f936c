"""The latent cache holds what direct encoding gives, can be taken up, and fits one codec."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import launch, make_codec
from safetensors.torch import save_file
from torch.nn.modules.module import register_module_forward_hook

from dmxlib import latents
from dmxlib.errors import InputError, sentence
from dmxlib.latents import CachedPairs, LatentConfig, build_cache, checksum, encode_batch, pairs_of
from dmxlib.reproduce import alone


@pytest.fixture(scope="module")
def config(toy_root, tiny_codec, tmp_path_factory):
    """A finished cache of five pairs in three shards, and two to validate, of a codec of its own."""
    folder = tmp_path_factory.mktemp("latents")
    tiny_codec.save_pretrained(folder / "codec")
    config = LatentConfig(
        data_root=str(toy_root),
        codec=str(folder / "codec"),
        output_dir=str(folder / "cache"),
        pairs=5,
        shard_size=2,
        chunk_frames=64,
        hold_out_seconds=2.0,
        validation_pairs=2,
    )
    build_cache(config, quiet=True)
    return config


@pytest.fixture
def folder(config):
    """Its folder."""
    return Path(config.output_dir)


SHARDS = ["000000.safetensors", "000002.safetensors", "000004.safetensors", "valid.safetensors"]


def test_cache_folder(config, folder, tiny_codec):
    assert sorted(path.name for path in folder.iterdir()) == [*SHARDS[:3], "cache.json", SHARDS[3]]
    settings = json.loads((folder / "cache.json").read_text())
    assert settings == {**asdict(config), "codec_checksum": checksum(tiny_codec)}


@pytest.mark.parametrize("validation", [False, True])
def test_items_are_those_of_direct_encoding(config, folder, tiny_codec, validation):
    pairs = pairs_of(config, tiny_codec)[validation]
    stage1, stage2 = (CachedPairs(folder, key, validation) for key in ("condition", "mixture"))
    assert len(pairs) == len(stage1) == len(stage2) == (2 if validation else 5)
    for index in range(len(pairs)):
        expected = encode_batch(tiny_codec, {key: wave[None] for key, wave in pairs[index].items()})
        first, second = stage1[index], stage2[index]
        assert first.keys() == {"latents", "condition"} and second.keys() == {"latents", "mixture"}
        for item, key in ((first, "latents"), (first, "condition"), (second, "latents")):
            assert item[key].dtype == torch.float32
            assert torch.allclose(item[key], expected[key][0], rtol=1e-3, atol=2e-3), key
        assert torch.allclose(second["mixture"], expected["mixture"][0], atol=1 / 32767)
        assert second["mixture"].std() > 0.01 and first["latents"].shape == (17, 64)


def test_validation_hears_only_what_training_does_not(config, tiny_codec):
    training, validation = pairs_of(config, tiny_codec)
    for kept, held in zip(training.singers[0], validation.singers[0], strict=True):
        assert kept.first == 0 and kept.last == held.first and held.samples == 2 * held.rate


def test_deleted_shard_is_rebuilt_identically_and_others_stay(config, folder):
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    (folder / SHARDS[1]).unlink()
    (folder / ".000004.part1.safetensors").write_bytes(b"what a kill left behind")
    build_cache(config, quiet=True)
    after = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.glob("*.s*")}
    for name in SHARDS:
        assert after[name][0] == before[name][0]
        assert (after[name][1] == before[name][1]) == (name != SHARDS[1])
    (folder / ".000004.part1.safetensors").unlink()


def test_processes_share_the_shards(config, folder, tmp_path):
    shared = replace(config, output_dir=str(tmp_path / "shared"))
    made = []
    for index in (1, 0):
        process = SimpleNamespace(
            process_index=index, num_processes=2, device="cpu", is_main_process=not index
        )
        process.wait_for_everyone = lambda: None
        build_cache(shared, quiet=True, state=process)
        made.append({path.name for path in (tmp_path / "shared").glob("*.safetensors")})
    assert len(made[0]) == len(SHARDS) // 2 and made[1] == {*SHARDS}
    for name in SHARDS:
        assert (tmp_path / "shared" / name).read_bytes() == (folder / name).read_bytes()


DYING = """
import os, signal
from accelerate import PartialState
from dmxlib import latents

write = latents._write_shard

def write_one(*shard):
    write(*shard)
    if PartialState().process_index == 1:
        os.kill(os.getpid(), signal.SIGKILL)

latents._write_shard = write_one
latents.main()
"""


def test_a_launch_on_two_machines_goes_on_after_a_killed_one(config, folder, tmp_path):
    """The second of two processes dies with its first shard written; two machines of one process each make
    the rest, and all is what one process made."""
    shared, script = tmp_path / "shared", tmp_path / "dying.py"
    flags = [f"--{key}={value}" for key, value in asdict(replace(config, output_dir=str(shared))).items()]
    script.write_text(DYING)
    code, told = launch(script, *flags)
    assert code and "SIGKILL" in told
    assert (shared / SHARDS[0]).exists() and not (shared / SHARDS[2]).exists()
    code, told = launch("-m", "dmxlib.latents", *flags, machines=2)
    assert code == 0, told[-3000:]
    assert sorted(path.name for path in shared.iterdir()) == sorted(path.name for path in folder.iterdir())
    for name in SHARDS:
        assert (shared / name).read_bytes() == (folder / name).read_bytes()
    settings = [json.loads((made / "cache.json").read_text()) for made in (shared, folder)]
    assert settings[0] == {**settings[1], "output_dir": str(shared)}


def test_finished_cache_encodes_nothing(config):
    called = []
    with register_module_forward_hook(lambda module, *_: called.append(module)):
        build_cache(config, quiet=True)
    assert called == []


@pytest.mark.parametrize("change", [{"seed": 1}, {"pairs": 6}, {"chunk_frames": 32}])
def test_other_settings_are_refused(config, folder, change):
    with pytest.raises(InputError, match="other settings"):
        build_cache(replace(config, **change), quiet=True)
    assert json.loads((folder / "cache.json").read_text())["pairs"] == 5


def test_codec_that_was_trained_further_is_refused(config, tiny_codec):
    codec = make_codec(24_000)
    with torch.no_grad():
        next(codec.encoder.parameters())[0] += 0.01
    codec.save_pretrained(config.codec)
    with pytest.raises(InputError, match="other settings"):
        build_cache(config, quiet=True)
    tiny_codec.save_pretrained(config.codec)
    build_cache(config, quiet=True)


def test_checksum_follows_what_latents_depend_on(tiny_codec):
    codec = make_codec(24_000)
    assert checksum(codec) == checksum(tiny_codec)
    codec.normalization.mean += 1.0
    assert checksum(codec) != checksum(tiny_codec)


@pytest.mark.parametrize("missing", [SHARDS[1], SHARDS[3], "cache.json"])
def test_missing_shard_is_told(folder, missing):
    path = folder / missing
    content = path.read_bytes()
    path.unlink()
    try:
        with pytest.raises(InputError, match=missing if missing in SHARDS else "python -m dmxlib.latents"):
            for validation in (False, True):
                CachedPairs(folder, "condition", validation)
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize("spoilt", [b"", b"no tensors", "half", "others"])
def test_damaged_shard_is_told(folder, tmp_path, spoilt):
    copy = shutil.copytree(folder, tmp_path / "copy")
    shard = copy / "000000.safetensors"
    content = shard.read_bytes()
    if spoilt == "others":
        save_file({"weight": torch.zeros(2)}, shard)
    else:
        shard.write_bytes(content[: len(content) // 2] if spoilt == "half" else spoilt)
    with pytest.raises(InputError, match=r"000000.safetensors is damaged or no shard; [^\n]*\.$"):
        CachedPairs(copy, "condition")


def test_command_line(config, folder):
    (folder / SHARDS[0]).unlink()
    latents.main([f"--{key}={value}" for key, value in asdict(config).items()])
    assert (folder / SHARDS[0]).is_file()
    with pytest.raises(SystemExit, match="^error: .* other settings"):
        latents.main(["--output_dir", str(folder), "--codec", config.codec])


def test_a_second_process_in_the_folder_is_refused(config, folder):
    with alone(folder), pytest.raises(InputError, match="written to by another process"):
        build_cache(config, quiet=True)


def test_what_is_told_of_a_reading_process_that_died_holds_here_too():
    told = sentence(RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "))
    assert "dataloader_num_workers" not in asdict(LatentConfig()) and "on fewer cores (taskset)." in told


def test_a_damaged_cache_is_told_and_one_of_unusable_settings_is_not_begun(config, tmp_path):
    broken = replace(config, output_dir=str(tmp_path / "new"), augmentations=["reverb"])
    with pytest.raises(InputError, match="unknown augmentation"):
        build_cache(broken, quiet=True)
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "cache.json").write_text("{")
    for use in (
        lambda folder: build_cache(replace(config, output_dir=folder)),
        lambda folder: CachedPairs(folder, "mixture"),
    ):
        with pytest.raises(InputError, match="cache.json is damaged"):
            use(str(tmp_path / "old"))
