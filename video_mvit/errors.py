"""The exceptions that stand for a mistake of the user's."""


class UserError(ValueError):
    """A mistake of the user's: its message is one sentence that says what, where and what to do.

    Commands print the sentence without a traceback and exit with code 1.
    """


class MissingFileError(UserError, FileNotFoundError):
    """A `UserError` about a file or folder that is not there."""
