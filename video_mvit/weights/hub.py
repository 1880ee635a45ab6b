"""Models on a Hugging Face style hub: download into its local cache, upload in one commit.

A model is two files: model.safetensors and, for our own, its card model.json. Nothing else of a
repository is downloaded, and no code in it is run. Needs the extra `hub`.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from video_mvit.errors import MissingFileError, UserError, install_command
from video_mvit.text import printable
from video_mvit.weights.checkpoint_files import read_weight_file
from video_mvit.weights.model_card import ModelCard, describe_numbers
from video_mvit.weights.other_files import FILE_SUFFIXES

WEIGHTS, CARD, README = "model.safetensors", "model.json", "README.md"
METRICS = {  # of results: name, and the hub's word for its kind
    "top1": ("top-1 accuracy", "accuracy"),
    "top5": ("top-5 accuracy", "accuracy"),
    "map": ("mean average precision", "mAP"),
    "all_top1": ("top-1 accuracy of all heads together", "accuracy"),
    "all_top5": ("top-5 accuracy of all heads together", "accuracy"),
    "mae": ("mean absolute error", "mae"),
    "r2": ("R2", "r_squared"),
}
HUB_ID = re.compile(r"(?P<repo>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>[\w.-]+))?", re.ASCII)


def is_hub_id(text: str) -> bool:
    """Return whether a text is "owner/name" or "owner/name@revision", and not an existing path."""
    names_a_file = text.lower().endswith(FILE_SUFFIXES)
    return bool(HUB_ID.fullmatch(text)) and not names_a_file and not Path(text).exists()


def fetch(hub_id: str) -> Path:
    """Return the path of a model's weights in the local cache, downloading them if needed.

    Works offline for cached models. Raises `UserError` or `FileNotFoundError`.
    """
    match = HUB_ID.fullmatch(hub_id)
    if match is None:
        raise UserError(f"{hub_id!r} is not a model on a hub; expected owner/name or owner/name@v1")
    with _failures_in_one_sentence(hub_id):
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        repo, revision, is_offline = match["repo"], match["revision"], False
        try:  # the card first, so that the weights are of the same commit
            revision = Path(hf_hub_download(repo, CARD, revision=revision)).parent.name
        except LocalEntryNotFoundError:  # offline: do not retry
            is_offline = True
        except EntryNotFoundError:  # a model of another library
            pass
        return Path(hf_hub_download(repo, WEIGHTS, revision=revision, local_files_only=is_offline))


def push(path: Path, hub_id: str, *, private: bool = False) -> str:
    """Upload an exported model with its card, and a README if there is none: -> its address.

    Creates the repository if needed. Raises `UserError`.
    """
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", hub_id, re.ASCII):
        raise UserError(f"repo is {hub_id!r}, expected owner/name")
    beside = path.with_suffix(".json")
    if path.suffix != ".safetensors" or not path.is_file() or not beside.is_file():
        raise UserError(
            f"{path} is not an exported model (NAME.safetensors with NAME.json beside it); "
            f"video-mvit convert source={path} target=NAME.safetensors creates one"
        )
    card = read_weight_file(path).card  # verified, as the weights are
    if card is None:
        raise UserError(f"{beside} is not a model card")
    with _failures_in_one_sentence(hub_id):
        from huggingface_hub import CommitOperationAdd, HfApi

        api = HfApi(library_name="video-mvit")
        address = str(api.create_repo(hub_id, private=private, exist_ok=True))
        files: dict[str, str | bytes] = {WEIGHTS: str(path), CARD: str(beside)}
        if not api.file_exists(hub_id, README):
            files[README] = readme(card, hub_id).encode()
        api.create_commit(
            hub_id,
            [
                CommitOperationAdd(path_in_repo=name, path_or_fileobj=at)
                for name, at in files.items()
            ],
            commit_message=f"Upload {card.variant or 'MViTv2'}",
        )
    return address


def readme(card: ModelCard, hub_id: str) -> str:
    """Return the README of a model on the hub: what its pages and searches show, then words.

    Needs the extra `hub`.
    """
    name = hub_id.rpartition("/")[2]
    task, takes = _task_and_input(card)
    lines = [
        "---",
        _card_data(card, name, task),
        "---",
        f"# {name}",
        "",
        f"{card.variant or 'MViTv2'}: {takes}, {card.model.get('num_classes')} "
        f"{'targets' if card.task == 'regression' else 'classes'}.",
        "",
    ]
    if card.task == "multi_label":
        views = card.combine_views or "mean"
        lines += [f"Any number of classes a video: sigmoid of the logits, {views} of views.", ""]
    if card.task == "regression":
        targets = zip(
            card.class_names or (), card.target_std or (), card.target_mean or (), strict=True
        )
        values = ", ".join(
            f"{printable(name)} {std:g} * y + {mean:g}" for name, std, mean in targets
        )
        lines += [f"Predicts numbers, of the outputs y, averaged over views: {values}.", ""]
    if card.heads:
        sizes = ", ".join(f"{head} ({size})" for head, size in card.heads.items())
        lines += [f"One class in each head, the softmax of its logits, in this order: {sizes}.", ""]
    if card.origin:
        lines += [f"Trained from {card.origin} ({card.license or 'licence unknown'}).", ""]
    if card.mean and card.std:
        side = f"short side {card.short_side} pixels, " if card.short_side else ""
        lines += [
            f"Preprocessing: {side}{card.interpolation or 'bilinear'} resizing, pixels in 0..1 "
            f"minus {_numbers(card.mean)}, divided by {_numbers(card.std)}.",
            "",
        ]
    if result := card.evaluation:
        numbers = describe_numbers(result)
        numbers = numbers[0].upper() + numbers[1:] if "map" not in result else numbers
        if "top5" in result:
            numbers += f", top-5 {100 * result['top5']:.1f} %"
        for head, found in result.get("heads", {}).items():
            numbers += f", {head} {100 * found['top1']:.1f} %" if "top1" in found else ""
        lines += [
            f"{numbers} "
            f"({result['protocol']}, {result.get('num_videos', 'unknown number of')} videos).",
            "",
        ]
    return "\n".join([*lines, "```python", f'video_mvit.load_model("{hub_id}")', "```", ""])


def _task_and_input(card: ModelCard) -> tuple[str, str]:
    """Return a hub's word for what a model does, and what it takes."""
    model = card.model
    if "backbone" in model:
        return "object-detection", f"images of {card.short_side} pixels"
    if model.get("num_frames") == 1:
        return "image-classification", f"one image, {model.get('crop_size')} pixels"
    stride = f" of stride {card.frame_stride}" if card.frame_stride else ""
    clip = f"{model.get('num_frames')} frames{stride}, {model.get('crop_size')} pixels"
    return "video-classification", clip


