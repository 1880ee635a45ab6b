"""The terminal: text of a user's data is printed without control characters."""

from typing import Any

from rich.console import Console
from rich.errors import MarkupError
from rich.text import Text

from video_mvit.text import printable_lines


class Terminal(Console):
    """A console that escapes control characters, since names and reasons may hold any."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"highlight": False, "soft_wrap": True, "emoji": False, **settings})

    def render_str(self, text: str, **settings: Any) -> Text:
        """Convert a string to what is printed."""
        shown = printable_lines(text)
        try:
            return super().render_str(shown, **settings)
        except MarkupError:  # brackets of a name
            return super().render_str(shown, **{**settings, "markup": False})
