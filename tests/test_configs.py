"""The configs that ship, read as files: each key that a paper fixes has that paper's value.

`python tests/test_configs.py` prints the table that lies in dmxlib/configs/SPECIFICATION.md.
"""

import dataclasses
import importlib
import inspect
import re
import textwrap
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from accelerate.commands.config import load_config_from_file
from encodec.modules import SEANetEncoder

import dmxlib
from dmxlib import baselines
from dmxlib.baselines.base import new_model
from dmxlib.config import from_values, read_yaml
from dmxlib.errors import InputError
from dmxlib.latents import LatentConfig
from dmxlib.summary import markdown
from dmxlib.train import TRAINABLE
from dmxlib.training.codec import CodecTrainConfig
from dmxlib.unet import VocalUNet1D

CONFIGS = Path(dmxlib.__file__).parent / "configs"
TABLE = CONFIGS / "SPECIFICATION.md"
PROCESSES = 4  # the paper's GPUs; the baselines' batches are shared out to as many

LDM = "LDM-dmx"
BSRNN = "Luo and Yu 2022"
BSRNN_CODE = "magronp/bsrnn"
DEMUCS = "demucs conf/config.yaml"
MSDM = "exp/train_msdm.yaml"
MSDM_CODE = "main/module_base.py"
MSGLD = "MSG-LD/multichannel_musicldm_slakh_3d_train.yaml"
MSGLD_CODE = "latent_diffusion/models/musicldm.py"
GLOW = "glow/configs/bass.json"
GLOW_CODE = "glow/train_musdb.py"
NONE_OF_ADAM = "Adam, no decay"


class Row(NamedTuple):
    """What a paper says of one setting, the value a config has for it, and where the paper says it.

    `key` is a key of the file or a figure of `figure`. `ours`: the value is another than the paper's.
    """

    file: str
    key: str
    says: str
    value: object
    source: str
    ours: bool = False


