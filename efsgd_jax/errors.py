"""The exceptions that are not bugs: the user can fix this, or has asked for it."""


class UserError(ValueError):
    """A mistake in what the user asked for or supplied.

    The message is a single line that says what was wrong, where, the value seen and what to do.
    The command-line programs print it after ``error:`` and exit with code 2, without a traceback.
    """


class Stopped(Exception):
    """A run that was asked to end before its last step, by SIGTERM, and has kept its state; ``fit`` continues it."""
