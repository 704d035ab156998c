"""Every object is valid, and is what the daemons and Kubernetes take."""

from __future__ import annotations

import importlib.metadata
from typing import Any

import kubernetes_validate
import pytest
import typer
import yaml

from cli.main import build_app
from deviceplugin.settings import PluginSettings
from runtime.settings import load_settings
from scheduler.settings import ExtenderSettings
from tests.manifests.sources import (
    DAEMONSET,
    read_arguments,
    read_containers,
    read_kustomizations,
    read_mock,
    read_objects,
    read_one,
    read_pods,
)

NAMESPACE = "gputopo-system"


def _of_pods(item: dict[str, Any]) -> list[str]:
    """Return whose pods a Service leads to: each overlay has its own of that name."""
    return [*item["spec"]["selector"].values()] if item["kind"] == "Service" else []


KUBE_SCHEDULERS = sorted(DAEMONSET.glob("components/**/kube-scheduler.yaml"))


def test_the_kustomizations_name_every_file() -> None:
    """No file lies in the folders without being used."""
    named = set()
    for folder, kustomization in read_kustomizations().items():
        named.add(folder / "kustomization.yaml")
        for name in kustomization.get("resources", []):
            named.add(folder / name)
        for generator in kustomization.get("configMapGenerator", []):
            named.update(folder / name for name in generator["files"])
        for patch in kustomization.get("patches", []):
            named.add(folder / patch.get("path", "kustomization.yaml"))
    folders = ("base", "components", "overlays")
    assert {path for name in folders for path in (DAEMONSET / name).rglob("*.yaml")} == {
        path for path in named if path.is_file()
    }


@pytest.mark.parametrize("version", ["1.32", "1.36", "1.37"])
@pytest.mark.parametrize(
    "item",
    read_objects(),
    ids=lambda item: "-".join([item["kind"], item["metadata"]["name"], *_of_pods(item)]),
)
def test_every_object_is_valid_in_strict_mode(item: dict[str, Any], version: str) -> None:
    """The oldest Kubernetes that is supported knows every field, so do ours and the newest."""
    kubernetes_validate.validate(item, version, strict=True)


def test_every_object_says_where_it_lives() -> None:
    """Nothing depends on a namespace that is given from outside."""
    cluster_wide = {
        "Namespace",
        "ClusterRole",
        "ClusterRoleBinding",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    }
    elsewhere = {
        "gputopo-scheduler-authentication-reader": "kube-system",
        "gputopo-explain-lease": "kube-system",
    }
    for item in read_objects():
        name = item["metadata"]["name"]
        expected = None if item["kind"] in cluster_wide else elsewhere.get(name, NAMESPACE)
        assert item["metadata"].get("namespace") == expected, name


@pytest.mark.parametrize("arguments", read_arguments().values(), ids=read_arguments().keys())
def test_the_daemons_take_the_arguments_of_the_manifests(arguments: list[str]) -> None:
    """Each argument is an option that the subcommand knows, with a value of its type."""
    name, *options = arguments
    command = typer.main.get_command(build_app([name]))
    with command.make_context("gputopo", [name, *options]) as context:
        assert isinstance(command, typer.core.TyperGroup)
        subcommand = command.get_command(context, name)
        assert subcommand is not None
        values = subcommand.make_context(name, list(options), parent=context).params
    given = {option.split("=")[0].removeprefix("--").replace("-", "_") for option in options}
    assert given <= values.keys()


def test_the_daemons_take_the_settings_of_the_manifests() -> None:
    """Both files load, for the same resource."""
    config = DAEMONSET / "base" / "config"
    plugin = load_settings(PluginSettings, config / "device-plugin.yaml", {}, {"node_name": "n"})
    extender = load_settings(ExtenderSettings, config / "extender.yaml", {}, {})
    assert plugin.resource == extender.resource == "nvidia.com/gpu"


def test_probes_ask_where_the_daemons_answer() -> None:
    """The ops ports of the manifests are the daemons' own; nothing in the arguments moves them."""
    ports = {"device-plugin": 8890, "extender": 8889}
    assert PluginSettings(node_name="n").ops_port == ports["device-plugin"]
    assert ExtenderSettings().ops_port == ports["extender"]
    for container in read_containers():
        named = {port["name"]: port["containerPort"] for port in container.get("ports", [])}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            port = container[probe]["httpGet"]["port"]
            expected = ports.get(container["name"], 10259)
            assert named.get(port, port) == expected


def test_no_container_keeps_a_capability_or_a_writable_root() -> None:
    """All three run with everything dropped."""
    for container in read_containers():
        context = container["securityContext"]
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False


