"""The `video-mvit` command: one module per verb, and the only room that uses Hydra.

This file needs only the standard library, so that help and user errors are immediate; a verb's
module, and torch with it, is imported when the verb runs.
"""

from __future__ import annotations

import functools
import importlib
import logging
import os
import sys
from pathlib import Path
from typing import Any, Callable, NamedTuple, NoReturn  # noqa: UP035

from video_mvit.cli.nearest import did_you_mean
from video_mvit.text import PrintableRecord, fitted, printable


class Verb(NamedTuple):
    """Summary of a verb, and the YAML file with its options (None: argparse flags)."""

    summary: str
    config: str | None
    groups: tuple[str, ...] | None = None  # the only ones that matter, and none of their options
    bare: str | None = None  # the option that words without one are values of


VERBS = {
    "train": Verb("train or fine-tune a classifier", "config"),
    "tune": Verb("search for better settings of a training (extra tune)", "tune"),
    "evaluate": Verb("evaluate a checkpoint on multi-view clips, with a report", "evaluate"),
    "predict": Verb("classify videos: files, folders, patterns", "predict", bare="video"),
    "extract": Verb("write features of videos to a file", "extract", bare="video"),
    "probe": Verb(
        "train small heads on the features of a frozen network", "probe", ("data", "experiment")
    ),
    "prepare": Verb(
        "scan, transcode or pack a data set before training", "prepare", ("data", "transcode")
    ),
    "inflate": Verb("turn an image checkpoint into a video checkpoint", "inflate"),
    "convert": Verb("convert a checkpoint to another library's format", "convert"),
    "export": Verb("export a model to ONNX or torch.export, and verify it", "export"),
    "push": Verb("upload a model to a hub", "push"),
    "compare": Verb("compare two evaluations: which videos flipped", None),
    "browse": Verb(
        "look at a data set before training: clips, sizes, copies, broken files",
        "browse",
        ("data", "clip", "augment", "experiment"),
    ),
    "summary": Verb(
        "show layers, parameters, multiply-adds and memory of a network",
        "summary",
        ("model", "clip", "data", "experiment"),
    ),
    "doctor": Verb("check this machine: packages, GPU, decoders, speed", None),
    "demo": Verb("generate a small data set, train on it, evaluate, report", None),
    "benchmark": Verb("measure speed and memory beside other libraries (from a checkout)", None),
}
# First words of other tools, and what they are here.
OTHER_WORDS = {
    **dict.fromkeys(("fit", "learn"), "train"),
    **dict.fromkeys(("finetune", "fine-tune"), "train experiment=finetune data.root=FOLDER"),
    **dict.fromkeys(("resume", "continue"), "train resume_from=RUN_FOLDER"),
    **dict.fromkeys(("sweep", "search", "optimize"), "tune"),
    **dict.fromkeys(("test", "eval", "validate", "val", "score", "report"), "evaluate RUN_FOLDER"),
    **dict.fromkeys(("infer", "inference", "classify", "detect", "run"), "predict RUN_FOLDER FILE"),
    "explain": "predict RUN_FOLDER FILE explain=true",
    "annotate": "predict RUN_FOLDER FILE annotate=FOLDER",
    **dict.fromkeys(("features", "embed"), "extract RUN_FOLDER FILE"),
    **dict.fromkeys(("info", "profile", "flops", "params"), "summary"),
    **dict.fromkeys(("transcode", "scan"), "prepare data=custom data.root=FOLDER mode={}"),
    **dict.fromkeys(("view", "visualize", "inspect", "show"), "browse data.root=FOLDER"),
    **dict.fromkeys(("onnx", "deploy", "quantize"), "export RUN_FOLDER"),
    **dict.fromkeys(("upload", "publish"), "push"),
    **dict.fromkeys(("check", "env", "diagnose"), "doctor"),
    "help": "--help",
    "version": "--version",
}
COMPLETION = "completion"
CONFIG_PATH = "pkg://video_mvit.conf"


def main(verb: str | None = None) -> None:
    """Run a verb, by default the first word of the command line, with the remaining words."""
    words = sys.argv[1:]
    if verb is None:
        if not words or words[0] in ("-h", "--help"):
            sys.stdout.write(overview())
            sys.exit(0 if words else 2)
        if words[0] == "--version":
            from video_mvit import __version__

            sys.stdout.write(f"video-mvit {__version__}\n")
            return
        verb, *words = words
    if verb == COMPLETION:
        from video_mvit.cli.completion import print_completion

        print_completion(words)
        return
    if verb not in VERBS:
        _exit(_about_unknown(verb))
    logging.setLogRecordFactory(PrintableRecord)
    sys.argv = [f"video-mvit {verb}", *words]
    config = VERBS[verb].config
    if config is None:
        _function_of(verb)()
    elif any(word in ("-h", "--help") for word in words):
        from video_mvit.cli.help import help_text

        summary, _, groups, bare = VERBS[verb]
        sys.stdout.write(help_text(verb, summary, config, groups, bare))
    else:
        _run_with_hydra(verb, config, words)


