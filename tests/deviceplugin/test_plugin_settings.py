"""The plugin's settings."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from deviceplugin.health.xids import Response
from deviceplugin.settings import PluginSettings


def test_only_the_node_must_be_named() -> None:
    """Everything else has a default for a real node."""
    settings = PluginSettings(node_name="n1")
    assert settings.device_plugins_dir == "/var/lib/kubelet/device-plugins"
    assert settings.resource == "nvidia.com/gpu"


@pytest.mark.parametrize("resource", ["gpu", "nvidia.com/", "/gpu", "NVIDIA.com/gpu", "a/b/c"])
def test_a_resource_needs_a_domain(resource: str) -> None:
    """Kubelet refuses what is no extended resource name, so it is refused here already."""
    with pytest.raises(ValidationError, match="resource"):
        PluginSettings(node_name="n1", resource=resource)


def test_responses_to_xids_can_be_set() -> None:
    """An XID's number maps to ignore, degrade or unhealthy, and to nothing else."""
    settings = PluginSettings.model_validate(
        {"node_name": "n1", "xid_responses": {"94": "unhealthy"}}
    )
    assert settings.xid_responses == {94: Response.UNHEALTHY}
    with pytest.raises(ValidationError, match="xid_responses"):
        PluginSettings.model_validate({"node_name": "n1", "xid_responses": {"94": "panic"}})
