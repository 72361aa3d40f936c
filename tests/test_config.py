"""A setting has one name, in the dataclass, in the YAML file and as a flag, and a wrong one is refused."""

import dataclasses
import importlib
from dataclasses import dataclass

import pytest

from dmxlib.config import from_values, parse_config, read_yaml, setting, write_yaml
from dmxlib.errors import InputError
from dmxlib.train import TRAINABLE


@dataclass
class Config:
    name: str = "run"
    steps: int = 10
    rate: float = 1e-4
    fast: bool = False
    widths: list = setting([1, 2], "channels")
    init: str | None = None
    limit: float | None = setting(None, "at most 100 %")
    roots: str | list = "data/toy"
    blocks: int | list = 1


def parse(tmp_path, text, *flags):
    (tmp_path / "config.yaml").write_text(text)
    return parse_config(Config, ["--config", str(tmp_path / "config.yaml"), *flags], prog="test")


def test_defaults():
    assert parse_config(Config, []) == Config()


@pytest.mark.parametrize(
    "text, expected",
    [
        ("", Config()),
        ("rate: 1e-4", Config(rate=1e-4)),
        ("rate: 2", Config(rate=2.0)),
        ("rate: .5\nsteps: 7", Config(rate=0.5, steps=7)),
        ("fast: true", Config(fast=True)),
        ("fast: yes", Config(fast=True)),
        ("widths: [3, 4, 5]", Config(widths=[3, 4, 5])),
        ("widths:\n- 3\n- 4", Config(widths=[3, 4])),
        ("init: data/run", Config(init="data/run")),
        ("init: 48khz", Config(init="48khz")),
        ("init: null\nlimit: none", Config()),
        ("init:", Config()),
        ("limit: 1e3", Config(limit=1000.0)),
        ("roots: data/b", Config(roots="data/b")),
        ("roots: [data/a, data/b]", Config(roots=["data/a", "data/b"])),
        ("blocks: 3", Config(blocks=3)),
        ("blocks: [3, 4]", Config(blocks=[3, 4])),
        ("name: 2024", Config(name="2024")),
        ("name: no", Config(name="no")),
    ],
)
def test_yaml_values(tmp_path, text, expected):
    config = parse(tmp_path, text)
    assert config == expected
    for name, value in vars(config).items():
        assert type(value) is type(getattr(expected, name))


@pytest.mark.parametrize(
    "flags, expected",
    [
        (["--rate", "1e-4", "--steps", "7"], Config(rate=1e-4, steps=7)),
        (["--fast", "true"], Config(fast=True)),
        (["--fast", "False"], Config(fast=False)),
        (["--widths", "[3, 4]"], Config(widths=[3, 4])),
        (["--init", "none", "--limit", "2"], Config(limit=2.0)),
        (["--name", "no"], Config(name="no")),
    ],
)
def test_flags(flags, expected):
    assert parse_config(Config, flags) == expected


def test_flags_come_after_the_file(tmp_path):
    config = parse(tmp_path, "steps: 5\nname: file\ninit: x", "--steps", "6", "--init", "none")
    assert config == Config(steps=6, name="file")


@pytest.mark.parametrize(
    "text, word",
    [
        ("stepz: 5", "unknown key stepz; the keys are name, steps"),
        ("1: 5", "unknown key 1"),
        ("steps: many", "steps: 'many' is not a int"),
        ("steps: 1.5", "steps"),
        ("steps: true", "steps"),
        ("steps: null", "steps"),
        ("rate: fast", "rate"),
        ("rate: true", "rate"),
        ("rate: [1]", "rate"),
        ("fast: 1", "fast"),
        ("fast: maybe", "fast"),
        ("widths: 3", "widths"),
        ("widths: '[3, 4'", "widths"),
        ("name: [a]", "name"),
        ("name: ''", "name is empty"),
        ("blocks: many", "blocks: 'many' is not a int"),
        ("name:\n  a: 1", "name"),
        ("limit: x", "limit: 'x' is not a float"),
        ("just a sentence", "key: value"),
        ("- a\n- b", "key: value"),
        ("name: [a", "not YAML"),
        ("a: b: c", "not YAML"),
    ],
)
def test_wrong_values_are_refused(tmp_path, text, word):
    with pytest.raises(InputError) as error:
        parse(tmp_path, text)
    assert word in str(error.value) and "\n" not in str(error.value)


