"""Names that would act on a terminal or a spreadsheet are shown and written escaped."""

import csv
import io
import json
import logging
import random
import re
import sys
from pathlib import Path

import pytest
import torch
from support.evaluations import prediction, summary

import video_mvit
from video_mvit.cli.terminal import Terminal
from video_mvit.evaluation.predictions import VideoResult, read_predictions, write_predictions
from video_mvit.evaluation.report import render_report
from video_mvit.prediction.predictor import Prediction
from video_mvit.prediction.writers import WRITERS
from video_mvit.text import (
    PrintableRecord,
    csv_cell,
    csv_text,
    fitted,
    json_text,
    line_breaks,
    percent,
    printable,
    short,
)

ESC, BIDI = "\x1b[2J", "\u202egpj.exe"
HOSTILE = (f"a{ESC}b", BIDI, "two\nlines", "tab\tcr\r", "\x9b31m", "=1+1", "+1", "-1", "@x", "\t=1")
KEPT = ("视频 ü🙂", "👩‍👩‍👧", "رمي", "a\\b", "it's", "'quoted'")


def is_printable(text: str) -> bool:
    return printable(text) == text


@pytest.mark.parametrize("text", HOSTILE[:5])
def test_control_characters_are_escaped_and_others_kept(text: str) -> None:
    assert is_printable(printable(text))
    assert printable(text) != text
    assert all(printable(kept) == kept for kept in KEPT)
    assert (printable(ESC), printable("\n")) == ("\\x1b[2J", "\\n")


@pytest.mark.parametrize("text", [*HOSTILE, *KEPT, "", "'=1", "''=1", "\\x1b", "\\\\n", "a\\"])
def test_cells_are_read_back_and_are_no_formulas(text: str) -> None:
    cell = csv_cell(text)
    assert csv_text(cell) == text
    assert is_printable(cell)
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))


def test_percentages_are_written_in_one_form() -> None:
    assert [percent(share) for share in (0.3364, 1, 0)] == ["33.6 %", "100.0 %", "0.0 %"]
    package = Path(video_mvit.__file__).parent
    sources = [*package.rglob("*.py"), *package.rglob("*.j2")]
    assert len(sources) > 100
    # A format such as ".1%" has no space before the sign.
    assert [str(path) for path in sources if re.search(r":\.?\d%\}", path.read_text())] == []


def test_random_cells_are_read_back() -> None:
    rng, letters = random.Random(0), "\\'=+-@xu0912nrt\n\r\t\x1b\u202e\udcff,\"é"
    for _ in range(3000):
        text = "".join(rng.choices(letters, k=rng.randint(0, 9)))
        assert csv_text(csv_cell(text)) == text


def test_json_has_no_control_characters_and_the_same_value() -> None:
    line = json_text({"video": list(HOSTILE)})
    assert is_printable(line)
    assert json.loads(line) == {"video": list(HOSTILE)}


def test_long_and_nested_values_are_not_quoted() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    assert (short(deep), short({"a": 1}), short("x" * 99)) == (
        "a list",
        "an object",
        "'" + "x" * 40 + "...'",
    )
    assert short(10**400) == "a number of many digits"


def test_log_lines_are_printable_whoever_writes_them() -> None:
    before, stream = logging.getLogRecordFactory(), io.StringIO()
    handler, logger = logging.StreamHandler(stream), logging.getLogger("test_text")
    logger.addHandler(handler)
    logging.setLogRecordFactory(PrintableRecord)
    try:
        logger.warning("cannot decode %s: %d of %r", f"x{ESC}\ny", 3, BIDI)
        logger.warning(f"first\nsecond {ESC}")
        logger.warning("%(a)s", {"a": ESC})
        try:
            raise ValueError(ESC)
        except ValueError:
            logger.warning("100 %", exc_info=True)
    finally:
        logging.setLogRecordFactory(before)
        logger.removeHandler(handler)
    text = stream.getvalue()
    assert "\x1b" not in text
    assert text.startswith("cannot decode x\\x1b[2J\\ny: 3 of ")
    assert "first\nsecond \\x1b" in text
    assert "ValueError: \\x1b[2J" in text


