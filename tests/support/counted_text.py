"""Texts that count how often they are looked up, so that quadratic work is seen without a clock."""


class CountedText(str):
    """A text that counts its comparisons and hashes, together with all others."""

    __slots__ = ()
    num_calls = 0

    def __eq__(self, other: object) -> bool:
        CountedText.num_calls += 1
        return str.__eq__(self, other)

    def __hash__(self) -> int:
        CountedText.num_calls += 1
        return str.__hash__(self)
