"""Mask R-CNN and Cascade Mask R-CNN on MViTv2; needs the extra `detection`."""

from importlib.util import find_spec

from video_mvit.errors import UserError, install_command

if _missing := [name for name in ("torchvision", "pycocotools") if find_spec(name) is None]:
    raise UserError(
        f"detection needs {' and '.join(_missing)}, which is not installed; "
        f"{install_command('detection')}"
    )
