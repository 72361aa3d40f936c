"""A codec by name: one that ships, a saved folder, or EnCodec's official weights."""

import contextlib
import hashlib
import re
from pathlib import Path

import torch
from diffusers.utils import SAFETENSORS_WEIGHTS_NAME
from encodec.model import ROOT_URL
from safetensors import SafetensorError
from safetensors.torch import load_file

from dmxlib.codec import Codec
from dmxlib.codec.quantizer import QuantizedCodec
from dmxlib.errors import InputError
from dmxlib.weights import find

# What `EncodecModel.encodec_model_48khz` and `encodec_model_24khz` build.
OFFICIAL = {
    "48khz": {
        "sampling_rate": 48_000,
        "seanet": {"channels": 2, "norm": "time_group_norm", "causal": False, "ratios": [8, 5, 4, 2]},
        "n_q": 16,
        "normalize": True,
    },
    "24khz": {
        "sampling_rate": 24_000,
        "seanet": {"channels": 1, "norm": "weight_norm", "causal": True, "ratios": [8, 5, 4, 2]},
        "n_q": 32,
        "normalize": False,
    },
}
TH_FILES = {"48khz": "encodec_48khz-7e698e3e.th", "24khz": "encodec_24khz-d7cc33bc.th"}
OURS = "normalization."  # the tensors that no official file has


def load_codec(name: str, quantized: bool = False) -> Codec:
    """The codec that ships ("encodec-mini"), that of a saved folder, or what `from_encodec` takes.

    A folder whose config has the key `codec`, a name, holds codebooks alone; the rest is the codec of that
    name.

    Args:
        quantized: give a `QuantizedCodec`.

    Raises InputError where there is no such codec, or it has no codebooks and they are asked for.
    """
    folder = find(name, Codec.config_name)
    if not folder:
        return from_encodec(name, quantized)
    config = Codec.load_config(folder)
    if quantized and "n_q" not in config:
        raise InputError(f"codec {name} has no codebooks; name the model/ of a run of dmxlib.train_codec.")
    if "codec" not in config:
        cls = QuantizedCodec if quantized else Codec
        return cls.from_pretrained(folder)
    codec = load_codec(config["codec"])
    if not quantized:
        return codec
    whole = QuantizedCodec.from_config(codec.config, n_q=config["n_q"], bins=config["bins"])
    try:
        whole.load_state_dict(codec.state_dict() | load_file(folder / SAFETENSORS_WEIGHTS_NAME))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise InputError(f"the codebooks in {folder} are missing, damaged or another codec's.") from error
    return whole.eval()


def from_encodec(source: str, quantized: bool = False) -> Codec:
    """The official weights of "48khz" or "24khz", or those of a local .safetensors or .th file.

    A name is looked up on the Hugging Face hub (facebook/encodec_48khz), then at EnCodec's own address.
    Its latents are not calibrated: `python -m dmxlib.train_codec --init 48khz --max_train_steps 0` does
    that.

    Args:
        quantized: give a `QuantizedCodec`.

    Raises InputError where there is no such file, no connection, or a file with other weights.
    """
    state, name_in = _fetch(source) if source in OFFICIAL else _read(Path(source))
    for official in OFFICIAL.values():
        codec = (QuantizedCodec if quantized else Codec).from_config(official)
        try:
            theirs = [name for name in codec.state_dict() if not name.startswith(OURS)]
            ours = codec.normalization.state_dict(prefix=OURS)
            codec.load_state_dict({name: state[name_in(name)] for name in theirs} | ours)
            return codec.eval()
        except (KeyError, RuntimeError, TypeError):  # the other model's names or shapes, or no weights
            continue
    raise InputError(f"{source} does not hold the weights of EnCodec's 48 kHz or 24 kHz model.")


def _fetch(name: str):
    """The tensors of an official model, and the function from the package's names to theirs."""
    from huggingface_hub import hf_hub_download

    with contextlib.suppress(Exception):  # offline, or a hub that is down: many kinds of error, one answer
        return _read(Path(hf_hub_download(f"facebook/encodec_{name}", "model.safetensors")))
    try:
        return torch.hub.load_state_dict_from_url(
            ROOT_URL + TH_FILES[name], map_location="cpu", check_hash=True, weights_only=True
        ), str
    except (OSError, RuntimeError) as error:  # the latter for a checksum that is not the one in the name
        raise InputError(
            f"EnCodec's {name} weights are not on this machine and cannot be fetched; download "
            f"model.safetensors of huggingface.co/facebook/encodec_{name} elsewhere and give its path."
        ) from error


def _read(path: Path):
    """The same of a local file."""
    if not path.is_file():
        raise InputError(
            f"{path} does not exist; give '48khz', '24khz', or a .safetensors or .th file of them."
        )
    if path.suffix == ".th":
        return _read_th(path), str
    try:
        return load_file(path), hugging_face_name
    except SafetensorError as error:
        raise InputError(f"{path} is no safetensors file; pickled weights are not opened.") from error


def _read_th(path: Path):
    """EnCodec's own file: a pickle, so its checksum (in its name, as published) first, then weights only."""
    checksum = path.stem.rpartition("-")[2]
    if len(checksum) < 8 or not hashlib.sha256(path.read_bytes()).hexdigest().startswith(checksum):
        raise InputError(
            f"{path} is damaged: its SHA-256 does not begin as its name ends; download it again."
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # bytes that are no pickle can raise anything
        raise InputError(f"{path} is a pickle of something else than weights; it is not opened.") from error


def hugging_face_name(name: str) -> str:
    """The package's parameter name -> that of the Hugging Face port; one to one."""
    name = re.sub(r"\.(conv|convtr)\.(conv|convtr)\.", ".conv.", name)
    name = re.sub(r"\.(conv|convtr)\.norm\.", ".norm.", name)
    name = re.sub(r"coder\.model\.(\d+)\.", r"coder.layers.\1.", name)
    return re.sub(r"quantizer\.vq\.layers\.(\d+)\._codebook\.", r"quantizer.layers.\1.codebook.", name)