@dataclass
class Ranged:
    count: int = setting(4, "")
    none_too: int = setting(4, "", least=0, most=9)
    share: float = setting(0.5, "", least=0, most=1)
    free: float | None = setting(-3.0, "")
    widths: list = setting([8, 8], "")
    blocks: int | list = setting(1, "")


@pytest.mark.parametrize(
    "key, good, bad",
    [
        ("count", ["1"], ["0", "-1"]),
        ("none_too", ["0", "9"], ["-1", "10"]),
        ("share", ["0", "1"], ["-0.1", "1.1", "nan"]),
        ("free", ["-1e9", "inf", "none"], ["nan"]),
        ("widths", ["[1]"], ["[]", "[0]", "[8, -8]", "[a]", "[1.5]", "[[1]]"]),
        ("blocks", ["2", "[1, 2]"], ["0", "[0]", "[]"]),
    ],
)
def test_numbers_out_of_range_are_refused(key, good, bad):
    for value in good:
        parse_config(Ranged, [f"--{key}={value}"])
    for value in bad:
        with pytest.raises(InputError, match=rf"\A{key}[^\n]*\.\Z"):
            parse_config(Ranged, [f"--{key}={value}"])


def test_missing_and_unreadable_file(tmp_path):
    with pytest.raises(InputError, match="none.yaml does not exist"):
        parse_config(Config, ["--config", str(tmp_path / "none.yaml")])
    (tmp_path / "model.bin").write_bytes(bytes(range(128, 256)))
    with pytest.raises(InputError, match="model.bin is not YAML"):
        parse_config(Config, ["--config", str(tmp_path / "model.bin")])


def test_unknown_flag(capsys):
    with pytest.raises(SystemExit) as exit:
        parse_config(Config, ["--stepz", "3"])
    assert exit.value.code == 2 and "--stepz" in capsys.readouterr().err


@pytest.mark.parametrize(
    "config",
    [Config(), Config("no", 7, 1e-5, True, [3], "none of these", 0.5), Config(name="1e-4", roots=["7"])],
)
def test_write_yaml_round_trip(tmp_path, config):
    write_yaml(config, tmp_path / "config.yaml")
    assert parse_config(Config, ["--config", str(tmp_path / "config.yaml")]) == config
    assert list(read_yaml(tmp_path / "config.yaml")) == list(vars(config))


def test_from_values_keeps_values_of_the_right_type():
    assert from_values(Config, vars(Config(rate=0.1, widths=[4]))) == Config(rate=0.1, widths=[4])


def test_help_shows_every_key_and_default(capsys):
    with pytest.raises(SystemExit) as exit:
        parse_config(Config, ["--help"], prog="train", description="Trains.")
    shown = " ".join(capsys.readouterr().out.split())
    assert exit.value.code == 0 and "Trains." in shown and "--config FILE" in shown
    for name, value in vars(Config()).items():
        assert f"--{name} " in shown and f"(default: {value})" in shown
    assert "at most 100 % (default" in shown


@pytest.mark.parametrize("module", [*TRAINABLE.values(), "dmxlib.training.codec", "dmxlib.latents"])
def test_every_key_of_a_command_says_what_it_is(module):
    module = importlib.import_module(module)
    names = ("TrainConfig", "CodecTrainConfig", "LatentConfig")
    (config_class,) = (getattr(module, name) for name in names if hasattr(module, name))
    silent = [field.name for field in dataclasses.fields(config_class) if not field.metadata.get("help")]
    assert not silent


def test_keys_of_another_class_are_passed_over_where_asked_for(tmp_path):
    (tmp_path / "config.yaml").write_text("steps: 5\nwidth: 3")
    arguments = ["--config", str(tmp_path / "config.yaml"), "--name=x", "--depth=7", "--help"]
    assert parse_config(Config, arguments, others=True) == Config(steps=5, name="x")


def test_a_null_for_what_is_no_key_any_more_asks_for_nothing(tmp_path):
    assert parse(tmp_path, "log_weight: null\nsteps: 5") == Config(steps=5)


def test_lists_are_not_shared():
    Config().widths.append(3)
    assert Config().widths == [1, 2]


def test_shorter_spellings_of_two_keys():
    @dataclass
    class Command:
        data_root: str = "data/toy"
        output_dir: str = "data/out"

    assert parse_config(Command, ["--data", "a", "--out", "b"]) == Command("a", "b")
