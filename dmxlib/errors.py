"""What a user can mend is told in one sentence; everything else keeps its traceback."""

import functools
import sys


class InputError(ValueError):
    """The user's input cannot be used: one sentence that names the thing and the remedy."""


def exit_on_input_error(main):
    """Wrap a command line's `main`: an InputError is printed to stderr and ends the process with code 1."""

    @functools.wraps(main)
    def wrapped(*args, **kwargs):
        try:
            return main(*args, **kwargs)
        except InputError as error:
            sys.exit(f"error: {error}")
        except KeyboardInterrupt:
            sys.exit("interrupted")

    return wrapped
