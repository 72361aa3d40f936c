"""Errors that the user can fix end the command with one line. Bugs keep their traceback."""

import contextlib
import errno
import functools
import sys
import warnings

# Of the system: a full disk, a quota, a limit of a file's size, a folder that is not to be written to.
MENDABLE = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENAMETOOLONG,
}
# Of torch, which has one type for all errors: words of the message, and the remedy.
OF_TORCH = {
    "out of memory": "the memory of the device is used up; close other programs or choose a smaller batch.",
    "not enough memory": "the memory is used up; close other programs or choose a smaller batch.",
    "process pool was terminated": "a process died, mostly for want of memory; choose fewer of them.",
    "DataLoader worker": "a process that reads the data died, mostly for want of memory; run the command "
    "again with fewer dataloader_num_workers or, where it has no such setting, on fewer cores (taskset).",
}


class InputError(ValueError):
    """The user's input cannot be used: one sentence that names the thing and the remedy."""


def unwritable(path, error: OSError, size: float | None = None) -> InputError:
    """The system's refusal to write a file, as a sentence; `size` in bytes is what the file needs."""
    reason = (error.strerror or str(error)).lower()
    if size and error.errno in (errno.ENOSPC, errno.EDQUOT):
        reason += f", {size / 1e6:.1f} MB are needed"
    return InputError(f"{path} cannot be written ({reason}); choose another folder.")


def check_named(folder: str, flag: str) -> None:
    """Raise InputError where a flag's folder to write to is empty, which would be the current folder."""
    if not folder:
        raise InputError(f"{flag} is empty; name a folder.")


def check_seed(seed: int) -> None:
    """Raise InputError for a --seed that torch or numpy does not take."""
    if not 0 <= seed < 2**64:
        raise InputError(f"--seed is {seed}; choose 0 to 2 ** 64 - 1.")


def sentence(error: BaseException) -> str | None:
    """What to tell the user of an error; None where it is a bug."""
    if isinstance(error, InputError):
        # a DataLoader's worker hands its whole traceback on
        return str(error).rpartition("InputError: ")[2].strip()
    if isinstance(error, OSError) and error.errno in MENDABLE:
        return f"{error.filename or 'a file'} cannot be written or read ({error.strerror.lower()})."
    if isinstance(error, MemoryError):
        return OF_TORCH["not enough memory"]
    if isinstance(error, RuntimeError):
        return next((told for words, told in OF_TORCH.items() if words in str(error)), None)
    return None


def _end_bars():
    """Of progress bars that are still open: what is told begins a line of its own."""
    from tqdm import tqdm

    for bar in [*getattr(tqdm, "_instances", ())]:
        bar.close()


def exit_on_input_error(main):
    """Wrap a command line's `main`: what the user can fix is printed to stderr and ends the process with
    code 1. A warning is one line. What the terminal's encoding lacks is printed with escapes."""

    @functools.wraps(main)
    def wrapped(*args, **kwargs):
        with contextlib.suppress(AttributeError):  # a notebook's
            sys.stdout.reconfigure(errors="backslashreplace")
        warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
        try:
            return main(*args, **kwargs)
        except KeyboardInterrupt:
            _end_bars()
            sys.exit("interrupted")
        except Exception as error:
            _end_bars()
            if told := sentence(error):
                sys.exit(f"error: {told}")
            raise

    return wrapped
