"""Names that a person may have meant."""

from collections.abc import Sequence
from difflib import SequenceMatcher

NUM_NAMED = 2
CUTOFF = 0.6  # of difflib's ratio


def nearest(name: str, known: Sequence[str]) -> list[str]:
    """Return the known names that resemble a name most, best first; at most two."""
    ratios = {each: SequenceMatcher(None, each.lower(), name.lower()).ratio() for each in known}
    near = [each for each in known if ratios[each] >= CUTOFF]
    return sorted(near, key=lambda each: -ratios[each])[:NUM_NAMED]


def did_you_mean(name: str, known: Sequence[str], form: str = "{}") -> str:
    """Return "; did you mean A or B?" for a sentence, or nothing; `form` is that of a name."""
    found = [form.format(each) for each in nearest(name, known)]
    return f"; did you mean {' or '.join(found)}?" if found else ""
