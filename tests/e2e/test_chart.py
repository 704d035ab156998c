"""The Helm chart gives the same objects as the overlays, and refuses what cannot work."""

from __future__ import annotations

import subprocess
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.e2e import helm
from tests.e2e.rendering import DAEMONSET, NAMESPACE, Manifest, by_key, render_chart, render_overlay

VALUES: dict[str, Manifest] = {
    "second-scheduler": {},
    "default-scheduler": {"scheduler": {"kind": "default-scheduler"}},
    "mock": {"mock": {"machine": "hgx-h100-8x-ib"}},
}
EVERYTHING: Manifest = {
    "image": {"repository": "registry.example.org/gputopo", "tag": "1", "pullPolicy": "Always"},
    "imagePullSecrets": [{"name": "registry"}],
    "resource": "example.org/gpu",
    "scheduler": {
        "name": "gpus",
        "replicas": 3,
        "percentageOfNodesToScore": 7,
        "image": {"repository": "registry.example.org/kube-scheduler", "tag": "v1.35.1"},
        "resources": {},
        "nodeSelector": {"pool": "system"},
        "tolerations": [{"operator": "Exists"}],
    },
    "extender": {
        "settings": {"log_level": "debug", "explain": {"trust_loopback": True}},
        "explainHost": "0.0.0.0",
        "explainTokenSecret": "what-opens",
        "resources": {"limits": {"memory": "1Gi"}},
    },
    "devicePlugin": {
        "settings": {"numa_hints": False, "xid_responses": {"94": "ignore"}},
        "runtimeClassName": "nvidia",
        "configurations": "gpu-files",
        "maxUnavailable": "10%",
        "nodeSelector": {"pool": "gpu"},
        "affinity": None,
        "tolerations": [],
    },
    "admissionPolicies": {"enabled": False},
}


@pytest.mark.parametrize("overlay", VALUES)
def test_the_chart_renders_the_objects_of_the_overlay(overlay: str) -> None:
    """Whoever installs with Helm gets what whoever installs with kubectl gets."""
    ours, theirs = by_key(render_chart(VALUES[overlay])), by_key(render_overlay(overlay))
    assert ours.keys() == theirs.keys()
    for key, item in theirs.items():
        assert ours[key] == item, key


@pytest.mark.parametrize("values", [*VALUES.values(), EVERYTHING], ids=[*VALUES, "everything"])
def test_every_object_of_the_chart_is_valid_in_strict_mode(values: Manifest) -> None:
    """With defaults, and with every value given."""
    for item in render_chart(values):
        kubernetes_validate.validate(item, "1.36", strict=True)


