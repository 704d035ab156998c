"""The bundle's objects, as kubectl's kustomize and as Helm render them."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import yaml

from tests.e2e import components, helm

DAEMONSET: Final = Path(__file__).parents[2] / "daemonset"
OVERLAYS: Final = ("second-scheduler", "default-scheduler", "mock")
NAMESPACE: Final = "gputopo-system"

Manifest = dict[str, Any]
Key = tuple[str, str]

_HASH: Final = re.compile(r"-[0-9a-z]{10}$")
_NAMED_LISTS: Final = ("containers", "volumes", "volumeMounts", "env")


def render_folder(folder: Path) -> list[Manifest]:
    """Return what `kubectl apply -k` of the folder would apply."""
    kubectl = str(components.binary_folder() / "kubectl")
    return _read(subprocess.check_output([kubectl, "kustomize", str(folder)], text=True))


def render_overlay(name: str) -> list[Manifest]:
    """Return the objects of one of our overlays."""
    return render_folder(DAEMONSET / "overlays" / name)


def render_chart(
    values: Manifest | None = None,
    *,
    namespace: str = NAMESPACE,
    kube_version: str | None = None,
) -> list[Manifest]:
    """Return the chart's objects for some values. Raises ValueError with what Helm complains of."""
    done = subprocess.run(
        [
            *(str(helm.binary()), "template", "gputopo", str(DAEMONSET / "chart")),
            *("--namespace", namespace, "--values", "-"),
            *("--kube-version", kube_version or f"v{components.version()}"),
        ],
        input=json.dumps(values or {}),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ValueError(done.stderr.strip())
    return _read(done.stdout)


def by_key(objects: Iterable[Manifest]) -> dict[Key, Manifest]:
    """Return the objects by kind and name, without what kustomize and Helm do each their way.

    kustomize marks a changed setting by a hash in the ConfigMap's name, Helm by an annotation of
    the pods; a comment in a setting is no difference; lists of named things have no order; the
    Namespace has to be there before Helm is run.
    """
    found = {}
    for item in objects:
        if item["kind"] != "Namespace":
            plain = _plain(item)
            found[plain["kind"], plain["metadata"]["name"]] = plain
    return found


def _plain(item: Manifest) -> Manifest:
    copy: Manifest = json.loads(json.dumps(item))
    if copy["kind"] == "ConfigMap":
        copy["metadata"]["name"] = _HASH.sub("", copy["metadata"]["name"])
        copy["data"] = {name: yaml.safe_load(text) for name, text in copy["data"].items()}
    template = copy.get("spec", {}).get("template", {})
    annotations = template.get("metadata", {}).get("annotations", {})
    if annotations.pop("checksum/settings", None) and not annotations:
        del template["metadata"]["annotations"]
    pod = template.get("spec", {})
    for place in (pod, *pod.get("containers", [])):
        for name in _NAMED_LISTS:
            if name in place:
                place[name].sort(key=lambda entry: str(entry["name"]))
    for volume in pod.get("volumes", []):
        if "configMap" in volume:
            volume["configMap"]["name"] = _HASH.sub("", volume["configMap"]["name"])
    return copy


def _read(text: str) -> list[Manifest]:
    return [item for item in yaml.safe_load_all(text) if item is not None]
