"""The one exception that stands for a mistake of the user's."""


class UserError(ValueError):
    """A mistake of the user's: its message is one sentence that says what, where and what to do.

    Commands print the sentence without a traceback and exit with code 1.
    """