def test_the_chart_passes_helm_s_own_linter() -> None:
    """Nothing in it is deprecated or malformed; only an icon is missing."""
    command = [str(helm.binary()), "lint", "--strict", "--quiet", "--namespace", NAMESPACE]
    done = subprocess.run(
        [*command, str(DAEMONSET / "chart")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stdout


def test_the_namespace_is_the_release_s_everywhere() -> None:
    """Subjects, policies and leader election follow; no gputopo-system is left over."""
    objects = render_chart(namespace="gpus")
    assert NAMESPACE not in yaml.safe_dump(objects)
    assert {item["metadata"].get("namespace") for item in objects} == {None, "gpus", "kube-system"}


def test_the_resource_reaches_all_three() -> None:
    """Device plugin, extender and kube-scheduler hear of the same resource."""
    objects = by_key(render_chart({"resource": "example.org/gpu"}))
    plugin = objects["ConfigMap", "gputopo-device-plugin"]["data"]["device-plugin.yaml"]
    extender = objects["ConfigMap", "gputopo-extender"]["data"]["extender.yaml"]
    scheduler = objects["ConfigMap", "gputopo-kube-scheduler"]["data"]["kube-scheduler.yaml"]
    (managed,) = scheduler["extenders"][0]["managedResources"]
    assert plugin["resource"] == extender["resource"] == managed["name"] == "example.org/gpu"


def test_every_value_is_heeded() -> None:
    """No value of the file is there for nothing: each one given shows up in some object."""
    text = yaml.safe_dump_all(by_key(render_chart(EVERYTHING)).values())
    for trace in (
        "registry.example.org/gputopo:1",
        "registry.example.org/kube-scheduler:v1.35.1",
        "schedulerName: gpus",
        "replicas: 3",
        "percentageOfNodesToScore: 7",
        "pool: system",
        "pool: gpu",
        "log_level: debug",
        "memory: 1Gi",
        "--explain-host=0.0.0.0",
        "secretName: what-opens",
        "trust_loopback: true",
        "numa_hints: false",
        "'94': ignore",
        "runtimeClassName: nvidia",
        "--config-dir=/configurations",
        "name: gpu-files",
        "maxUnavailable: 10%",
        "imagePullPolicy: Always",
        "- name: registry\n",
    ):
        assert trace in text, trace
    assert "ValidatingAdmissionPolicy" not in text
    assert "nvidia.com" not in text


@pytest.mark.parametrize(
    ("server", "image"),
    [
        ("v1.35.4", "registry.k8s.io/kube-scheduler:v1.35.4"),
        # What a distribution appends is no part of the image's tag.
        ("v1.34.9-eks-3abbec1", "registry.k8s.io/kube-scheduler:v1.34.9"),
        ("v1.33.5+k3s1", "registry.k8s.io/kube-scheduler:v1.33.5"),
    ],
)
def test_the_scheduler_is_of_the_cluster_s_own_version(server: str, image: str) -> None:
    """kube-scheduler must not be newer than the API server; an upgrade of the release follows."""
    objects = by_key(render_chart(kube_version=server))
    pod = objects["Deployment", "gputopo-scheduler"]["spec"]["template"]["spec"]
    (found,) = (one for one in pod["containers"] if one["name"] == "kube-scheduler")
    assert found["image"] == image


def test_a_changed_setting_replaces_the_pods() -> None:
    """The daemons read their settings once, so a new one must start new pods; others stay."""
    before, after = (
        {
            item["metadata"]["name"]: item["spec"]["template"]["metadata"]["annotations"]
            for item in render_chart({"extender": {"settings": settings}})
            if item["kind"] in {"DaemonSet", "Deployment"}
        }
        for settings in ({}, {"log_level": "debug"})
    )
    assert before["gputopo-scheduler"] != after["gputopo-scheduler"]
    assert before["gputopo-device-plugin"] == after["gputopo-device-plugin"]


def test_one_replica_has_no_budget() -> None:
    """A budget of one pod would only stand in the way of a drain."""
    assert ("PodDisruptionBudget", "gputopo-scheduler") not in by_key(
        render_chart({"scheduler": {"replicas": 1}})
    )


@pytest.mark.parametrize(
    ("values", "advice"),
    [
        ({"extender": {"settings": {"resource": "a.b/c"}}}, "set `resource` instead"),
        ({"devicePlugin": {"settings": {"resource": "a.b/c"}}}, "set `resource` instead"),
        ({"extender": {"settings": {"port": 1}}}, "extender.settings.port: .* leave it out"),
        ({"devicePlugin": {"settings": {"sysfs_root": "/s"}}}, "sysfs_root: .* leave it out"),
        (
            {"extender": {"settings": {"explain": {"host": "::1"}}}},
            "extender.settings.explain.host: .* extender.explainHost says where",
        ),
        ({"extender": {"explainHost": "everywhere"}}, "extender/explainHost"),
        (
            {"mock": {"machine": "x"}, "devicePlugin": {"runtimeClassName": "nvidia"}},
            "a mock machine needs no NVIDIA runtime",
        ),
        (
            {"scheduler": {"kind": "default-scheduler", "name": "x"}},
            "scheduler.name: .* leave it out",
        ),
        ({"scheduler": {"name": "default-scheduler"}}, "set scheduler.kind to default-scheduler"),
        (
            {"scheduler": {"image": {"tag": "v1.37.0"}}},
            "kube-scheduler v1.37.0 is newer than the API server v1.36",
        ),
        ({"scheduler": {"kind": "third"}}, "scheduler/kind"),
        ({"resource": "gpu"}, "resource"),
        ({"scheduler": {"replicas": 0}}, "scheduler/replicas"),
        ({"devicePlugin": {"maxUnavailable": 0}}, "devicePlugin/maxUnavailable"),
        ({"scheduler": {"percentageOfNodesToScore": 101}}, "percentageOfNodesToScore"),
        ({"devicePlugins": {}}, "devicePlugins"),
    ],
)
def test_what_cannot_work_is_refused_with_advice(values: Any, advice: str) -> None:
    """The message names the value, and says what to do."""
    with pytest.raises(ValueError, match=f"(?s){advice}"):
        render_chart(values)


@pytest.mark.parametrize("namespace", ["default"])
def test_a_namespace_of_its_own_is_asked_for(namespace: str) -> None:
    """The namespace gets the privileged level, which no other workload should enjoy."""
    with pytest.raises(ValueError, match="--namespace gputopo-system"):
        render_chart(namespace=namespace)


def test_an_old_cluster_is_refused() -> None:
    """Before 1.32 the tokens of pods do not name their node for sure."""
    with pytest.raises(ValueError, match=r"1\.32"):
        render_chart(kube_version="v1.31.0")