def _card_data(card: ModelCard, name: str, task: str) -> str:
    """Return the metadata of a README as YAML: task, licence, origin, measured accuracy."""
    from huggingface_hub import EvalResult, ModelCardData

    result = card.evaluation or {}
    measured = [
        EvalResult(
            task_type=task,
            dataset_type="own",
            dataset_name=f"list {result.get('list_sha1', 'without a hash')}",
            metric_type=kind,
            metric_name=f"{label} ({result['protocol']})",
            metric_value=result[key],
        )
        for key, (label, kind) in METRICS.items()
        if result.get(key) is not None
    ]
    data = ModelCardData(
        library_name="video-mvit",
        pipeline_tag=task,
        license=card.license.lower() if card.license else None,
        model_name=name if measured else None,
        eval_results=measured or None,
    )
    return str(data.to_yaml().strip())


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


@contextmanager
def _failures_in_one_sentence(hub_id: str) -> Iterator[None]:
    """Turn errors of the hub and its library into user errors."""
    try:
        from huggingface_hub import errors
    except ImportError:
        raise UserError(
            f"{hub_id} is no file here, and a model of a hub needs huggingface-hub; "
            f"{install_command('hub')}"
        ) from None
    try:
        yield
    except errors.GatedRepoError:
        raise UserError(
            f"{hub_id} is gated: request access on its page, then set HF_TOKEN or run hf auth login"
        ) from None
    except errors.RevisionNotFoundError:
        raise UserError(f"{hub_id} has no such revision") from None
    except errors.RepositoryNotFoundError:
        raise MissingFileError(
            f"{hub_id} is neither a file here nor a model on the hub (a private one needs HF_TOKEN "
            "or hf auth login)"
        ) from None
    except errors.LocalEntryNotFoundError:
        raise UserError(
            f"{hub_id} is neither a file here nor in the local cache, and the hub cannot be reached"
        ) from None
    except errors.EntryNotFoundError:
        raise UserError(f"{hub_id} has no {WEIGHTS}") from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        advice = "; set HF_TOKEN or run hf auth login" if status in (401, 403) else ""
        raise UserError(f"the hub refused {hub_id} (status {status}){advice}") from None
    except Exception as error:
        # The library has changed its HTTP client before: "httpx", then "httpx2".
        is_network = type(error).__module__.startswith("httpx")
        if not is_network and not isinstance(error, OSError | errors.OfflineModeIsEnabled):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{hub_id}: the hub cannot be reached ({reason}); try again") from None