HQ = "data/musdb18-hq"
PAPERS_FOUR = ["polarity", "channel_flip", "pitch_shift", "stem_remix"]
SPECIFICATION = [
    Row("paper_codec", "init", "EnCodec 48 kHz", "48khz", f"{LDM} III-B"),
    Row("paper_codec", "normalization", "to a range", "range", f"{LDM} III-B"),
    Row("paper_codec", "max_train_steps", "frozen", 0, f"{LDM} III-E3"),
    Row("paper_codec", "augmentations", "frozen, so none", [], f"{LDM} III-E3"),
    Row("paper_codec", "chunk_frames", "not named; the separator's", 2048, f"{LDM} III-B", ours=True),
    Row("paper_codec", "calibration_excerpts", "not named", 300, f"{LDM} III-B", ours=True),
    Row("paper_latents", "codec", "EnCodec 48 kHz", "data/runs/encodec_48khz/model", f"{LDM} III-B"),
    Row("paper_latents", "augmentations", "four", PAPERS_FOUR, f"{LDM} IV-A"),
    Row("paper_stage1", "codec", "EnCodec 48 kHz", "data/runs/encodec_48khz/model", f"{LDM} III-B"),
    Row("paper_stage1", "parameters", "115.9 M", "115.7 M", f"{LDM} Table II"),
    Row("paper_stage1", "level_channels", "double every two levels, up to 1024",
        [256, 256, 512, 512, 1024, 1024], f"{LDM} III-E1"),
    Row("paper_stage1", "first_injection", "every level but the first three", 3, f"{LDM} III-E2"),
    Row("paper_stage1", "interpolation", "bilinear", "linear", f"{LDM} III-E2"),
    Row("paper_stage1", "level_channel", "not named", True, f"{LDM} III-E2", ours=True),
    Row("paper_stage1", "mask_channels", "none", 0, f"{LDM} III-E1"),
    Row("paper_stage1", "fourier_channels", "1024", 1024, f"{LDM} III-E1"),
    Row("paper_stage1", "time_channels", "1024", 1024, f"{LDM} III-E1"),
    Row("paper_stage1", "attention_from", "optional", 5, f"{LDM} III-E1", ours=True),
    *(
        row
        for stage, frozen, steps in (("paper_stage1", True, 600_000), ("paper_stage2", False, 400_000))
        for row in (
            Row(stage, "system", "the v objective", "ldm-dmx", f"{LDM} III-A"),
            Row(stage, "t_power", "t uniform in [0, 1]", 1.0, f"{LDM} III-A"),
            Row(stage, "train_conditioner", "frozen" if frozen else "unfrozen", not frozen, f"{LDM} III-E3"),
            Row(stage, "max_train_steps", f"{steps // 1000}k", steps, f"{LDM} III-E3"),
            Row(stage, "batch", "one for both stages, on 4 GPUs", 32, f"{LDM} III-E3"),
            Row(stage, "optimizer", "AdamW", "adamw", f"{LDM} III-E3"),
            Row(stage, "adam_weight_decay", "some", 1e-2, f"{LDM} III-E3"),
            Row(stage, "learning_rate", "-" if frozen else "a small one", 1e-4 if frozen else 1e-5,
                f"{LDM} III-E3", ours=True),
            Row(stage, "data_root", "MUSDB18-HQ", "data/musdb18-hq", f"{LDM} IV-A"),
            Row(stage, "augmentations", "polarity, channel flip, pitch shift, stem remix", PAPERS_FOUR,
                f"{LDM} IV-A"),
        )
    ),
    Row("paper_stage1", "num_inference_steps", "T", 50, f"{LDM} III-D", ours=True),
    Row("paper_stage2", "num_inference_steps", "T", 50, f"{LDM} III-D", ours=True),
    Row("paper_stage2", "pretrained_model_name_or_path", "stage 1's model", "data/runs/paper_stage1/model",
        f"{LDM} III-E3"),
    Row("paper_bsrnn", "parameters", "36 M", "36.4 M", f"{LDM} Table II"),
    Row("paper_bsrnn", "features", "128", 128, BSRNN),
    Row("paper_bsrnn", "pairs_of_layers", "12", 12, BSRNN),
    Row("paper_bsrnn", "window", "2048", 2048, BSRNN),
    Row("paper_bsrnn", "hop", "512", 512, BSRNN),
    Row("paper_bsrnn", "chunk_samples", "3 s at 44.1 kHz", 132_300, BSRNN),
    Row("paper_bsrnn", "sampling_rate", "44.1 kHz", 44_100, BSRNN),
    Row("paper_bsrnn", "batch", "2 on each of 8 GPUs", 16, BSRNN),
    Row("paper_bsrnn", "learning_rate", "1e-3", 1e-3, BSRNN),
    Row("paper_bsrnn", "lr_decay", "0.98 every two epochs", 0.98, BSRNN),
    Row("paper_bsrnn", "lr_decay_steps", "two epochs", 2500, f"{BSRNN_CODE}: epochs of 20,000 excerpts"),
    Row("paper_bsrnn", "max_train_steps", "100 epochs", 125_000, BSRNN),
    Row("paper_bsrnn", "adam_beta2", "Adam", 0.999, BSRNN),
    Row("paper_bsrnn", "adam_weight_decay", NONE_OF_ADAM, 0.0, BSRNN),
    Row("paper_bsrnn", "max_grad_norm", "5", 5.0, BSRNN),
    Row("paper_bsrnn", "augmentations", "sources of different songs, each at a gain of -10 to 10 dB",
        ["stem_remix", "levels"], BSRNN, ours=True),
    Row("paper_hdemucs", "parameters", "346 M in LDM-dmx's Table II; its own 83.6 M", "83.6 M", DEMUCS),
    Row("paper_hdemucs", "width", "48", 48, DEMUCS),
    Row("paper_hdemucs", "window", "4096", 4096, DEMUCS),
    Row("paper_hdemucs", "chunk_samples", "11 s at 44.1 kHz", 485_100, DEMUCS),
    Row("paper_hdemucs", "sampling_rate", "44.1 kHz", 44_100, DEMUCS),
    Row("paper_hdemucs", "batch", "64", 64, DEMUCS),
    Row("paper_hdemucs", "learning_rate", "3e-4", 3e-4, DEMUCS),
    Row("paper_hdemucs", "lr_decay", "constant", 1.0, DEMUCS),
    Row("paper_hdemucs", "max_train_steps", "360 epochs", 360 * (20_000 // 64), DEMUCS),
    Row("paper_hdemucs", "adam_beta2", "0.999", 0.999, DEMUCS),
    Row("paper_hdemucs", "adam_weight_decay", NONE_OF_ADAM, 0.0, DEMUCS),
    Row("paper_hdemucs", "max_grad_norm", "no clipping", float("inf"), DEMUCS),
    Row("paper_hdemucs", "use_ema", "none", False, DEMUCS),
    Row("paper_hdemucs", "augmentations", "remix, sign, channels, repitch 0.2, scale 0.25 to 1.25",
        ["stem_remix", "polarity", "channel_flip", "pitch_shift", "levels"], DEMUCS, ours=True),
    Row("paper_msdm", "parameters", "405 M", "404.7 M", f"{LDM} Table II"),
    Row("paper_msdm", "patch", "16", 16, MSDM),
    Row("paper_msdm", "level_channels", "256 x (1, 2, 4, 4, 4, 4, 4), factors 4, 4, 4, 2, 2, 2",
        [256] * 3 + [512] * 2 + [1024] * 6, MSDM),
    Row("paper_msdm", "blocks_per_level", "2", 2, MSDM),
    Row("paper_msdm", "attention_from", "after factors of 4, 4, 4, 2", 8, MSDM),
    Row("paper_msdm", "chunk_samples", "262144", 262_144, MSDM),
    Row("paper_msdm", "sampling_rate", "22.05 kHz", 22_050, MSDM),
    Row("paper_msdm", "batch", "8", 8, MSDM),
    Row("paper_msdm", "learning_rate", "1e-4", 1e-4, MSDM),
    Row("paper_msdm", "lr_decay", "constant", 1.0, MSDM_CODE),
    Row("paper_msdm", "adam_beta2", "0.99", 0.99, MSDM),
    Row("paper_msdm", "adam_weight_decay", NONE_OF_ADAM, 0.0, MSDM_CODE),
    Row("paper_msdm", "max_grad_norm", "no clipping", float("inf"), MSDM),
    Row("paper_msdm", "mixed_precision", "bf16", "bf16", MSDM),
    Row("paper_msdm", "augmentations", "none but the excerpt's start", [], MSDM),
    Row("paper_msdm", "data_root", "Slakh2100", "data/musdb18-hq", MSDM, ours=True),
    Row("paper_msgld", "parameters", "305 M in its configuration", "305.1 M", MSGLD),
    Row("paper_msgld", "codec", "a VAE of Mel-spectrograms", "data/runs/encodec_48khz/model", MSGLD,
        ours=True),
    Row("paper_msgld", "data_root", "Slakh2100", "data/musdb18-hq", MSGLD, ours=True),
    Row("paper_msgld", "augmentations", "none but the excerpt's start", [], MSGLD),
    Row("paper_msgld", "level_channels", "128 x (1, 2, 3, 5)", [256, 256, 512, 512, 1024, 1024], MSGLD,
        ours=True),
    Row("paper_msgld", "blocks_per_level", "2", 4, MSGLD, ours=True),
    Row("paper_msgld", "attention_from", "at factors of 2, 4, 8", 2, MSGLD),
    Row("paper_msgld", "chunk_samples", "10.24 s", round(10.24 * 48_000), MSGLD),
    Row("paper_msgld", "sampling_rate", "16 kHz", 48_000, MSGLD, ours=True),
    Row("paper_msgld", "guidance_scale", "1", 1.0, MSGLD),
    Row("paper_msgld", "max_train_steps", "72k", 72_000, "MSG-LD README.md"),
    Row("paper_msgld", "batch", "3; 16 in a comment", 16, MSGLD, ours=True),
    Row("paper_msgld", "optimizer", "AdamW", "adamw", MSGLD_CODE),
    Row("paper_msgld", "learning_rate", "3e-5", 3e-5, MSGLD),
    Row("paper_msgld", "lr_decay", "constant", 1.0, MSGLD_CODE),
    Row("paper_msgld", "adam_beta2", "AdamW's own", 0.999, MSGLD_CODE),
    Row("paper_msgld", "adam_weight_decay", "AdamW's own", 1e-2, MSGLD_CODE),
    Row("paper_msgld", "max_grad_norm", "no clipping", float("inf"), MSGLD),
    Row("paper_msgld", "use_ema", "yes", True, MSGLD_CODE),
    Row("paper_msgld", "mixed_precision", "32 bits", "bf16", MSGLD, ours=True),
    Row("paper_instglow", "parameters", "15 M", "15.3 M", f"{LDM} Table II"),
    Row("paper_instglow", "blocks", "12", 12, GLOW),
    Row("paper_instglow", "hidden", "128", 100, GLOW, ours=True),
    Row("paper_instglow", "sampling_rate", "22.05 kHz", 22_050, GLOW),
    Row("paper_instglow", "batch", "32", 32, GLOW),
    Row("paper_instglow", "learning_rate", "1e-4", 1e-4, GLOW),
    Row("paper_instglow", "lr_decay", "0.3 every 80,000 steps", 0.3, GLOW),
    Row("paper_instglow", "lr_decay_steps", "80,000", 80_000, GLOW),
    Row("paper_instglow", "adam_beta2", "Adam's own (0.98 is listed, not read)", 0.999, GLOW_CODE),
    Row("paper_instglow", "adam_weight_decay", NONE_OF_ADAM, 0.0, GLOW_CODE),
    Row("paper_instglow", "max_grad_norm", "4", 4.0, GLOW_CODE),
    Row("paper_instglow", "mixed_precision", "fp16", "no", GLOW, ours=True),
    Row("paper_instglow", "augmentations", "none", [], GLOW_CODE),
    # what several files have alike: the system itself, MUSDB18-HQ, Adam without a warmup or averages
    Row("paper_codec", "data_root", "MUSDB18-HQ", HQ, f"{LDM} IV-A"),
    Row("paper_latents", "data_root", "MUSDB18-HQ", HQ, f"{LDM} IV-A"),
    Row("paper_stage1", "pretrained_model_name_or_path", "random weights", None, f"{LDM} III-E3"),
    *(
        Row(f"paper_{system}", key, says, value, source)
        for system, paper, code in (
            ("bsrnn", BSRNN, BSRNN), ("hdemucs", "Defossez 2021", DEMUCS),
            ("msdm", "Mariani and others 2024", MSDM_CODE),
            ("msgld", "Karchkhadze and others 2025", MSGLD_CODE),
            ("instglow", "Zhu and others 2022", GLOW_CODE),
        )
        for key, says, value, source, systems in (
            ("system", "its system", system, paper, "bsrnn hdemucs msdm msgld instglow"),
            ("data_root", "MUSDB18, or its HQ version", HQ, code, "bsrnn hdemucs instglow"),
            ("channels", "stereo", 2, code, "bsrnn hdemucs"),
            ("optimizer", NONE_OF_ADAM, "adamw", code, "bsrnn hdemucs msdm instglow"),
            ("lr_warmup_steps", "none", 0, code, "bsrnn hdemucs msdm msgld instglow"),
            ("lr_decay_steps", "constant", 1, code, "hdemucs msdm msgld"),
            ("use_ema", "none", False, code, "bsrnn msdm instglow"),
        )
        if system in systems.split()
    ),
    Row("paper_bsrnn", "pairs", "an epoch of 20,000 excerpts", 20_000, BSRNN_CODE),
    Row("paper_bsrnn", "train_batch_size", "2 on each GPU", 2, BSRNN),
    Row("paper_bsrnn", "mixed_precision", "not named", "no", BSRNN, ours=True),
    Row("paper_hdemucs", "mixed_precision", "not named", "no", DEMUCS, ours=True),
    Row("paper_msgld", "mask_channels", "none", 0, MSGLD),
    Row("paper_msgld", "ema_decay", "0.9999", 0.9999, MSGLD_CODE),
]  # fmt: skip
PAPER_FILES = sorted(path.stem for path in CONFIGS.glob("paper_*.yaml"))
# Said nowhere else, and no part of a recipe.
UNSAID = {
    "target",
    "seed",
    "resume_from_checkpoint",
    "checkpoints_total_limit",
    "logging_steps",
    "compile",
    "data_on_device",
    "deterministic",
}


def config_class(values):
    """The dataclass that reads a file's values."""
    if {"shard_size", "codec"} <= values.keys():
        return LatentConfig
    if {"init", "ratios"} & values.keys():
        return CodecTrainConfig
    return importlib.import_module(TRAINABLE[values.get("system", "ldm-dmx")]).TrainConfig


def read(file):
    """A file as the commands read it."""
    values = read_yaml(CONFIGS / f"{file}.yaml")
    return from_values(config_class(values), values)


def figure(file, key):
    """What a file says of a row's key; "batch" is the effective one, "parameters" the trained system's."""
    config = read(file)
    if key == "batch":
        return PROCESSES * config.train_batch_size * config.gradient_accumulation_steps
    if key == "parameters":
        return f"{count(config) / 1e6:.1f} M"
    return getattr(config, key)


def count(config):
    """Parameters of the system of a config; of LDM-dmx with the conditioner, as the paper counts."""
    with torch.device("meta"):  # shapes without numbers
        if config.system != "ldm-dmx":
            modules = [new_model(baselines.load(config.system), config)]
        else:
            wanted = inspect.signature(VocalUNet1D).parameters
            sizes = {name: value for name, value in vars(config).items() if name in wanted}
            unet = VocalUNet1D(latent_channels=129, condition_channels=128, **sizes)
            modules = [unet, SEANetEncoder(channels=2, norm="time_group_norm")]
        return sum(parameter.numel() for module in modules for parameter in module.parameters())


def marks(file):
    """key -> the comment beside it."""
    lines = (CONFIGS / f"{file}.yaml").read_text().splitlines()
    pairs = (re.fullmatch(r"(\w+):.*?(?:  ?# (.*))?", line) for line in lines if not line.startswith("#"))
    return {pair[1]: pair[2] or "" for pair in pairs}


def table():
    """The specification in markdown: what each paper says, and what the config says."""
    text = [
        "# Paper says, config says\n",
        "`python tests/test_configs.py > dmxlib/configs/SPECIFICATION.md` writes this file from the "
        "YAML files; a test fails where it is stale.\nSections: of arXiv 2511.20470. Files: of the "
        f"authors' repositories that a config names. `batch`: over all of {PROCESSES} processes.\n"
        "◇: ours, with the reason in the config.\n",
    ]
    for file in dict.fromkeys(row.file for row in SPECIFICATION):
        rows = [row for row in SPECIFICATION if row.file == file]
        cells = [
            [
                f"`{row.key}`",
                row.says,
                f"{shown(figure(file, row.key))}{' ◇' if row.ours else ''}",
                row.source,
            ]
            for row in rows
        ]
        text.append(
            f"## {file}.yaml\n\n{markdown(['setting', 'paper says', 'config says', 'source'], cells)}"
        )
    return "\n".join(text)


def shown(value):
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


# -- what the papers fix -------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", SPECIFICATION, ids=lambda row: f"{row.file}-{row.key}")
def test_a_key_that_a_paper_fixes_has_its_value(row):
    assert figure(row.file, row.key) == row.value, f"{row.source}: {row.says}"
    if row.key in marks(row.file):
        assert marks(row.file)[row.key].startswith("ours" if row.ours else "paper")


@pytest.mark.parametrize("file", PAPER_FILES)
def test_every_key_is_said_and_marked(file):
    config = read(file)
    for key, mark in marks(file).items():
        assert re.match(r"paper\b|ours: \w", mark), f"{key} is neither the paper's nor ours with a reason"
    unsaid = {field.name for field in dataclasses.fields(config)} - marks(file).keys() - UNSAID
    if file != "paper_latents" and not config.use_ema:
        unsaid -= {"ema_decay"}
    if file == "paper_codec":  # nothing is trained
        unsaid -= {field.name for field in dataclasses.fields(CodecTrainConfig)}
    if file == "paper_stage2":  # the saved system's own
        unsaid -= {
            *inspect.signature(VocalUNet1D).parameters,
            "codec",
            "chunk_frames",
            "level_channel",
            "num_inference_steps",
        }
    assert not unsaid


@pytest.mark.parametrize("file", PAPER_FILES)
def test_every_key_marked_as_the_papers_has_a_row(file):
    marked = {key for key, mark in marks(file).items() if mark.startswith("paper")}
    assert marked <= {row.key for row in SPECIFICATION if row.file == file}


def test_every_paper_file_has_its_rows():
    assert {row.file for row in SPECIFICATION} == set(PAPER_FILES)


def test_the_stages_share_batch_and_data():
    first, second = read("paper_stage1"), read("paper_stage2")
    assert figure("paper_stage1", "batch") == figure("paper_stage2", "batch")
    for key in ("data_root", "augmentations", "t_power", "optimizer", "adam_weight_decay", "adam_beta2"):
        assert getattr(first, key) == getattr(second, key)
    assert second.learning_rate <= first.learning_rate / 5, "stage 2's learning rate is small"
    assert second.pretrained_model_name_or_path == f"{first.output_dir}/model"
    assert first.codec == f"{read('paper_codec').output_dir}/model"


def test_the_codec_is_calibrated_at_the_separators_length():
    for codec, separator in (("paper_codec", "paper_stage1"), ("mini_ldm_dmx_codec", "mini_ldm_dmx_stage1")):
        assert {"chunk_frames", "calibration_excerpts"} <= marks(codec).keys()
        assert read(codec).chunk_frames == read(separator).chunk_frames
        assert read(codec).calibration_excerpts >= 300
    assert read("paper_latents").chunk_frames == read("paper_stage1").chunk_frames


def test_the_table_is_in_step():
    assert TABLE.read_text() == table(), "run python tests/test_configs.py > dmxlib/configs/SPECIFICATION.md"


# -- the other configs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", sorted(path.stem for path in CONFIGS.glob("*.yaml")))
def test_augmentations_are_named_where_pairs_are_made(file):
    values = read_yaml(CONFIGS / f"{file}.yaml")
    codec = config_class(values) is CodecTrainConfig
    makes_pairs = codec or ("pairs" in values and "latent_cache" not in values)
    assert ("augmentations" in values) >= makes_pairs
    joint = values.get("system") in ("msdm", "msgld", "instglow") or values.get("accompaniment")
    if joint and makes_pairs:  # priors of real songs
        assert not {"stem_remix", "layer", "tone"} & {*values["augmentations"]}


def test_the_papers_recipe_at_mini_size():
    paper = [read(f"paper_stage{stage}") for stage in (1, 2)]
    mini = [read(f"mini_ldm_dmx_stage{stage}") for stage in (1, 2)]
    for big, small in zip(paper, mini, strict=True):
        for key in ("system", "train_conditioner", "t_power", "optimizer", "adam_weight_decay"):
            assert getattr(small, key) == getattr(big, key), key
    for key in ("first_injection", "mask_channels", "interpolation", "level_channel"):
        assert getattr(mini[0], key) == getattr(paper[0], key), key
    cache, codec = read("mini_ldm_dmx_latents"), read("mini_ldm_dmx_codec")
    assert cache.augmentations == PAPERS_FOUR and cache.codec == mini[0].codec == f"{codec.output_dir}/model"
    assert cache.output_dir == mini[0].latent_cache == mini[1].latent_cache
    assert mini[1].pretrained_model_name_or_path == f"{mini[0].output_dir}/model"
    batches = [config.train_batch_size * config.gradient_accumulation_steps for config in mini]
    assert batches[0] == batches[1] and codec.max_train_steps == 0
    assert codec.normalization == read("paper_codec").normalization == "range"


@pytest.mark.parametrize("system", ["codec", "bsrnn", "hdemucs", "msgld"])
def test_more_than_two_channels_are_refused(system):
    config = CodecTrainConfig if system == "codec" else baselines.module(system).TrainConfig
    with pytest.raises(InputError, match="channels is 3; choose 1 or more, 2 at most"):
        from_values(config, {"channels": 3})


def test_accelerate_reads_the_config_of_two_nodes(tmp_path):
    block = re.search(r"(?:^    \w+: .*\n)+", (CONFIGS / "README.md").read_text(), re.M)[0]
    (tmp_path / "two_nodes.yaml").write_text(textwrap.dedent(block))
    config = load_config_from_file(str(tmp_path / "two_nodes.yaml"))
    assert (config.num_machines, config.num_processes, config.distributed_type) == (2, 8, "MULTI_GPU")
    assert (config.machine_rank, config.main_process_ip) == (0, "HOST")
    stage1 = read("paper_stage1")
    assert 8 * 4 == PROCESSES * stage1.train_batch_size * stage1.gradient_accumulation_steps


if __name__ == "__main__":
    print(table(), end="")
