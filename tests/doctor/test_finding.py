"""Findings as lines, and the verdict."""

import pytest

from video_mvit.doctor.finding import Finding, format_lines, is_pass, verdict

WARNING, PROBLEM = Finding("warning", "a", "b"), Finding("problem", "c", "d", "e")


def test_problem_without_fix_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a fix"):
        Finding("problem", "disk", "full")


def test_warnings_pass_and_problems_fail() -> None:
    assert is_pass([WARNING])
    assert not is_pass([WARNING, PROBLEM])
    assert verdict([]) == "pass: no problems found"
    assert verdict([WARNING, WARNING]) == "pass, with 2 warnings"
    assert verdict([WARNING, PROBLEM]).startswith("fail: 1 problem and 1 warning;")


def test_text_is_wrapped_for_a_terminal_and_a_fix_never() -> None:
    finding = Finding("ok", "disk", "full " * 40, "rm " + "x" * 100)
    lines = format_lines(finding, 80)
    assert len(lines) > 3
    assert max(map(len, lines[1:-1])) <= 80
    assert lines[-1].strip() == finding.fix
    assert len(format_lines(finding)) == 2


def test_only_a_terminal_gets_colour() -> None:
    assert "\033" in format_lines(PROBLEM, 80)[0]
    assert "\033" not in format_lines(PROBLEM)[0]
