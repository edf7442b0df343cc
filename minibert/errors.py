"""The error for unusable input, warnings that point to the user's code, and packages that may not be installed."""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from typing import Any
from unicodedata import category

LONGEST_MESSAGE = 4_000
OVERRIDES = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # of the direction of writing


class MinibertError(ValueError):
    """Input that cannot be used: a value, a text, a file's content or a setting. The message says how to fix it.

    Files and networks raise Python's own errors: FileNotFoundError, PermissionError, ConnectionError. Wrong argument
    names raise TypeError; a missing optional package raises ImportError. Any other error is a bug.

    The message is one line of at most `LONGEST_MESSAGE` characters, whatever the values in it hold.
    """

    def __init__(self, message: str = "", *more: object) -> None:
        super().__init__(one_line(str(message)), *more)


def one_line(message: str) -> str:
    """A message without control characters and surrogates, which are escaped, and shortened in the middle."""
    if len(message) > LONGEST_MESSAGE:
        half = LONGEST_MESSAGE // 2 - 5
        message = f"{message[:half]} [...] {message[-half:]}"
    return printable(message)


def printable(text: str) -> str:
    """A text in which characters that can act on a terminal are escaped; it has one line then.

    Those are the control characters, surrogates, separators of lines and overrides of the direction of writing.
    """
    if text.isprintable():
        return text
    return "".join(ascii(c)[1:-1] if category(c) in ("Cc", "Cs", "Zl", "Zp") or c in OVERRIDES else c for c in text)


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
