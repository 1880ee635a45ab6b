"""Advice to install an extra comes from the metadata of the installation."""

from pathlib import Path

import pytest

from video_mvit.errors import install_command

METADATA = """\
Metadata-Version: 2.4
Name: video-mvit
Version: 1
Requires-Dist: torch>=2
Requires-Dist: winlib; sys_platform == "os400"
Provides-Extra: zoo
Provides-Extra: reader
Provides-Extra: all
Requires-Dist: torchvision<0.29,>=0.21; extra == "zoo"
Requires-Dist: oldlib>=1; (sys_platform == "os400") and extra == "reader"
Requires-Dist: newlib>=1; (sys_platform != "os400") and extra == "all"
Requires-Dist: video-mvit[reader,zoo]; extra == "all"
"""


@pytest.mark.parametrize(
    ("extra", "command"),
    [
        ("zoo", "pip install 'torchvision<0.29,>=0.21'"),
        ("all", "pip install 'newlib>=1' 'torchvision<0.29,>=0.21'"),
        ("reader", "there is no wheel of it for this machine"),
        ("later", "pip install '.[later]' in a checkout"),
    ],
)
def test_command_installs_the_packages_of_an_extra_that_this_machine_can_have(
    extra: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "video_mvit-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(METADATA)
    monkeypatch.syspath_prepend(tmp_path)
    assert install_command(extra) == command
