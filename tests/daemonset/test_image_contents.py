"""What goes into the image, as far as it can be told without building it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from daemonset.images import debian, gputopo, python
from daemonset.images.errors import ImageError

_SIMULATED = """\
Reading package lists...
Inst libc6 (2.36-9 Debian:12 [amd64]) []
Inst dpkg (1.21.22 Debian:12 [amd64])
Inst python3 (3.11.2-1 Debian:12 [amd64])
Inst base-files (12.4 Debian:12 [amd64])
Conf libc6 (2.36-9 Debian:12 [amd64])
"""
_PROJECT = """\
[project]
readme = "README.md"
license-files = ["LICENSE"]

[tool.hatch.build.targets.wheel]
packages = ["ours"]
"""
MANIFESTS = Path(__file__).parents[2] / "daemonset"


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put an apt-get in front of the machine's, which does what a script says."""
    tool = tmp_path / "apt-get"
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    tool.write_text("#!/bin/sh\nexit 0\n")
    tool.chmod(0o755)
    return tool


def test_packages_are_resolved_to_versions(apt: Path) -> None:
    """What would be installed on an empty machine is listed, but for package managers."""
    apt.write_text(f"#!/bin/sh\ncat <<'END'\n{_SIMULATED}END\n")
    assert debian.resolve() == ("base-files=12.4", "libc6=2.36-9", "python3=3.11.2-1")


def test_what_apt_complains_of_is_passed_on(apt: Path) -> None:
    """The error names the tool and says what it said."""
    apt.write_text("#!/bin/sh\necho 'E: Unable to locate package python3' >&2\nexit 100\n")
    with pytest.raises(ImageError, match=r"apt-get install.*Unable to locate package python3"):
        debian.resolve()


def test_a_machine_without_apt_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing tool is named."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ImageError, match="apt-get is not on the PATH"):
        debian.resolve()


def test_another_version_of_a_package_is_another_file_system() -> None:
    """The key of the lowest layer has the packages' versions in it."""
    assert debian.key(("libc6=1",)) != debian.key(("libc6=2",))
    assert debian.key(("libc6=1",)) == debian.key(("libc6=1",))


def test_another_source_is_another_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key of our layer has every file of the wheel in it, and no other."""
    monkeypatch.setattr(python, "REPOSITORY", tmp_path)
    for name, text in {
        "pyproject.toml": _PROJECT,
        "README.md": "",
        "LICENSE": "",
        "ours/one.py": "",
        "other/two.py": "",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    before = python.wheel_key("base")
    (tmp_path / "other" / "two.py").write_text("changed = True")
    assert python.wheel_key("base") == before
    (tmp_path / "ours" / "one.py").write_text("changed = True")
    assert python.wheel_key("base") != before


def test_pruning_takes_the_generated_clients_and_leaves_their_packages(tmp_path: Path) -> None:
    """`kubernetes.client` imports its packages of models: they stay, empty."""
    models = tmp_path / "kubernetes" / "client" / "models"
    models.mkdir(parents=True)
    for name in ("__init__.py", "v1_pod.py"):
        (models / name).write_text("")
    python.prune(tmp_path)
    assert [path.name for path in models.iterdir()] == ["__init__.py"]


def test_the_image_has_the_name_that_the_manifests_use() -> None:
    """The manifests' version is the one under which the image is built."""
    text = (MANIFESTS / "components" / "versions" / "kustomization.yaml").read_text()
    images = {one["name"]: one for one in yaml.safe_load(text)["images"]}
    tag = images["gputopo"]["newTag"]
    assert f"docker.io/library/gputopo:{tag}" == gputopo.NAME