def _exit(sentence: str) -> NoReturn:
    """End with a mistake of the user's."""
    sys.exit(fitted(f"error: {sentence}", sys.stderr))


def _about_unknown(verb: str) -> str:
    """Say what an unknown first word may have been meant as."""
    if os.path.lexists(verb):
        return f"{printable(verb)} is a file, and no command; try video-mvit predict FILE"
    if verb in OTHER_WORDS:
        return f"unknown command {verb!r}; try video-mvit {OTHER_WORDS[verb].format(verb)}"
    found = did_you_mean(verb, list(VERBS)) or f"; choose one of {', '.join(VERBS)}"
    return f"unknown command {printable(verb)!r}{found}"


def overview() -> str:
    """Return the help of the command itself: all verbs with their summaries."""
    lines = ["usage: video-mvit VERB [OPTION=VALUE ...]", ""]
    lines += [f"  {name:<11}{verb.summary}" for name, verb in VERBS.items()]
    lines += ["", "video-mvit VERB --help lists the options of a verb."]
    lines += ["video-mvit completion bash|zsh prints a script for TAB completion."]
    return "\n".join([*lines, ""])


def _function_of(verb: str) -> Callable[..., None]:
    if verb == "benchmark":
        return _benchmark
    function: Callable[..., None] = importlib.import_module(f"video_mvit.cli.{verb}").main
    return function


def _run_with_hydra(verb: str, config: str, words: list[str]) -> None:
    import hydra

    # Last, so that nothing there shadows a package: the user's own modules that YAML files name.
    sys.path.append(os.getcwd())

    from video_mvit.cli.renamed_options import find_in_words

    if sentence := find_in_words(words):
        _exit(sentence)
    decorate = hydra.main(version_base="1.3", config_path=CONFIG_PATH, config_name=config)
    # Hydra answers questions of the shell itself: a verb's module would only be slow to import.
    if any(word in ("-sc", "--shell-completion") for word in words):
        decorate(_nothing)()
        return
    from video_mvit.cli.composition import Composition
    from video_mvit.cli.help import groups_of, options_of
    from video_mvit.cli.run_place import sweep_folder
    from video_mvit.cli.runs import expand_run
    from video_mvit.cli.words import MULTIRUN, prepare_words
    from video_mvit.errors import UserError

    try:
        known = [*(option.name for option in options_of(config)), *groups_of(config)]
        words = expand_run(verb, words)
        is_sweep = any(word in MULTIRUN for word in words)
        words = prepare_words(words, known, VERBS[verb].bare, nested="data" in known)
        if is_sweep and (folder := sweep_folder(verb, words)):
            words.append(f"hydra.sweep.dir={folder}")
        sys.argv[1:] = words
        composition = Composition(words)
        with composition.explained(verb):
            decorate(_checked(_function_of(verb), composition))()
    except UserError as error:
        _exit(printable(str(error)))


def _checked(function: Callable[..., None], composition: Any) -> Callable[..., None]:
    """Wrap a verb to stop at keys that nothing reads, and at options of version 0.1."""

    @functools.wraps(function)
    def run(cfg: Any) -> None:
        from omegaconf import OmegaConf

        from video_mvit.cli.composition import check_keys
        from video_mvit.cli.renamed_options import find_in_config
        from video_mvit.cli.sweep_table import failed_jobs_kept
        from video_mvit.cli.words import words_for_settings
        from video_mvit.errors import UserError

        content: Any = OmegaConf.to_container(cfg, resolve=False)
        try:
            if sentence := find_in_config(content):
                raise UserError(sentence)
            check_keys(cfg, words_for_settings())
        except UserError as error:  # which Hydra would report in its own words
            _exit(printable(str(error)))
        with composition.interrupted(), failed_jobs_kept():
            function(cfg)

    return run


def _nothing(_: object) -> None:
    """Replace a verb that is not run."""


def _benchmark() -> None:
    """Run `scripts/benchmark.py` of the checkout that this package is part of."""
    script = Path(__file__).resolve().parents[2] / "scripts" / "benchmark.py"
    if not script.exists():
        sys.exit(
            "error: benchmarks are not part of the installed package; clone the repository and "
            "run `video-mvit benchmark` from an editable installation"
        )
    if any(word in ("-h", "--help") for word in sys.argv[1:]):
        import ast

        sys.stdout.write(f"{ast.get_docstring(ast.parse(script.read_text()))}\n")
        return
    import runpy

    sys.argv[0] = str(script)
    sys.path.insert(0, str(script.parent))
    runpy.run_path(str(script), run_name="__main__")
