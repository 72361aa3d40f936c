"""A name is a folder of weights: one that ships, or one on this machine."""

from pathlib import Path

FOLDER = Path(__file__).parent / "pretrained"


def find(name, file: str) -> Path | None:
    """The folder of a name that ships, or else of a path, that holds `file` (config.json, model_index.json);
    None where neither does."""
    folders = (folder for folder in (FOLDER / str(name), Path(name)) if (folder / file).is_file())
    return next(folders, None)


def shipped(file: str = "model_index.json") -> list[str]:
    """The names of what ships and holds `file`; by default those of the pipelines."""
    return sorted(path.parent.name for path in FOLDER.glob(f"*/{file}"))
