"""Encode a data set once: augmented vocal and mixture pairs in a latent cache on disk.

`python -m dmxlib.latents --data_root data/toy --codec CODEC --output_dir data/latents/toy` writes shards of
- "latents" (n, dimension + 1, F): what the U-Net learns to sample, the vocals' latents and their level;
- "condition" (n, dimension, F): the mixture's latents, all that stage 1 reads;
- "mixture" (n, channels, T): the mixture's samples as 16-bit integers, for stage 2;
- "accompaniment", where the setting says so: as "latents", of what is not the vocals, for MSG-LD.
`accelerate launch -m dmxlib.latents` shares the work out to processes.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from dmxlib.codec import Codec, Conditioner
from dmxlib.codec.load import load_codec
from dmxlib.config import parse_config, setting
from dmxlib.data import PairsConfig, VocalPairs, training_pairs
from dmxlib.device import cores, prefer_speed
from dmxlib.errors import InputError, exit_on_input_error
from dmxlib.level import encode_pair
from dmxlib.reproduce import alone, batches, ignore_signals, whole

MAX_WORKERS = 8  # of a process: as many keep a GPU busy


@dataclass
class LatentConfig(PairsConfig):
    """What a cache is made of; kept in its cache.json."""

    codec: str = setting("data/runs/mini_codec/model", "name or folder of the codec")
    output_dir: str = setting("data/latents/toy", "folder of the cache")
    shard_size: int = setting(64, "pairs in a file")
    chunk_frames: int = setting(512, "latent frames of an excerpt")
    accompaniment: bool = setting(False, "encode the accompaniment as well, which MSG-LD learns")
    seed: int = setting(0, "of the pairs and their augmentations", least=0)


def pairs_of(config: PairsConfig, codec: Codec) -> tuple[VocalPairs, VocalPairs]:
    """The (training, validation) pairs for a codec: `training_pairs` of `config.chunk_frames` frames."""
    rate = codec.config.sampling_rate
    return training_pairs(config, config.chunk_frames * codec.hop_length / rate, rate, codec.channels)


@torch.no_grad()
def encode_batch(codec: Codec, batch: dict, accompaniment: bool = False) -> dict:
    """{"vocals", "mixture"} waves (n, channels, T) -> {"latents", "condition", "mixture"}, and
    "accompaniment" where it is asked for; they come back from the codec's device."""
    vocals, mixture = (batch[key].to(codec.device) for key in ("vocals", "mixture"))
    encoded = {"latents": encode_pair(codec, vocals, mixture), "condition": codec.encode(mixture)}
    if accompaniment:
        encoded["accompaniment"] = encode_pair(codec, mixture - vocals, mixture)
    return {key: latents.cpu() for key, latents in encoded.items()} | {"mixture": batch["mixture"]}


def checksum(encoder: Conditioner) -> str:
    """Of all that the latents of a codec or a conditioner depend on: a cache is of no use to one that was
    trained further since."""
    digest = hashlib.sha256()
    for tensor in [*encoder.encoder.state_dict().values(), *encoder.normalization.buffers()]:
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()


def build_cache(config: LatentConfig, quiet: bool = False, state: PartialState | None = None) -> None:
    """Write the shards that are missing.

    Args:
        state: which of the processes that share the work this one is; None asks Accelerate.

    Raises InputError where the folder holds a cache of other settings, or another process makes one there.
    """
    folder = Path(config.output_dir)
    state = state or PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))
    with alone(folder, state.is_main_process):
        _build(config, folder, state, quiet)
        state.wait_for_everyone()  # the folder is all processes' as long as one of them writes


