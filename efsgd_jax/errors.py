"""The exceptions that do not indicate a bug: mistakes that the user can fix, and a stop that the user asked for."""


class UserError(ValueError):
    """A mistake in the user's request or data.

    The message is a single line that says what was wrong, where, which value was found, and what to do.
    The command-line programs print it after ``error:`` and exit with code 2, without a traceback.
    """


class Stopped(Exception):
    """A run was stopped by SIGTERM before its last step and has saved its state, from which ``fit`` can continue."""
