"""Components that add a folder of the host and a setting to the device plugin's DaemonSet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from deviceplugin.settings import PluginSettings

DAEMONSET = Path(__file__).parents[2] / "daemonset"


def base() -> dict[str, Any]:
    """Return the DaemonSet's pod."""
    objects = yaml.safe_load_all((DAEMONSET / "base" / "device-plugin.yaml").read_text())
    (found,) = [one for one in objects if one["kind"] == "DaemonSet"]
    pod: dict[str, Any] = found["spec"]["template"]["spec"]
    return pod


@pytest.mark.parametrize("name", ["feature-file", "plugin-watcher"])
def test_an_addition_fits_the_daemonset(name: str) -> None:
    """It appends to lists that are there, mounts what it names, and sets what the plugin knows."""
    text = (DAEMONSET / "components" / name / "kustomization.yaml").read_text()
    (patch,) = yaml.safe_load(text)["patches"]
    pod = base()
    container = pod["containers"][0]
    added: dict[str, Any] = {}
    for step in yaml.safe_load(patch["patch"]):
        *_, place, end = step["path"].split("/")
        assert (step["op"], end) == ("add", "-")
        holder = pod if place == "volumes" else container
        assert isinstance(holder[place], list)
        assert step["value"]["name"] not in {one["name"] for one in holder[place]}
        added[place] = step["value"]
    assert added["volumeMounts"]["name"] == added["volumes"]["name"]
    setting = added["env"]["name"].removeprefix("GPUTOPO_").lower()
    assert setting in PluginSettings.model_fields
    assert added["env"]["value"].startswith(added["volumeMounts"]["mountPath"])
    mounted = {one["mountPath"] for one in container["volumeMounts"]}
    assert added["volumeMounts"]["mountPath"] not in mounted
