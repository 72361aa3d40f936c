"""A dataclass is a flat YAML file is a set of flags: one name for a setting, wherever it is given."""

import argparse
import contextlib
import dataclasses
import math
import typing
from pathlib import Path

import yaml

from dmxlib.errors import InputError
from dmxlib.reproduce import whole

SHORT = {"data_root": "--data", "output_dir": "--out"}  # other spellings of flags


def setting(default, help: str, least: float | None = None, most: float = math.inf):
    """A field of a config's dataclass.

    Args:
        help: its unit or meaning, which `--help` shows.
        least, most: of a number, or of each in a list; by default a whole number is 1 or more.
    """
    metadata = {"help": help, "least": least, "most": most}
    if isinstance(default, list):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def parse_config(config_class, argv=None, others: bool = False, **parser_options):
    """Fill `config_class` from `--config FILE` and then from flags `--key value`, one for each of its fields.

    Every field has a default; `setting` gives one its help.

    Args:
        others: pass over keys that are no field of `config_class`: it may decide which class has them.

    Raises InputError for a missing file, an unknown key, or a value that is not of the field's type or range.
    """
    parser_options["add_help"] = not others
    parser = argparse.ArgumentParser(allow_abbrev=False, **parser_options)
    parser.add_argument(
        "--config", metavar="FILE", help="flat YAML file of the keys below; flags come after it"
    )
    defaults = config_class()
    for field in dataclasses.fields(config_class):
        text = f"{field.metadata.get('help', '')} (default: {getattr(defaults, field.name)})"
        names = filter(None, (f"--{field.name}", SHORT.get(field.name)))
        parser.add_argument(*names, default=argparse.SUPPRESS, help=text.replace("%", "%%"))
    flags, rest = parser.parse_known_args(argv)
    if rest and not others:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    given = vars(flags)
    file = given.pop("config")
    values = read_yaml(file) if file else {}
    if others:
        values = {key: value for key, value in values.items() if key in vars(defaults)}
    return from_values(config_class, {**values, **given})


def read_yaml(path) -> dict:
    """The keys of a flat YAML file."""
    if not Path(path).is_file():
        raise InputError(f"config {path} does not exist; those that ship are in dmxlib/configs/.")
    try:
        values = yaml.safe_load(Path(path).read_text()) or {}
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"config {path} is not YAML ({' '.join(str(error).split())}).") from error
    if not isinstance(values, dict):
        raise InputError(f"config {path} is not a list of 'key: value' lines.")
    return values


def from_values(config_class, values: dict):
    """Build `config_class` from a dict whose values may be strings (flags; YAML reads 1e-4 as one)."""
    types = typing.get_type_hints(config_class)
    # an old run's file may hold a null for what is no key any more
    unknown = sorted(str(key) for key, value in values.items() if key not in types and value is not None)
    if unknown:
        raise InputError(f"unknown key {', '.join(unknown)}; the keys are {', '.join(types)}.")
    config = config_class(**{key: _convert(key, values[key], types[key]) for key in values if key in types})
    for field in dataclasses.fields(config):
        if field.metadata and field.name in values:
            _check(field, getattr(config, field.name))
    return config


def _check(field, value) -> None:
    """Refuse a number that is out of a setting's range."""
    default = field.default if field.default is not dataclasses.MISSING else field.default_factory()
    if isinstance(value, list) and (type(default) is int or {*map(type, default)} == {int}):
        if {*map(type, value)} != {int}:
            raise InputError(f"{field.name}: {value} is not a list of whole numbers.")
    for number in value if isinstance(value, list) else [value]:
        if type(number) not in (int, float):
            continue
        least, most = field.metadata["least"], field.metadata["most"]
        if least is None:
            least = 1 if type(number) is int else -math.inf
        if not least <= number <= most:  # so is nan
            below = f", {most} at most" if math.isfinite(most) else ""
            wanted = "a number" if least == -math.inf else f"{least} or more{below}"
            raise InputError(f"{field.name} is {number}; choose {wanted}.")


def _convert(key, value, kind):
    if type(None) in typing.get_args(kind):
        if value is None or value == "none":
            return None
        kind = typing.get_args(kind)[0]
    if list in typing.get_args(kind):  # one value, or a list of them
        (single,) = set(typing.get_args(kind)) - {list}
        kind = list if isinstance(value, list) or str(value).startswith("[") else single
    if kind is str and isinstance(value, bool):
        value = "yes" if value else "no"  # a bare no, which YAML reads as false
    if value == "":  # of a path it would be the current folder
        raise InputError(f"{key} is empty; give it a value or leave it out.")
    with contextlib.suppress(ValueError, yaml.YAMLError):
        if kind in (bool, list) and isinstance(value, str):
            value = yaml.safe_load(value)
        if type(value) is kind:
            return value
        if {kind, type(value)} <= {int, float, str} and not (kind is int and type(value) is float):
            return kind(value)
    raise InputError(f"{key}: {value!r} is not a {kind.__name__}.")


def take(config, used) -> None:
    """Set the fields of a config that `used`, of a loaded system or a latent cache, has as well: a run's
    folder then records what was trained, and on what."""
    for field in dataclasses.fields(config):
        if field.name in used:
            value = used[field.name]
            setattr(config, field.name, list(value) if isinstance(value, tuple) else value)


def write_yaml(config, path) -> None:
    """Save a config so that `--config` reads it back."""
    with whole(path) as part:
        part.write_text(yaml.safe_dump(dataclasses.asdict(config), sort_keys=False))
