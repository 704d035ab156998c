"""Kinds of machines that are not supported."""

from __future__ import annotations

from pathlib import Path

import pytest

from deviceplugin.discovery.platform import check_platform
from deviceplugin.errors import PlatformError


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [("dev/dxg", "", "WSL"), ("sys/devices/soc0/family", "Tegra\n", "Tegra")],
)
def test_a_machine_of_another_kind_is_refused_by_name(
    tmp_path: Path, file: str, content: str, said: str
) -> None:
    """WSL and Tegra are recognised, and nothing else is taken for them."""
    check_platform(tmp_path, tmp_path / "sys")
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(content)
    with pytest.raises(PlatformError, match=f"{said} is not supported"):
        check_platform(tmp_path, tmp_path / "sys")


def test_another_family_of_chips_is_no_tegra(tmp_path: Path) -> None:
    """Servers with Grace have a soc0 as well."""
    (tmp_path / "sys/devices/soc0").mkdir(parents=True)
    (tmp_path / "sys/devices/soc0/family").write_text("jep106:0426\n")
    check_platform(tmp_path, tmp_path / "sys")
