"""What can be wrong with what a user gives."""


class MinibertError(ValueError):
    """A value, a text, a file's content or a setting that cannot be used; the message says which, and what to do.

    Files and networks keep Python's own errors: FileNotFoundError, PermissionError, ConnectionError. Anything else that
    is raised is a defect of this library.
    """
