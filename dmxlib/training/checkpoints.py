"""Checkpoints: folders checkpoint-<step>/ of a run's folder, which survive a kill.

They are not Accelerate's own: it opens any pickle in the place of the averages, and cannot load what several
processes saved.
"""

import json
import pickle
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from dmxlib.errors import InputError
from dmxlib.reproduce import whole

# The files of a checkpoint; the marker is written last.
WEIGHTS, AVERAGES, OPTIMIZER = "model.safetensors", "averages.safetensors", "optimizer.pt"
MARKER = "complete.json"
LOADING_ERRORS = (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError, SafetensorError)


def save(folder: Path, counts: dict, module, averages: list, optimizer, keep: int) -> None:
    """Write checkpoint-<step> of a run's folder, whole or not at all; keep the newest few, and the one with
    the lowest validation loss.

    Args:
        counts: {"step", "skipped"} and, where it was validated, {"validation_loss"}: the marker's content.
        module: unwrapped.
        averages: of the trained parameters, in their order; none without EMA.
        keep: how many checkpoints.

    Raises InputError where the disk is full.
    """
    state = {name: tensor.contiguous() for name, tensor in module.state_dict().items()}
    with whole(folder / f"checkpoint-{counts['step']}") as part:
        part.mkdir()
        save_file(state, part / WEIGHTS)
        save_file({str(index): tensor for index, tensor in enumerate(averages)}, part / AVERAGES)
        torch.save(optimizer.state_dict(), part / OPTIMIZER)
        (part / MARKER).write_text(json.dumps(counts))
    best = best_checkpoint(folder)
    for old in complete_checkpoints(folder)[:-keep]:
        if old != best:
            shutil.rmtree(old)


def load(checkpoint: Path, module, optimizer) -> tuple[dict, list]:
    """Give a module and its optimiser what `save` wrote; returns its (counts, averages).

    Raises InputError where the checkpoint is of other settings, damaged, or a pickle of more than numbers.
    """
    try:
        counts = json.loads((checkpoint / MARKER).read_text())
        weights, averages = load_file(checkpoint / WEIGHTS), load_file(checkpoint / AVERAGES)
        state = torch.load(checkpoint / OPTIMIZER, map_location="cpu", weights_only=True)
        module.load_state_dict(weights)
        optimizer.load_state_dict(_fitted(state, module, optimizer))
    except LOADING_ERRORS as error:
        raise InputError(
            f"{checkpoint} cannot be loaded: it is of other settings, damaged, or holds a pickle of "
            f"something else than numbers, which is not opened ({type(error).__name__})."
        ) from error
    return counts, [averages[str(index)] for index in range(len(averages))]


def _fitted(saved: dict, module, optimizer) -> dict:
    """An optimiser's saved state with the settings that this run has.

    In a state of before vectors had a group of their own, the parameters stand in the module's order.
    """
    old, own = saved["param_groups"], optimizer.state_dict()["param_groups"]
    if sum(len(group["params"]) for group in old) != sum(len(group["params"]) for group in own):
        raise ValueError("other parameters were trained")
    state = saved["state"]
    if len(old) < len(own):
        grouped = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        place = {parameter: index for index, parameter in enumerate(grouped)}
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        state = {place[trained[index]]: values for index, values in state.items()}
    return {"state": state, "param_groups": own}


def tidy(folder: Path) -> None:
    """Remove what a kill left half written; the folder has to be one process's own."""
    for pattern in (".checkpoint-*.part*", "checkpoint-*.part"):  # the latter of earlier versions
        for part in folder.glob(pattern):
            shutil.rmtree(part)


def complete_checkpoints(folder: Path) -> list[Path]:
    """The folder's checkpoints whose marker was written, oldest first."""
    paths = (marker.parent for marker in folder.glob(f"checkpoint-*/{MARKER}"))
    return sorted(paths, key=lambda path: int(path.name.rpartition("-")[2]))


def best_checkpoint(folder: Path) -> Path | None:
    """The folder's checkpoint with the lowest validation loss, the newest of equals; None without any."""
    losses = {
        path: json.loads((path / MARKER).read_text()).get("validation_loss")
        for path in reversed(complete_checkpoints(folder))
    }
    return min((path for path in losses if losses[path] is not None), key=losses.get, default=None)


def find_checkpoint(name: str | None, folder: Path) -> Path | None:
    """None, "latest" (the newest complete one, if any) or a path -> the checkpoint's folder.

    Raises InputError where the path is a file or incomplete, or the folder holds a later checkpoint.
    """
    if name is None:
        if complete_checkpoints(folder):
            raise InputError(
                f"{folder} holds a run already; add --resume_from_checkpoint latest or choose another folder."
            )
        return None
    if name == "latest":
        return next(reversed(complete_checkpoints(folder)), None)
    checkpoint = Path(name)
    if checkpoint.is_file():
        raise InputError(
            f"{checkpoint} is a file; give a checkpoint folder of this project, pickles are not opened."
        )
    if not (checkpoint / MARKER).is_file():
        raise InputError(f"{checkpoint} is no complete checkpoint: it has no {MARKER}; use 'latest'.")
    others = complete_checkpoints(folder)
    if others and others[-1].resolve() != checkpoint.resolve():
        raise InputError(
            f"{folder} holds {others[-1].name}; remove what is later than {checkpoint}, or use latest."
        )
    return checkpoint
