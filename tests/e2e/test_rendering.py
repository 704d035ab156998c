"""The overlays, rendered by kubectl, as a real API server and kube-scheduler take them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from scheduler.settings import ExtenderSettings
from tests.e2e import components
from tests.e2e.control_plane import ADMIN, ControlPlane
from tests.e2e.rendering import (
    DAEMONSET,
    NAMESPACE,
    OVERLAYS,
    Manifest,
    by_key,
    render_chart,
    render_folder,
    render_overlay,
)
from tests.waiting import wait_until

POLICIES = {"gputopo-own-node", "gputopo-set-by-scheduler"}
OURS = "app.kubernetes.io/part-of=gputopo"


@pytest.fixture(scope="module")
def plane(folder: Path) -> Iterator[ControlPlane]:
    """Run an API server with the controllers that make pods and check policies."""
    plane = ControlPlane(folder, controllers=True)
    plane.start()
    yield plane
    plane.stop()


@pytest.fixture(scope="module", params=OVERLAYS)
def installed(plane: ControlPlane, request: pytest.FixtureRequest) -> Iterator[str]:
    """Apply an overlay, and take it away again."""
    name: str = request.param
    plane.kubectl("apply", "-k", str(DAEMONSET / "overlays" / name))
    yield name
    plane.kubectl("delete", "-k", str(DAEMONSET / "overlays" / name), "--timeout=60s")


def render_own(files: dict[str, str], folder: Path) -> list[Manifest]:
    """Render an overlay of a user's own, in a folder beside a checkout called gputopo."""
    shutil.copytree(DAEMONSET, folder / "gputopo" / "daemonset")
    own = folder / "my-cluster"
    own.mkdir()
    for name, text in files.items():
        (own / name).write_text(text)
    return render_folder(own)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_rendered_object_is_valid_in_strict_mode(overlay: str) -> None:
    """What kustomize makes of the files has no field that Kubernetes 1.36 does not know."""
    for item in render_overlay(overlay):
        kubernetes_validate.validate(item, "1.36", strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_image_has_its_version(overlay: str) -> None:
    """No `latest`: the tags of the one place reached every container."""
    images = {
        container["image"]
        for item in render_overlay(overlay)
        if item["kind"] in {"DaemonSet", "Deployment"}
        for container in item["spec"]["template"]["spec"]["containers"]
    }
    ours, scheduler = "gputopo:0.1.0", f"registry.k8s.io/kube-scheduler:v{components.version()}"
    assert images == ({ours} if overlay == "default-scheduler" else {ours, scheduler})


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_says_what_it_belongs_to(overlay: str) -> None:
    """One label finds all of it, for whoever looks or cleans up; the namespace goes as a whole."""
    for item in render_overlay(overlay):
        assert item["metadata"]["labels"]["app.kubernetes.io/part-of"] == "gputopo"


def test_the_mock_runs_on_any_node() -> None:
    """Nothing of NVIDIA's and nothing of the host's hardware is left in the plugin."""
    plugin = by_key(render_overlay("mock"))["DaemonSet", "gputopo-device-plugin"]
    pod = plugin["spec"]["template"]["spec"]
    assert "affinity" not in pod
    assert "NVIDIA" not in json.dumps(pod)
    assert [v["hostPath"]["path"] for v in pod["volumes"] if "hostPath" in v] == [
        "/var/lib/kubelet/device-plugins",
        "/var/lib/kubelet/pod-resources",
    ]


def test_the_overlay_of_the_guide_does_what_it_says(tmp_path: Path) -> None:
    """Its image, version, setting, toleration and runtime class arrive; all else is as before."""
    guide = (DAEMONSET.parent / "docs" / "install.md").read_text(encoding="utf-8")
    files = dict(re.findall(r"```yaml\n# my-cluster/([\w.-]+)[^\n]*\n(.*?)```", guide, re.DOTALL))
    assert files.keys() == {"kustomization.yaml", "extender.yaml"}
    plain = by_key(render_overlay("second-scheduler"))
    rendered = render_own(files, tmp_path)
    for item in rendered:
        kubernetes_validate.validate(item, "1.36", strict=True)
    changed = by_key(rendered)
    assert {key for key in plain if plain[key] != changed[key]} == {
        ("DaemonSet", "gputopo-device-plugin"),
        ("Deployment", "gputopo-scheduler"),
        ("ConfigMap", "gputopo-extender"),
    }
    settings = changed["ConfigMap", "gputopo-extender"]["data"]["extender.yaml"]
    assert ExtenderSettings(**settings).default_profile == "pack"
    plugin = changed["DaemonSet", "gputopo-device-plugin"]["spec"]["template"]["spec"]
    assert plugin["runtimeClassName"] == "nvidia"
    assert "--config-dir=/configurations" in plugin["containers"][0]["args"]
    assert "configurations" in {one["name"] for one in plugin["volumes"]}
    assert [one["key"] for one in plugin["tolerations"]] == ["nvidia.com/gpu", "reserved-for"]
    assert plugin["containers"][0]["image"] == "registry.example.org/gputopo:0.1.0"


@pytest.mark.parametrize("parts", [("cdi",), ("configurations", "cdi", "nvidia-runtime-class")])
def test_components_of_the_plugin_may_be_added(parts: tuple[str, ...], tmp_path: Path) -> None:
    """Each changes the plugin alone, fits beside the others, and mounts what it names."""
    text = yaml.safe_dump(
        {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": ["../gputopo/daemonset/overlays/second-scheduler"],
            "components": [f"../gputopo/daemonset/components/{part}" for part in parts],
        }
    )
    rendered = render_own({"kustomization.yaml": text}, tmp_path)
    for item in rendered:
        kubernetes_validate.validate(item, "1.36", strict=True)
    plain, changed = by_key(render_overlay("second-scheduler")), by_key(rendered)
    assert {key for key in plain if plain[key] != changed[key]} == {
        ("DaemonSet", "gputopo-device-plugin")
    }
    pod = changed["DaemonSet", "gputopo-device-plugin"]["spec"]["template"]["spec"]
    volumes = {one["name"] for one in pod["volumes"]}
    mounted = [one["name"] for one in pod["containers"][0]["volumeMounts"]]
    assert sorted(volumes) == sorted(mounted)


PARTS: list[tuple[str, Manifest]] = [
    ("explain-token", {"extender": {"explainTokenSecret": "gputopo-explain"}}),
    ("explain-events", {"extender": {"settings": {"explain": {"events": {"enabled": True}}}}}),
]


@pytest.mark.parametrize(("part", "values"), PARTS, ids=[part for part, _ in PARTS])
def test_components_of_explain_are_values_of_the_chart(
    part: str, values: Manifest, tmp_path: Path
) -> None:
    """Both give the same objects, but for the settings, which are the user's to write there."""
    text = yaml.safe_dump(
        {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": ["../gputopo/daemonset/overlays/second-scheduler"],
            "components": [f"../gputopo/daemonset/components/{part}"],
        }
    )
    ours, theirs = (
        by_key(render_chart(values)),
        by_key(render_own({"kustomization.yaml": text}, tmp_path)),
    )
    assert ours.keys() == theirs.keys()
    differ = {key for key in ours if ours[key] != theirs[key]}
    assert differ <= {("ConfigMap", "gputopo-extender")}
    assert theirs != by_key(render_overlay("second-scheduler"))


def test_the_api_server_keeps_the_objects_as_they_are(plane: ControlPlane, installed: str) -> None:
    """Applied again, nothing differs: whoever reconciles them finds no drift."""
    done = plane.try_kubectl(
        "diff", "-k", str(DAEMONSET / "overlays" / installed), kubeconfig=plane.kubeconfig(ADMIN)
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_policies_pass_the_type_check(plane: ControlPlane, installed: str) -> None:
    """No expression names a field that the matched kinds do not have."""

    def checked() -> dict[str, Any]:
        listed = plane.ask("/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies")
        return {
            item["metadata"]["name"]: item["status"]["typeChecking"]
            for item in listed["items"]
            if "typeChecking" in item.get("status", {})
        }

    wait_until(lambda: checked().keys() == POLICIES, 30, "the type check")
    assert checked() == {name: {} for name in POLICIES}


def test_the_namespace_admits_the_scheduler_pods(plane: ControlPlane, installed: str) -> None:
    """Controllers make them: account, priority and Pod Security level are all there."""
    if installed == "default-scheduler":
        # A DaemonSet makes no pod without a node; a dry run takes the controller's place.
        template = plane.ask(f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets/gputopo-extender")
        _try_pod(plane, NAMESPACE, template["spec"]["template"])
        return

    def made() -> int:
        query = "labelSelector=app.kubernetes.io/name=gputopo-scheduler"
        return len(plane.ask(f"/api/v1/namespaces/{NAMESPACE}/pods?{query}")["items"])

    wait_until(lambda: made() == 2, 30, "two pods of the scheduler")


def test_the_namespace_admits_the_plugin_pods(plane: ControlPlane, installed: str) -> None:
    """The folders of the host need the privileged level, which the namespace has."""
    path = f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets/gputopo-device-plugin"
    _try_pod(plane, NAMESPACE, plane.ask(path)["spec"]["template"])


def test_the_scheduler_pods_would_pass_the_restricted_level(plane: ControlPlane) -> None:
    """Only the plugin is why the namespace is privileged."""
    namespace = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": "strict",
            "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
        },
    }
    plane.kubectl("apply", "-f", "-", text=json.dumps(namespace))
    account = "/api/v1/namespaces/strict/serviceaccounts/default"
    wait_until(lambda: _is_there(plane, account), 30, "the service account")
    objects = by_key(render_overlay("second-scheduler"))
    template = objects["Deployment", "gputopo-scheduler"]["spec"]["template"]
    # What the namespace is about is the pod, not whose it is.
    template["spec"].update(serviceAccountName="default", priorityClassName="")
    _try_pod(plane, "strict", template)


@pytest.mark.parametrize("component", ["second-scheduler/config", "control-plane-extender"])
def test_kube_scheduler_takes_its_configuration(component: str, folder: Path) -> None:
    """The real one reads it without a complaint, and writes the same back with its defaults."""
    path = DAEMONSET / "components" / component / "kube-scheduler.yaml"
    config = yaml.safe_load(path.read_text())
    # It wants to know an API server before it looks at the rest; it asks nothing of it.
    kubeconfig = folder / "nobody.kubeconfig"
    kubeconfig.write_text(
        "{apiVersion: v1, kind: Config, current-context: a, users: [],"
        " contexts: [{name: a, context: {cluster: a, user: ''}}],"
        " clusters: [{name: a, cluster: {server: 'https://127.0.0.1:1'}}]}"
    )
    config.setdefault("clientConnection", {})["kubeconfig"] = str(kubeconfig)
    given, written = folder / "given.yaml", folder / "written.yaml"
    given.write_text(yaml.safe_dump(config))
    written.unlink(missing_ok=True)
    done = subprocess.run(
        [
            str(components.binary_folder() / "kube-scheduler"),
            *(f"--config={given}", f"--write-config-to={written}", "--secure-port=0"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    back = yaml.safe_load(written.read_text())
    assert _contains(back, config)


def _contains(whole: Any, part: Any) -> bool:
    """Return whether everything of `part` stands in `whole`; Go leaves false out."""
    if isinstance(part, dict):
        return all(_contains(whole.get(key, False), part[key]) for key in part)
    if isinstance(part, list):
        return len(whole) == len(part) and all(map(_contains, whole, part))
    return bool(whole == part)


def _try_pod(plane: ControlPlane, namespace: str, template: Manifest) -> None:
    """Create a pod from a template, as far as admission; raises what the API server says."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "tried", "namespace": namespace},
        "spec": template["spec"],
    }
    plane.kubectl("create", "-f", "-", "--dry-run=server", text=json.dumps(pod))


def _is_there(plane: ControlPlane, path: str) -> bool:
    try:
        plane.ask(path)
    except OSError:
        return False
    return True
