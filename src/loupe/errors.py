"""The one base of every mistake that a person can mend: commands print its message instead of a traceback."""


class InputError(ValueError):
    """Something given to loupe is wrong; the message names the file or key and what to do."""