def _build(config, folder, state, quiet):
    codec = load_codec(config.codec)
    settings = {**asdict(config), "codec_checksum": checksum(codec)}
    description = folder / "cache.json"
    if description.exists() and read_settings(folder) != settings:
        raise InputError(
            f"{folder} holds a cache made with other settings; choose another output_dir or remove it."
        )
    training, validation = pairs_of(config, codec)  # before a cache is begun: they may be unusable
    if state.is_main_process:  # of two machines one would take the other's part for one of a killed process
        with whole(description) as part:
            part.write_text(json.dumps(settings, indent=2))
    jobs = [("valid", validation, range(len(validation)))] + [
        (f"{start:06d}", training, range(start, min(start + config.shard_size, len(training))))
        for start in range(0, len(training), config.shard_size)
    ]
    codec.to(state.device)
    prefer_speed()
    workers = min(MAX_WORKERS, max(1, cores() // state.num_processes))
    mine = jobs[state.process_index :: state.num_processes]
    for name, pairs, indices in tqdm(mine, desc=f"encode {folder}", unit="shard", disable=quiet):
        path = folder / f"{name}.safetensors"
        if not path.exists():
            # workers read, resample and augment the next pairs while these are encoded
            loader = DataLoader(
                Subset(pairs, indices), batch_size=4, num_workers=workers, worker_init_fn=ignore_signals
            )
            items = [encode_batch(codec, batch, config.accompaniment) for batch in batches(loader)]
            _write_shard(path, {key: torch.cat([item[key] for item in items]) for key in items[0]})


def read_settings(folder: Path) -> dict:
    """What a cache is made of, as of before a setting existed too. Raises InputError where its cache.json is
    damaged."""
    try:
        return {"accompaniment": False, "target": "vocals"} | json.loads((folder / "cache.json").read_text())
    except ValueError as error:
        raise InputError(f"{folder}/cache.json is damaged; remove the folder and make it again.") from error


def _write_shard(path, tensors):
    tensors["mixture"] = (tensors["mixture"] * 32767).round().clamp(-32768, 32767).to(torch.int16)
    tensors = {key: value.half() if value.is_floating_point() else value for key, value in tensors.items()}
    with whole(path) as part:
        save_file(tensors, part)


class CachedPairs(torch.utils.data.Dataset):
    """The items of a cache: {"latents", "condition"} for stage 1, {"latents", "mixture"} for stage 2.

    Args:
        folder: a cache that `build_cache` finished.
        condition: "condition" or "mixture", the key that is read beside the latents.
        validation: take the held-out pairs instead of the training ones.
        accompaniment: read the accompaniment's latents as well.

    Raises InputError where a shard is missing or damaged, or the cache has no accompaniment.
    """

    def __init__(self, folder, condition: str, validation: bool = False, accompaniment: bool = False):
        self.folder = folder = Path(folder)
        if not (folder / "cache.json").is_file():
            raise InputError(f"{folder} holds no latent cache; make one with python -m dmxlib.latents.")
        self.settings = read_settings(folder)
        if accompaniment and not self.settings["accompaniment"]:
            raise InputError(f"{folder} holds no accompaniment; make a cache with accompaniment: true.")
        self.condition = condition
        self.keys = ("latents", condition, *["accompaniment"] * accompaniment)
        self.length = self.settings["validation_pairs" if validation else "pairs"]
        self.shard_size = self.length if validation else self.settings["shard_size"]
        names = ["valid"] if validation else [f"{s:06d}" for s in range(0, self.length, self.shard_size)]
        self.paths = [folder / f"{name}.safetensors" for name in names]
        missing = [path.name for path in self.paths if not path.exists()]
        if missing:
            raise InputError(
                f"{folder} lacks {len(missing)} shards ({missing[0]} ...); run its command again."
            )
        for path in self.paths:  # of each the header alone
            if not self._is_shard(path):
                raise InputError(f"{path} is damaged or no shard; remove it and make it anew.")

    def _is_shard(self, path: Path) -> bool:
        try:
            with safe_open(path, "pt") as file:
                return {*self.keys} <= {*file.keys()}
        except SafetensorError:
            return False

    def check(self, **needed) -> None:
        """Raise InputError where the cache was made with another value of a setting."""
        for key, value in needed.items():
            if self.settings.get(key, value) != value:
                raise InputError(f"{self.folder} was made with another {key}; make one for this model.")

    @property
    def pairs_settings(self) -> dict:
        """What its pairs were made of: the fields of PairsConfig, as far as an older cache names them."""
        names = {field.name for field in fields(PairsConfig)}
        return {name: value for name, value in self.settings.items() if name in names}

    def set_epoch(self, epoch: int) -> None:
        """A cache is the same in every epoch."""

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        shard, position = divmod(index, self.shard_size)
        with safe_open(self.paths[shard], "pt") as file:
            item = {key: file.get_slice(key)[position].float() for key in self.keys}
        if self.condition == "mixture":
            item["mixture"] /= 32767
        return item


@exit_on_input_error
def main(argv=None) -> None:
    """Command line."""
    build_cache(parse_config(LatentConfig, argv, prog="python -m dmxlib.latents", description=__doc__))


if __name__ == "__main__":
    main()
