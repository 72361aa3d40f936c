"""dmxlib: the singing voice of a song, separated by generating it."""

import os

# Before torch is imported: what a Mac's GPU cannot compute the processor does, and torch says so once.
os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")

__version__ = "0.1.0"
__all__ = ["Codec", "VocalSeparationPipeline", "VocalUNet1D", "load_separator"]

_HOMES = {
    "Codec": "codec",
    "VocalSeparationPipeline": "pipeline",
    "VocalUNet1D": "unet",
    "load_separator": "ensemble",
}


def __getattr__(name):
    """The public names, imported when asked for: `import dmxlib` stays quick."""
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"dmxlib.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'dmxlib' has no attribute '{name}'")
