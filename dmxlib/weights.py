"""A name is a folder of weights: one that ships, or one on this machine."""

from pathlib import Path

FOLDER = Path(__file__).parent / "pretrained"


def places(name) -> tuple[Path, Path]:
    """Where a name is looked for: among what ships, and as a path."""
    return FOLDER / str(name), Path(name)


def find(name, file: str) -> Path | None:
    """The first of a name's places that holds `file` (config.json, model_index.json); None where neither
    does."""
    return next((folder for folder in places(name) if (folder / file).is_file()), None)


def shipped(file: str = "model_index.json") -> list[str]:
    """The names of what ships and holds `file`; by default those of the pipelines."""
    return sorted(path.parent.name for path in FOLDER.glob(f"*/{file}"))
