"""The manifests as they stand in the folder, before kustomize or Helm touch them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

DAEMONSET = Path(__file__).parents[2] / "daemonset"
Manifest = dict[str, Any]


def read_kustomizations() -> dict[Path, Manifest]:
    """Return every kustomization by its folder."""
    found = sorted(DAEMONSET.glob("*/**/kustomization.yaml"))
    return {path.parent: yaml.safe_load(path.read_text()) for path in found}


def read_objects() -> list[Manifest]:
    """Return every object that the base and the components bring."""
    return [
        document
        for folder, kustomization in read_kustomizations().items()
        for name in kustomization.get("resources", [])
        if (folder / name).is_file()
        for document in yaml.safe_load_all((folder / name).read_text())
    ]


def read_one(kind: str, name: str) -> Manifest:
    """Return the one object of that kind and name."""
    (found,) = (
        item for item in read_objects() if (item["kind"], item["metadata"]["name"]) == (kind, name)
    )
    return found


def read_pods() -> list[Manifest]:
    """Return the pod specs of every workload."""
    return [
        item["spec"]["template"]["spec"]
        for item in read_objects()
        if item["kind"] in {"DaemonSet", "Deployment"}
    ]


def read_containers() -> list[Manifest]:
    """Return every container of every workload."""
    return [container for pod in read_pods() for container in pod["containers"]]


def read_mock() -> Manifest:
    """Return the pod spec with which the mock component patches the device plugin's."""
    text = (DAEMONSET / "components" / "mock-machine" / "device-plugin.yaml").read_text()
    found: Manifest = yaml.safe_load(text)["spec"]["template"]["spec"]
    return found


def read_arguments() -> dict[str, list[str]]:
    """Return the arguments of our daemons by workload, the mock's among them."""
    found: dict[str, list[str]] = {"mock": read_mock()["containers"][0]["args"]}
    for item in read_objects():
        if item["kind"] in {"DaemonSet", "Deployment"}:
            for container in item["spec"]["template"]["spec"]["containers"]:
                if container["image"] == "gputopo":
                    found[item["metadata"]["name"]] = container["args"]
    return found
