"""The terminal: text of a user's data is printed without control characters."""

from typing import Any

from rich.console import Console
from rich.errors import MarkupError
from rich.text import Text

from video_mvit.text import line_breaks, printable_lines, width_of


class Terminal(Console):
    """A console that escapes control characters, since names and reasons may hold any.

    Lines that do not fit the terminal are broken between words.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"highlight": False, "soft_wrap": True, "emoji": False, **settings})

    def render_str(self, text: str, **settings: Any) -> Text:
        """Convert a string to what is printed."""
        shown = printable_lines(text)
        try:
            found = super().render_str(shown, **settings)
        except MarkupError:  # brackets of a name
            found = super().render_str(shown, **{**settings, "markup": False})
        return self._fitted(found)

    def _fitted(self, text: Text) -> Text:
        """Break lines that are longer than the terminal is wide, with an indent as theirs."""
        width = width_of(self.file)
        if width is None or not self.soft_wrap:
            return text
        lines = Text("\n").join(
            Text(f"\n{' ' * indent}").join(
                [line[start:end] for start, end in line_breaks(line.plain, width, indent)]
            )
            for line in text.split("\n", allow_blank=True)
            for indent in [len(line.plain) - len(line.plain.lstrip()) + 2]
        )
        lines.style, lines.end = text.style, text.end
        return lines
