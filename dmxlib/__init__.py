"""dmxlib: the singing voice of a song, separated by generating it."""

__version__ = "0.1.0"
__all__ = ["Codec", "VocalSeparationPipeline", "VocalUNet1D"]

_HOMES = {"Codec": "codec", "VocalSeparationPipeline": "pipeline", "VocalUNet1D": "unet"}


def __getattr__(name):
    """The public classes, imported when asked for: `import dmxlib` stays quick."""
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"dmxlib.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'dmxlib' has no attribute '{name}'")