def test_terminal_escapes_names_and_takes_brackets_for_text() -> None:
    stream = io.StringIO()
    console = Terminal(file=stream, width=200)
    console.print(f"[bold]split[/]  {ESC} x", f"bad: [/oops] {ESC}", sep="\n  ")
    assert stream.getvalue() == "split  \\x1b[2J x\n  bad: [/oops] \\x1b[2J\n"


@pytest.mark.parametrize("kind", WRITERS)
def test_predictions_are_written_escaped(kind: str) -> None:
    file = io.StringIO()
    writer = WRITERS[kind](file, 2)
    for i, video in enumerate(HOSTILE):
        problem, scores = f"bad {ESC}" if i % 2 else "", torch.linspace(0, 1, len(HOSTILE))
        writer.write(
            Prediction(
                video=video,
                class_names=HOSTILE,
                scores=scores,
                num_frames=1,
                duration_s=1.0,
                problem=problem,
            )
        )
    text = file.getvalue()
    assert all(is_printable(line) for line in text.split("\n"))
    if kind == "csv":
        cells = [row["video"] for row in csv.DictReader(io.StringIO(text))]
        assert list(dict.fromkeys(map(csv_text, cells))) == list(HOSTILE)


def test_table_and_report_of_an_evaluation_are_escaped(tmp_path: Path) -> None:
    found = [prediction(name, i, (0, 1, 2, 3, 4)) for i, name in enumerate(HOSTILE)]
    found += [VideoResult(video=BIDI, label=1, problem=f"{ESC}=1")]
    path = tmp_path / "predictions.csv"
    write_predictions(path, found, HOSTILE)
    assert read_predictions(path, HOSTILE) == found
    text = path.read_text()
    assert all(is_printable(line) for line in text.split("\n"))
    page = render_report(summary(found, HOSTILE), found, curves={}, strips={})
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert sys.getsizeof(page) > 1000


def test_table_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    path.write_text("video,label,problem,top1,top2,score1,score2\n-1.mp4,=x,,=x,b,0.75,0.25\n")
    (found,) = read_predictions(path, ("=x", "b"))
    assert (found.video, found.label, found.classes) == ("-1.mp4", 0, (0, 1))


EPOCH = (
    "07:59:20  epoch 1/4  loss 1.141  val/top1 85.0 %  val/top5 100.0 %  lr 0.00045  254 clips/s  "
    "24 s  data wait 2 %  peak 1.0 GB  MFU 31 %"
)
SENTENCE = (
    "09:46:18  checked 32 of 64 training videos: all readable; 44 frames; 30 fps 100 %; 64x64 "
    "100 %; h264 100 %"
)


@pytest.mark.parametrize("width", [30, 40, 80, 120])
@pytest.mark.parametrize("line", [EPOCH, SENTENCE])
def test_line_is_broken_between_parts_and_never_within_a_number(line: str, width: int) -> None:
    found = [line[start:end] for start, end in line_breaks(line, width, 10)]
    assert all(len(part) <= width - 10 * (i > 0) for i, part in enumerate(found))
    assert " ".join(found).split() == line.split()
    assert not any(part.startswith(("%", "GB", "s ", "fps")) for part in found)
    assert (len(found) == 2) == (width in (80, 120) and (line == EPOCH or width == 80))


def test_word_that_does_not_fit_is_kept_whole() -> None:
    line = f"  checkpoint  /{'x' * 90}.ckpt  (EMA weights)"
    found = [line[start:end] for start, end in line_breaks(line, 80, 4)]
    assert found == ["  checkpoint", f"/{'x' * 90}.ckpt", "(EMA weights)"]


def test_file_has_whole_lines_and_a_terminal_broken_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "log").open("w") as file:
        monkeypatch.delenv("COLUMNS", raising=False)
        assert fitted(EPOCH, file, 10) == EPOCH
        monkeypatch.setenv("COLUMNS", "80")
        first, second = fitted(EPOCH, file, 10).split("\n")
    assert first.endswith("lr 0.00045")
    assert second.startswith(" " * 10 + "254 clips/s")