def test_every_container_has_a_seccomp_profile() -> None:
    """It stands at the pod or at the container."""
    for pod in read_pods():
        for container in pod["containers"]:
            context = {**pod.get("securityContext", {}), **container["securityContext"]}
            assert context["seccompProfile"] == {"type": "RuntimeDefault"}


def test_only_the_device_plugin_is_root() -> None:
    """The sockets of kubelet belong to root; nothing else needs it."""
    roots = [
        container["name"]
        for pod in read_pods()
        for container in pod["containers"]
        if {**pod.get("securityContext", {}), **container["securityContext"]}["runAsUser"] == 0
    ]
    assert roots == ["device-plugin"]


def test_the_host_is_writable_in_one_folder_only() -> None:
    """Of all that is mounted from the host, the plugin may write kubelet's socket folder."""
    for pod in read_pods():
        folders = {
            volume["name"]: volume["hostPath"]["path"]
            for volume in pod.get("volumes", [])
            if "hostPath" in volume
        }
        for container in pod["containers"]:
            writable = [
                folders[mount["name"]]
                for mount in container["volumeMounts"]
                if mount["name"] in folders and not mount.get("readOnly")
            ]
            assert writable == (["/var/lib/kubelet/device-plugins"] if folders else [])


def test_every_image_may_have_been_imported() -> None:
    """A node that has the image asks no registry for it."""
    assert {container["imagePullPolicy"] for container in read_containers()} == {"IfNotPresent"}


def test_one_place_says_which_versions_are_run() -> None:
    """No other file gives an image a tag, and ours is the project's version."""
    (images,) = (
        kustomization["images"]
        for kustomization in read_kustomizations().values()
        if "images" in kustomization
    )
    tags = {image["name"]: image["newTag"] for image in images}
    assert tags["gputopo"] == importlib.metadata.version("gputopo")
    assert {container["image"] for container in read_containers()} == tags.keys()


@pytest.mark.parametrize("path", KUBE_SCHEDULERS, ids=lambda path: path.parts[-3])
def test_the_scheduler_asks_the_extender_where_it_listens(path: Any) -> None:
    """The port of both configurations is the extender's, and a failed bind is never ignored."""
    (extender,) = yaml.safe_load(path.read_text())["extenders"]
    for container in read_containers():
        if container["name"] == "extender":
            assert f"--port={extender['urlPrefix'].rsplit(':', 1)[1]}" in container["args"]
            assert "--host=127.0.0.1" in container["args"]
    assert (extender["filterVerb"], extender["bindVerb"]) == ("filter", "bind")
    assert extender["ignorable"] is False
    assert "prioritizeVerb" not in extender
    assert extender["managedResources"] == [
        {"name": ExtenderSettings().resource, "ignoredByScheduler": False}
    ]
    assert float(extender["httpTimeout"].rstrip("s")) > ExtenderSettings().bind_timeout_seconds


def test_the_second_scheduler_leads_by_the_lease_that_it_may_write() -> None:
    """The Lease of its configuration is the one of its Role, and not the default scheduler's."""
    config = yaml.safe_load(
        (DAEMONSET / "components/second-scheduler/config/kube-scheduler.yaml").read_text()
    )
    election = config["leaderElection"]
    role = read_one("Role", "gputopo-scheduler-lease")
    assert role["metadata"]["namespace"] == election["resourceNamespace"] == NAMESPACE
    assert [election["resourceName"]] == role["rules"][1]["resourceNames"]


def test_the_mock_needs_nothing_of_nvidia() -> None:
    """The patch deletes the node labels, the driver's environment and the host's sysfs."""
    plugin = read_one("DaemonSet", "gputopo-device-plugin")["spec"]["template"]["spec"]
    (container,) = plugin["containers"]
    mock = read_mock()
    (changed,) = mock["containers"]
    assert mock["affinity"] is None
    assert _deleted(changed["env"], "name") == {
        variable["name"] for variable in container["env"] if "NVIDIA" in variable["name"]
    }
    assert _deleted(changed["volumeMounts"], "mountPath") == {
        mount["mountPath"] for mount in container["volumeMounts"] if "sys" in mount["name"]
    }
    assert _deleted(mock["volumes"], "name") == {
        volume["name"] for volume in plugin["volumes"] if "sys" in volume["name"]
    }
    assert not any("--sysfs-root" in argument for argument in changed["args"])


def _deleted(items: list[dict[str, Any]], key: str) -> set[str]:
    return {item[key] for item in items if item.get("$patch") == "delete"}
