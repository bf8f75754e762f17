"""The one exception that means: the user can fix this."""


class UserError(ValueError):
    """A mistake in what the user asked for or supplied.

    The message is a single line that says what was wrong, where, the value seen and what to do.
    The command-line programs print it after ``error:`` and exit with code 2, without a traceback.
    """
