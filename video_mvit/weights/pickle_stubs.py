"""Classes that trainers save beside tensors, and what is made instead: nothing of them is used."""

from collections import OrderedDict
from typing import Any

from video_mvit.weights.pickle_limits import Ignored, Known
from video_mvit.weights.pickles import make_empty_dict, make_empty_list, make_ignored

LIGHTNING = ("lightning.fabric", "lightning.pytorch", "lightning_fabric", "pytorch_lightning")
PATHS = ("Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath")
DICTS = (
    "addict.addict.Dict",
    "builtins.dict",
    "detectron2.config.config.CfgNode",
    "easydict.EasyDict",
    "fvcore.common.config.CfgNode",
    *(f"{lightning}.utilities.data.AttributeDict" for lightning in LIGHTNING),
    *(f"{lightning}.utilities.parsing.AttributeDict" for lightning in LIGHTNING),
    "mmcv.utils.config.ConfigDict",
    "mmengine.config.config.ConfigDict",
    "munch.Munch",
    "yacs.config.CfgNode",
)
DICTS_FROM_CALLS = ("collections.defaultdict",)  # whose first argument says nothing of its items
LISTS_FROM_CALLS = ("collections.deque",)
OBJECTS = (
    "argparse.Namespace",
    *(f"builtins.{name}" for name in ("bool", "bytes", "float", "frozenset", "getattr", "int")),
    *(f"builtins.{name}" for name in ("list", "object", "range", "set", "slice", "str", "tuple")),
    "copyreg._reconstructor",
    *(f"datetime.{name}" for name in ("date", "datetime", "time", "timedelta", "timezone")),
    "decimal.Decimal",
    *(f"numpy.random._pickle.__{name}_ctor" for name in ("bit_generator", "generator")),
    "numpy.random._pickle.__randomstate_ctor",
    *("numpy.random._mt19937.MT19937", "numpy.random._pcg64.PCG64"),
    "numpy.random.bit_generator.SeedSequence",
    "numpy.random.bit_generator.__pyx_unpickle_SeedSequence",
    "mmcv.utils.config.Config",
    "mmengine.config.config.Config",
    "mmengine.logging.history_buffer.HistoryBuffer",
    *(f"omegaconf.base.{name}" for name in ("ContainerMetadata", "Metadata")),
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    *(f"omegaconf.nodes.{name}Node" for name in ("Any", "Boolean", "Bytes", "Enum", "Float")),
    *(f"omegaconf.nodes.{name}Node" for name in ("Integer", "Path", "String")),
    *(f"{module}.{name}" for module in ("pathlib", "pathlib._local") for name in PATHS),
    "torch.torch_version.TorchVersion",
    "types.SimpleNamespace",
    "typing.Any",
    "uuid.SafeUUID",
    "uuid.UUID",
)
# NumPy's values beside the tensors of a PyTorch file; `arrays.py` reads them in plain pickles.
NUMPY = (
    "numpy.dtype",
    "numpy.ndarray",
    *(
        f"numpy.{core}.{name}"
        for core in ("core", "_core")
        for name in ("multiarray._reconstruct", "multiarray.scalar", "numeric._frombuffer")
    ),
)
STUBS: dict[str, Known] = {
    **{name: Known(name, make_empty_dict) for name in (*DICTS, *DICTS_FROM_CALLS)},
    **{name: Known(name, make_empty_list) for name in LISTS_FROM_CALLS},
    **{name: Known(name, make_ignored) for name in OBJECTS},
}


def stubs_for_names() -> dict[str, Any]:
    """Return what these names stand for in a pickle of a PyTorch file."""
    return {**STUBS, **{name: Known(name, make_ignored) for name in NUMPY}}


def stubs_for_torch() -> list[Any]:
    """Return what `torch.serialization.safe_globals` takes: classes that stand in for others."""
    return [
        *((_EmptyDict, name) for name in (*DICTS, *DICTS_FROM_CALLS)),
        *((_EmptyList, name) for name in LISTS_FROM_CALLS),
        *((Ignored, name) for name in (*OBJECTS, *NUMPY)),
    ]


class _EmptyDict:
    """Makes an empty dictionary, of the class that PyTorch fills."""

    def __new__(cls, *_: Any) -> Any:
        return OrderedDict()


class _EmptyList:
    """Makes an empty list, of the class that PyTorch fills."""

    def __new__(cls, *_: Any) -> Any:
        return []
