"""What can be wrong with what a user gives, and how they are warned."""

import sys
import warnings


class MinibertError(ValueError):
    """A value, a text, a file's content or a setting that cannot be used; the message says which, and what to do.

    Files and networks keep Python's own errors: FileNotFoundError, PermissionError, ConnectionError. A call with wrong
    argument names is a TypeError; an optional package that is not installed, an ImportError. Any other error is a bug.
    """


def warn(message: str) -> None:
    """Warn the user, with the line of their code that called this library, however deep inside the reason was found."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "minibert":
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)
