"""The error for unusable input, warnings that point to the user's code, and packages that may not be installed."""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from typing import Any


class MinibertError(ValueError):
    """Input that cannot be used: a value, a text, a file's content or a setting. The message says how to fix it.

    Files and networks raise Python's own errors: FileNotFoundError, PermissionError, ConnectionError. Wrong argument
    names raise TypeError; a missing optional package raises ImportError. Any other error is a bug.
    """


def warn(message: str) -> None:
    """Issue a warning attributed to the line of user code that called this library, at any depth of the call stack."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "minibert":
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)


def optional(module: str, what: str, package: str) -> Any:
    """Import a module of an optional package.

    Raises:
        ImportError: the package is not installed; the message says how to install it.
    """
    try:
        return import_module(module)
    except ImportError:
        raise ImportError(f"{what} needs {package}, which is not installed; pip install {package}") from None
