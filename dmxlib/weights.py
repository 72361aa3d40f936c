"""A name is a folder of weights: one that ships, or one on this machine. It is loaded whole or not at all."""

from pathlib import Path

from safetensors import SafetensorError

from dmxlib.errors import InputError

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


class Saved:
    """Stands before `ModelMixin` among a class's bases: all its weights have to be in the folder. diffusers
    itself leaves at random what a file lacks.

    Its methods raise InputError where a folder is another model's or another version's, damaged, or pickled.
    """

    @classmethod
    def load_config(cls, folder, **kwargs):
        """The settings in a folder's config.json."""
        try:
            loaded = super().load_config(folder, **kwargs)
            if not isinstance(loaded[0] if isinstance(loaded, tuple) else loaded, dict):
                raise TypeError("no settings")
            return loaded
        except (OSError, ValueError, TypeError, AttributeError, LookupError) as error:
            raise InputError(f"{folder} holds no {cls.config_name} that can be read.") from error

    @classmethod
    def from_pretrained(cls, folder, **kwargs):
        """The model that a folder holds."""
        from diffusers.utils import logging  # torch comes with it, which --help does without

        kwargs = {"use_safetensors": True, "low_cpu_mem_usage": False} | kwargs
        told = logging.get_verbosity()
        logging.set_verbosity(logging.CRITICAL)  # what is said here says it in one line
        try:
            model, info = super().from_pretrained(folder, **kwargs, output_loading_info=True)
            if any(info.values()):
                raise ValueError("the weights are another model's")
        except InputError:
            raise
        except (OSError, ValueError, RuntimeError, TypeError, SafetensorError) as error:
            raise InputError(
                f"{folder} cannot be loaded: its config.json is another model's or another version's, or its "
                f"weights are missing, damaged, another model's or no safetensors ({type(error).__name__})."
            ) from error
        finally:
            logging.set_verbosity(told)
        return model.eval()
