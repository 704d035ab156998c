"""The components for explain: they set what the extender knows, and give what it needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from runtime.settings import load_settings
from scheduler.explain.reviews import RIGHT
from scheduler.explain.settings import ExplainSettings
from scheduler.settings import ExtenderSettings

DAEMONSET = Path(__file__).parents[2] / "daemonset"


def read(path: str) -> Any:
    """Read one object."""
    return yaml.safe_load((DAEMONSET / path).read_text())


WORKLOADS = {
    "components/second-scheduler/scheduler.yaml": "Deployment",
    "components/control-plane-extender/extender.yaml": "DaemonSet",
}


def objects_of(path: str) -> list[dict[str, Any]]:
    """Read all objects of a file."""
    return [*yaml.safe_load_all((DAEMONSET / path).read_text())]


def extender(
    path: str = "components/second-scheduler/scheduler.yaml",
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the extender's container, and its pod."""
    (found,) = (one for one in objects_of(path) if one["kind"] == WORKLOADS[path])
    pod: dict[str, Any] = found["spec"]["template"]["spec"]
    (container,) = (one for one in pod["containers"] if one["name"] == "extender")
    return container, pod


def settings_of(container: dict[str, Any]) -> ExplainSettings:
    """Return what the extender makes of its arguments and its environment."""
    options = {
        name.removeprefix("--").replace("-", "_").replace("explain_", "explain__"): value
        for name, _, value in (word.partition("=") for word in container["args"][2:])
    }
    env = {one["name"]: one["value"] for one in container.get("env", ())}
    return load_settings(ExtenderSettings, None, env, options).explain


@pytest.mark.parametrize("path", WORKLOADS)
def test_whoever_has_a_token_of_the_clusters_reaches_every_replica(path: str) -> None:
    """On all addresses of both families; nobody else does, but by the pod's own loopback."""
    container, pod = extender(path)
    settings = settings_of(container)
    assert (settings.host, settings.audience) == ("::", "gputopo-explain")
    # In the host's network the loopback is that of everybody there.
    assert settings.trusts_loopback is not pod.get("hostNetwork", False)
    assert {"name": "explain", "containerPort": settings.port} in container["ports"]
    (service,) = (one for one in objects_of(path) if one["kind"] == "Service")
    assert service["spec"]["ports"][0]["port"] == settings.port
    (workload,) = (one for one in objects_of(path) if one["kind"] == WORKLOADS[path])
    labels = workload["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == labels


@pytest.mark.parametrize("path", WORKLOADS)
def test_replicas_show_each_other_a_token_for_nothing_else(path: str) -> None:
    """Kubelet makes it for the audience that they want, where the extender reads it."""
    container, pod = extender(path)
    settings = settings_of(container)
    (volume,) = (one for one in pod["volumes"] if "projected" in one)
    (source,) = volume["projected"]["sources"]
    assert source["serviceAccountToken"]["audience"] == settings.audience
    (mount,) = (one for one in container["volumeMounts"] if one["name"] == volume["name"])
    shown = Path(mount["mountPath"]) / source["serviceAccountToken"]["path"]
    assert settings.peer_token_file == shown
    assert mount["readOnly"] is True


def test_the_right_to_read_is_the_one_that_is_asked_for() -> None:
    """The role has it and nothing else, and the scheduler's own account has the role."""
    role, binding = objects_of("base/explain-rbac.yaml")
    assert role["rules"] == [
        {"apiGroups": [RIGHT["group"]], "resources": [RIGHT["resource"]], "verbs": [RIGHT["verb"]]}
    ]
    assert binding["roleRef"]["name"] == role["metadata"]["name"] == "gputopo-explain-reader"
    assert binding["subjects"][0]["name"] == extender()[1]["serviceAccountName"]


def test_the_token_component_fits_the_deployment() -> None:
    """Its variable is a setting, its file lies in what it mounts, and everybody needs a token."""
    (patch,) = read("components/explain-token/kustomization.yaml")["patches"]
    pod = yaml.safe_load(patch["patch"])["spec"]["template"]["spec"]
    (added,) = pod["containers"]
    container, _ = extender()
    settings = settings_of({**container, "env": added["env"]})
    assert not settings.trusts_loopback
    (mount,) = added["volumeMounts"]
    assert str(settings.token_file).startswith(mount["mountPath"])
    assert [mount["name"]] == [volume["name"] for volume in pod["volumes"]]


@pytest.mark.parametrize("path", WORKLOADS)
def test_the_lease_is_the_one_that_kube_scheduler_holds(path: str) -> None:
    """As its configuration names it, or by its defaults; and the account may read it."""
    folder = Path(path).parent
    (config,) = (DAEMONSET / folder).rglob("kube-scheduler.yaml")
    election = yaml.safe_load(config.read_text())["leaderElection"]
    namespace = election.get("resourceNamespace", "kube-system")
    name = election.get("resourceName", "kube-scheduler")
    assert settings_of(extender(path)[0]).lease == f"{namespace}/{name}"
    (role,) = (one for one in objects_of(f"{folder}/rbac.yaml") if one["kind"] == "Role")
    assert role["metadata"]["namespace"] == namespace
    assert any(
        rule.get("resourceNames") == [name] and "get" in rule["verbs"] for rule in role["rules"]
    )


def test_the_rights_for_events_are_those_that_are_used() -> None:
    """To create, to list by label and to delete; not to read other things, or change any."""
    role, binding = yaml.safe_load_all(
        (DAEMONSET / "components/explain-events/rbac.yaml").read_text()
    )
    (rule,) = role["rules"]
    assert (rule["apiGroups"], rule["resources"]) == ([""], ["events"])
    assert sorted(rule["verbs"]) == ["create", "delete", "list"]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
