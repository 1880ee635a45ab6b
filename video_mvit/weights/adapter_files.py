"""Adapter files: what a training with low-rank adapters added to its base weights, a few MB.

`NAME.safetensors` has the two factors of each adapted layer, under our own names, and every other
tensor that is not the base's. The card `NAME.json` beside it says which base weights they belong
to, by a digest. Both are data: nothing in them names code or a place to read, and the package that
trained the adapters is not needed to use them.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from video_mvit.errors import UserError
from video_mvit.files import check_room, replace_atomically
from video_mvit.weights.adapters import (
    FACTORS,
    AdapterRecord,
    merge_adapters,
    plain_names,
    read_record,
)
from video_mvit.weights.card_schema import MAX_CARD_BYTES, read_json
from video_mvit.weights.checkpoint_files import ADAPTER_FORMAT as FORMAT
from video_mvit.weights.checkpoint_files import HASH, MAX_HEADER_BYTES, weights_sha1
from video_mvit.weights.model_card import ModelCard, card_of
from video_mvit.weights.torch_files import DAMAGE


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """The content of an adapter file."""

    record: AdapterRecord
    state: Mapping[str, Tensor]
    card: ModelCard


def base_sha1(base: Mapping[str, Tensor], own: Collection[str]) -> str:
    """Return the digest of base weights, without the tensors that an adapted network replaces."""
    return weights_sha1({name: tensor for name, tensor in base.items() if name not in own})


def adapt(
    adapter: Adapter, base: Mapping[str, Tensor], where: str, base_name: str
) -> dict[str, Tensor]:
    """Return the plain weights of the adapted network, under official names.

    Raises `UserError` if the adapter belongs to other base weights.
    """
    own = {name for name in adapter.state if not name.endswith(FACTORS)}
    if base_sha1(base, own) != adapter.record.base_sha1:
        of = f", those of {adapter.record.base}" if adapter.record.base else ""
        raise UserError(
            f"{where} belongs to other base weights than {base_name}{of}; give base=... those, "
            "and where that file holds EMA and raw weights, weights=... those it was trained on"
        )
    rest = {name: tensor for name, tensor in base.items() if name not in own}
    return merge_adapters({**rest, **adapter.state}, adapter.record.alpha, where)


def is_adapter(path: Path) -> bool:
    """Return whether a file is an adapter, by the header that we write."""
    if path.suffix != ".safetensors" or not path.is_file():
        return False
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > min(MAX_HEADER_BYTES, path.stat().st_size):
        return False
    try:
        with safe_open(path, framework="pt") as tensors:
            return (tensors.metadata() or {}).get("kind") == FORMAT
    except (SafetensorError, *DAMAGE):
        return False


def read_adapter(path: Path) -> Adapter:
    """Read an adapter file and the card beside it, verified; raises `UserError`."""
    try:
        with safe_open(path, framework="pt") as tensors:
            said = (tensors.metadata() or {}).get(HASH)
            state = {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
    except (SafetensorError, *DAMAGE):
        raise UserError(f"{path} is damaged or truncated; copy or download it again") from None
    beside = path.with_suffix(".json")
    if not beside.is_file():
        raise UserError(f"{path} is an adapter without its card {beside.name}; copy both")
    with beside.open("rb") as file:
        content = read_json(file.read(MAX_CARD_BYTES + 1).decode(errors="replace"), str(beside))
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{beside} is not the card of an adapter (format {FORMAT!r})")
    if not weights_sha1(state) == said == content.get(HASH):
        raise UserError(
            f"{path} and {beside.name} do not belong together, or are damaged; copy both again"
        )
    card = content.get("card")
    if not isinstance(card, Mapping):
        raise UserError(f"{beside} has no model card")
    return Adapter(
        record=read_record(content, str(beside)),
        state=state,
        card=card_of(card, f"the model card in {beside}"),
    )


def write_adapter(path: Path, adapter: Adapter) -> None:
    """Write an adapter and its card, replacing old files only on success; raises `OSError`."""
    tensors = {name: each.detach().clone().contiguous() for name, each in adapter.state.items()}
    digest = weights_sha1(tensors)
    record = {name: value for name, value in asdict(adapter.record).items() if name != "own"}
    content = {"format": FORMAT, HASH: digest, **record, "card": asdict(adapter.card)}
    with replace_atomically(path) as temporary:
        check_room(path.parent, sum(tensor.nbytes for tensor in tensors.values()))
        save_file(tensors, temporary, metadata={"format": "pt", "kind": FORMAT, HASH: digest})
    with replace_atomically(path.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")


def adapter_of(state: Mapping[str, Tensor], record: AdapterRecord, card: ModelCard) -> Adapter:
    """Take the adapter out of the state of a network with peft's layers."""
    plain = plain_names(state)
    kept = {
        name: tensor
        for name, tensor in plain.items()
        if name in record.own or name.endswith(FACTORS)
    }
    return Adapter(record=record, state=kept, card=card)
