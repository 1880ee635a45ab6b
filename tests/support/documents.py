"""Reads the commands and Python blocks of the README and the docs, each with what is said of it.

A comment on the line before a block says how it is tested:

    <!-- run small -->           runs as a training or evaluation of the least size, on a CPU
    <!-- run small: WORDS -->    the same with WORDS added
    <!-- run with: WORDS -->     runs, WORDS are added to each command
    <!-- file: PATH -->          its content is written there, for later blocks of the page
    <!-- not run: REASON -->     is only checked: options, targets and files that it names exist

Without a comment a block runs as it stands.
"""

import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

FENCE = re.compile(r"(?P<indent> *)(?P<ticks>`{3,})(?P<language>[^`]*)")
MARK = re.compile(r"<!-- (?P<kind>run small|run with|file|not run)(?:: (?P<text>.+))? -->")
COMMAND_LANGUAGES = ("console", "bash")
OTHER_LANGUAGES = ("text", "yaml", "json", "html")
PROMPT = "$ "
SMALL = (
    "trainer=cpu",
    "optim.num_epochs=1",
    "optim.warmup_epochs=0.2",
    "data.train_batch_size=8",
    "data.eval_batch_size=8",
    "data.num_workers=0",
)
SMALL_DETECTOR = (
    "model=mask_rcnn_mvitv2_demo",
    "trainer=cpu",
    "optim.reference_images=null",
    "optim.num_steps=4",
    "optim.drops=[3]",
    "optim.warmup_steps=1",
    "data.short_side=96",
    "data.train_batch_size=2",
    "data.num_workers=0",
    "++data.train_transform.short_sides=[96]",
    "++data.train_transform.crop_prob=0",
)
OF_DETECTOR = re.compile(r"experiment=(coco_|demo_detection|finetune_detector)")


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block: where it begins, its language, its lines, and what a comment says of it."""

    path: Path
    line: int
    language: str
    text: str
    mark: Literal["", "run small", "run with", "file", "not run"] = ""
    mark_text: str = ""

    @property
    def place(self) -> str:
        return f"{self.path.name}:{self.line}"

    @property
    def is_run(self) -> bool:
        return self.mark not in ("not run", "file")

    def with_more(self, words: list[str]) -> list[str]:
        """A command as a test runs it."""
        rest = verb_of(words) or [""]
        small: Sequence[str] = ()
        if self.mark == "run small" and rest[0] in ("train", "evaluate"):
            small = SMALL_DETECTOR if any(map(OF_DETECTOR.match, rest)) else SMALL
        flags = [word for word in words[-1:] if word.startswith("--")]  # Hydra wants them last
        return [*words[: len(words) - len(flags)], *small, *self.mark_text.split(), *flags]

    def commands(self) -> list[list[str]]:
        """The words of each command, as a shell splits them; output and comments are left out."""
        lines = self.text.splitlines()
        if self.language == "console":
            lines = list(_typed(lines))
        joined = "\n".join(lines).replace("\\\n", " ")
        commands = (shlex.split(line, comments=True) for line in joined.splitlines())
        return [words for words in commands if words]


def _typed(lines: Sequence[str]) -> Iterator[str]:
    """What a person types: lines after a prompt, and those that continue them."""
    continues = False
    for line in lines:
        if continues or line.startswith(PROMPT):
            yield line.removeprefix(PROMPT)
            continues = line.endswith("\\")


def read_blocks(path: Path) -> list[Block]:
    """All fenced blocks of a page; raises `ValueError` for a block that nothing can be said of."""
    blocks: list[Block] = []
    lines = path.read_text(encoding="utf-8").splitlines()
    mark, i = None, 0
    while i < len(lines):
        fence = FENCE.fullmatch(lines[i])
        if not fence:
            if lines[i].strip():
                mark = MARK.fullmatch(lines[i].strip())
            i += 1
            continue
        end = next(j for j in range(i + 1, len(lines)) if lines[j].strip() == fence["ticks"])
        language = fence["language"].strip()
        if language in (*COMMAND_LANGUAGES, "python", *OTHER_LANGUAGES):
            blocks.append(
                Block(
                    path=path,
                    line=i + 1,
                    language=language,
                    text="\n".join(lines[i + 1 : end]) + "\n",
                    mark=mark["kind"] if mark else "",  # type: ignore[arg-type]
                    mark_text=(mark["text"] or "") if mark else "",
                )
            )
        elif not language.startswith("{"):
            raise ValueError(f"{path.name}:{i + 1}: a block needs a language, such as text or bash")
        mark, i = None, end + 1
    return blocks


def check_marks(block: Block) -> None:
    """Raise `ValueError` where what is said of a block is not enough, or does not suit it."""
    is_command = block.language in COMMAND_LANGUAGES
    if block.mark in ("run with", "file", "not run") and not block.mark_text:
        raise ValueError(f"{block.place}: `{block.mark}:` says nothing")
    if block.mark in ("run small", "run with") and not is_command:
        raise ValueError(f"{block.place}: only commands run with more words")
    if block.language in OTHER_LANGUAGES and block.mark not in ("", "file"):
        raise ValueError(f"{block.place}: a {block.language} block does not run")
    if is_command and not block.commands():
        raise ValueError(f"{block.place}: no command in it; output alone is text")
    if is_command and block.is_run:
        for words in block.commands():
            if verb_of(words) is None or words[0] not in ("video-mvit", "python"):
                raise ValueError(
                    f"{block.place}: {words[0]} is neither run by the tests nor has a reason; put "
                    "<!-- not run: REASON --> before the block"
                )


def verb_of(words: Sequence[str]) -> list[str] | None:
    """Verb and options of a command that runs `video-mvit`, however it is started; else None."""
    if words[0] == "video-mvit":
        return list(words[1:])
    if "video_mvit" in words and words[words.index("video_mvit") - 1] == "-m":
        return list(words[words.index("video_mvit") + 1 :])
    return None


def run_command(words: Sequence[str], folder: Path, log: Path) -> None:
    """Be a process of `video-mvit` in a folder; what it prints goes to a file."""
    _settle(folder, log)
    from video_mvit.cli import main

    if words[0] == "python":  # `python -m` puts the current folder first, `video-mvit` does not
        sys.path.insert(0, str(folder))
    rest = verb_of(words)
    assert rest is not None
    sys.argv = ["video-mvit", *rest]
    main()


def run_python(blocks: Sequence[Block], folder: Path, log: Path) -> None:
    """Be a process that runs Python blocks one after the other, with the names of each other.

    As in a script of the folder, the modules in it can be imported.
    """
    _settle(folder, log)
    sys.path.insert(0, str(folder))
    names: dict[str, object] = {"__name__": "__main__"}
    for block in blocks:
        code = "\n" * block.line + block.text  # so that a traceback tells the line of the page
        exec(compile(code, str(block.path), "exec"), names)


def _settle(folder: Path, log: Path) -> None:
    import torch

    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):  # one core: threads that wait for others cost more
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[os.getpid() % len(cores)]})
    os.chdir(folder)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
