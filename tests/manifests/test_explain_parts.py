"""The components for explain: they set what the extender knows, and give what it needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from runtime.settings import load_settings
from scheduler.settings import ExtenderSettings

DAEMONSET = Path(__file__).parents[2] / "daemonset"


def read(path: str) -> Any:
    """Read one object."""
    return yaml.safe_load((DAEMONSET / path).read_text())


def extender() -> dict[str, Any]:
    """Return the extender's container."""
    objects = yaml.safe_load_all(
        (DAEMONSET / "components/second-scheduler/scheduler.yaml").read_text()
    )
    (found,) = [one for one in objects if one["kind"] == "Deployment"]
    containers: list[dict[str, Any]] = found["spec"]["template"]["spec"]["containers"]
    return next(one for one in containers if one["name"] == "extender")


def test_the_token_component_fits_the_deployment() -> None:
    """Its variables are settings that hold together, and its file lies in what it mounts."""
    (patch,) = read("components/explain-token/kustomization.yaml")["patches"]
    pod = yaml.safe_load(patch["patch"])["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    env = {one["name"]: one["value"] for one in container["env"]}
    settings = load_settings(ExtenderSettings, None, env, {}).explain
    assert settings.host == "::"
    (mount,) = container["volumeMounts"]
    assert str(settings.token_file).startswith(mount["mountPath"])
    assert [mount["name"]] == [volume["name"] for volume in pod["volumes"]]
    # An option would beat the variable.
    assert not any("explain-host" in word for word in extender()["args"])


def test_the_lease_is_the_one_that_kube_scheduler_holds() -> None:
    """As its configuration names it, in the namespace of the pods."""
    election = read("components/second-scheduler/config/kube-scheduler.yaml")["leaderElection"]
    lease = f"{election['resourceNamespace']}/{election['resourceName']}"
    assert f"--explain-lease={lease}" in extender()["args"]


def test_the_rights_for_events_are_those_that_are_used() -> None:
    """To create, to list by label and to delete; not to read other things, or change any."""
    role, binding = yaml.safe_load_all(
        (DAEMONSET / "components/explain-events/rbac.yaml").read_text()
    )
    (rule,) = role["rules"]
    assert (rule["apiGroups"], rule["resources"]) == ([""], ["events"])
    assert sorted(rule["verbs"]) == ["create", "delete", "list"]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
