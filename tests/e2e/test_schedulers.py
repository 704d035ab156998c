"""Both ways to have a kube-scheduler ask the extender, with the rights that each ships with.

The cluster's own one gets the options of a kubeadm static pod, the configuration that
docs/install.md has it started with, and its own user. The second one gets what its Deployment
says, and its service account, as do extender and plugin. All are processes here, beside a real API
server and a real kubelet.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.error import URLError
from urllib.request import urlopen

import msgspec
import pytest

from embedded.ports import free_port
from embedded.processes import own_command
from tests.e2e import components
from tests.e2e.control_plane import SCHEDULER, ControlPlane
from tests.e2e.cri import ContainerView, FakeRuntime
from tests.e2e.kubelet import Kubelet
from tests.e2e.pods.asking import AUDIENCE, ask
from tests.e2e.process import Process
from tests.e2e.rendering import NAMESPACE, Key, Manifest, by_key, render_chart
from tests.waiting import wait_until
from topology.wire import ASSIGNMENT_KEY, decode_assignment

NODE: Final = "n1"
MACHINE: Final = "dgx1-v100"
RESOURCE: Final = "nvidia.com/gpu"
VISIBLE: Final = "NVIDIA_VISIBLE_DEVICES"
PLUGIN: Final = "gputopo-device-plugin"
ACCOUNT: Final = "gputopo-scheduler"
KUBE_SCHEDULER: Final = "gputopo-kube-scheduler"


class Cluster(msgspec.Struct, frozen=True):
    """One node and its control plane; `asks_for` is what pods say of their scheduler."""

    plane: ControlPlane
    asks_for: Manifest
    runtime: FakeRuntime
    scheduler: Process
    extender: Process

    def create(self, name: str, gpus: int) -> None:
        """Create a pod for the scheduler that is tried."""
        limits = {RESOURCE: str(gpus)} if gpus else {}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {
                **self.asks_for,
                "automountServiceAccountToken": False,
                "containers": [{"name": "main", "image": "main", "resources": {"limits": limits}}],
            },
        }
        self.plane.kubectl("create", "-f", "-", text=json.dumps(pod))

    def pod(self, name: str) -> Manifest:
        """Return a pod as it stands."""
        found: Manifest = self.plane.ask(f"/api/v1/namespaces/default/pods/{name}")
        return found

    def start_of(self, name: str) -> ContainerView | None:
        """Return what kubelet had started for a pod, None if nothing yet."""
        return next((view for view in self.runtime.containers() if view.pod == name), None)

    def start_extender(self) -> None:
        """Start the extender and wait until it knows nodes and pods."""
        self.extender.start()
        self.extender.wait_for(lambda: _answers("http://127.0.0.1:8889/readyz"))


@pytest.fixture(scope="module", params=["second-scheduler", "default-scheduler"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Install the chart, and run by hand what its objects and the control plane would run."""
    second = request.param == "second-scheduler"
    # The chart gives the overlays' objects (test_chart.py), and mock nodes with either scheduler.
    rendered = render_chart({"scheduler": {"kind": request.param}, "mock": {"machine": MACHINE}})
    objects = by_key(rendered)
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="gt-", dir="/tmp"))
        stack.callback(shutil.rmtree, folder)
        plane = ControlPlane(folder, nodes=[NODE])
        plane.start()
        stack.callback(plane.stop)
        plane.kubectl("create", "namespace", NAMESPACE)
        plane.kubectl("apply", "-f", "-", text=json.dumps(_list_of(rendered)))
        runtime = FakeRuntime(folder / "cri.sock")
        runtime.start()
        stack.callback(runtime.stop)
        kubelet = Kubelet(
            NODE,
            folder / NODE,
            kubeconfig=plane.kubeconfig(f"system:node:{NODE}"),
            runtime=folder / "cri.sock",
        )
        kubelet.start()
        stack.callback(kubelet.stop)
        plane.await_node(NODE)
        run = Runner(plane, objects, folder)
        plugin = run.daemon(
            *("DaemonSet", PLUGIN, "device-plugin", PLUGIN),
            f"--node-name={NODE}",
            f"--device-plugins-dir={kubelet.device_plugins_dir}",
            f"--pod-resources-socket={kubelet.pod_resources_socket}",
        )
        shown = f"--explain-peer-token-file={run.write_peer_token()}"
        config = "gputopo-extender"
        if second:
            extender = run.daemon("Deployment", ACCOUNT, "extender", config, shown)
            scheduler = run.second_scheduler()
        else:
            extender = run.daemon("DaemonSet", config, "extender", config, shown)
            scheduler = run.own_scheduler()
        asks_for = {"schedulerName": "gputopo"} if second else {}
        cluster = Cluster(plane, asks_for, runtime, scheduler, extender)
        for process in (plugin, scheduler, extender):
            stack.callback(process.stop, signal.SIGKILL)
        plugin.start()
        cluster.start_extender()
        scheduler.start()
        wait_until(lambda: _allocatable(plane) == "8", 60, "eight GPUs")
        yield cluster


def test_a_pod_gets_the_set_that_was_chosen(cluster: Cluster) -> None:
    """Its container is started with exactly the GPUs that its annotation names."""
    cluster.create("four", 4)
    wait_until(lambda: cluster.start_of("four"), 60, "the container")
    view = cluster.start_of("four")
    assert view is not None
    chosen = decode_assignment(cluster.pod("four")["metadata"]["annotations"][ASSIGNMENT_KEY])
    assert len(chosen.containers["main"]) == 4
    assert set(view.env[VISIBLE].split(",")) == set(chosen.containers["main"])


def test_who_may_get_decisions_is_told_why(cluster: Cluster) -> None:
    """By a token of the cluster's; by the loopback alone only where it is the pod's own."""
    cluster.create("two", 2)
    wait_until(lambda: cluster.pod("two")["spec"].get("nodeName"), 60, "the pod to be bound")
    url = "http://127.0.0.1:8887/v1/pods/default/two"
    token = cluster.plane.kubectl(
        *("create", "token", ACCOUNT, "-n", NAMESPACE, "--audience", AUDIENCE)
    ).strip()
    told = ask(url, token=token)
    assert (told.status, told.by, told.told["binding"]["node"]) == (200, None, NODE)
    assert ask(url).status == (200 if cluster.asks_for else 401)
    plain = cluster.plane.kubectl("create", "token", "default", "--audience", AUDIENCE).strip()
    if not cluster.asks_for:
        assert ask(url, token=plain).status == 403


def test_other_pods_need_no_extender(cluster: Cluster) -> None:
    """While it is away, pods without GPUs are bound, and pods with GPUs wait for it."""
    cluster.extender.stop()
    cluster.create("gpu", 2)
    cluster.create("web", 0)
    wait_until(lambda: cluster.pod("web")["spec"].get("nodeName"), 60, "the pod to be bound")
    assert ASSIGNMENT_KEY not in cluster.pod("web")["metadata"].get("annotations", {})
    assert "nodeName" not in cluster.pod("gpu")["spec"]
    cluster.start_extender()
    wait_until(lambda: cluster.start_of("gpu"), 120, "the container")
    assert ASSIGNMENT_KEY in cluster.pod("gpu")["metadata"]["annotations"]


def test_nobody_missed_a_right(cluster: Cluster) -> None:
    """Neither daemon nor kube-scheduler was refused anything."""
    for process in (cluster.scheduler, cluster.extender):
        assert "forbidden" not in process.log.read_text().lower(), process.name


class Runner:
    """Makes processes of what the objects say that pods should run."""

    def __init__(self, plane: ControlPlane, objects: dict[Key, Manifest], folder: Path) -> None:
        self._plane = plane
        self._objects = objects
        self._folder = folder

    def daemon(self, kind: str, name: str, container: str, config: str, *options: str) -> Process:
        """Make a process of one of our containers: its arguments, its settings, its account.

        `config` is the ConfigMap of its settings. `options` say where this machine differs from
        a node; the last one of a name counts.
        """
        pod = self._objects[kind, name]["spec"]["template"]["spec"]
        (found,) = (one for one in pod["containers"] if one["name"] == container)
        arguments = found["args"]
        given = {one["name"]: one["value"] for one in found.get("env", ()) if "value" in one}
        ((_, settings),) = self._objects["ConfigMap", config]["data"].items()
        path = self._folder / f"{container}.json"
        path.write_text(json.dumps(settings))
        told = [
            f"--config={path}" if argument.startswith("--config=") else argument
            for argument in arguments
        ]
        told.append(f"--kubeconfig={self._log_in(pod['serviceAccountName'])}")
        return Process(
            container,
            own_command(*told, *options),
            self._folder / f"{container}.log",
            environment={**os.environ, **given},
        )

    def write_peer_token(self) -> Path:
        """Return a file with the token that kubelet would make for the extender's pod."""
        token = self._plane.kubectl(
            *("create", "token", ACCOUNT, "-n", NAMESPACE, "--audience", AUDIENCE)
        )
        path = self._folder / "peer-token"
        path.write_text(token)
        return path

    def second_scheduler(self) -> Process:
        """Make kube-scheduler as the Deployment has it."""
        pod = self._objects["Deployment", ACCOUNT]["spec"]["template"]["spec"]
        kubeconfig = self._log_in(pod["serviceAccountName"])
        config = self._read_config()
        # In the pod these come from its service account.
        config["clientConnection"]["kubeconfig"] = str(kubeconfig)
        return self._kube_scheduler(config, kubeconfig)

    def own_scheduler(self) -> Process:
        """Make kube-scheduler as kubeadm has it, but with --config."""
        kubeconfig = self._plane.kubeconfig(SCHEDULER)
        text = json.dumps(self._read_config())
        config = json.loads(text.replace("/etc/kubernetes/scheduler.conf", str(kubeconfig)))
        return self._kube_scheduler(
            config, kubeconfig, f"--kubeconfig={kubeconfig}", "--leader-elect=true"
        )

    def _kube_scheduler(self, config: Manifest, kubeconfig: Path, *options: str) -> Process:
        path = self._folder / "kube-scheduler.json"
        path.write_text(json.dumps(config))
        return Process(
            "kube-scheduler",
            [
                str(components.binary_folder() / "kube-scheduler"),
                f"--config={path}",
                f"--authentication-kubeconfig={kubeconfig}",
                f"--authorization-kubeconfig={kubeconfig}",
                "--bind-address=127.0.0.1",
                f"--secure-port={free_port()}",
                *options,
            ],
            self._folder / "kube-scheduler.log",
        )

    def _read_config(self) -> Manifest:
        found: Manifest = self._objects["ConfigMap", KUBE_SCHEDULER]["data"]["kube-scheduler.yaml"]
        return found

    def _log_in(self, account: str) -> Path:
        node = NODE if account == PLUGIN else None
        token = self._plane.service_account(NAMESPACE, account, node=node)
        return self._plane.write_kubeconfig(account, token)


def _list_of(objects: Sequence[Manifest]) -> Manifest:
    return {"apiVersion": "v1", "kind": "List", "items": list(objects)}


def _allocatable(plane: ControlPlane) -> Any:
    return plane.ask(f"/api/v1/nodes/{NODE}")["status"]["allocatable"].get(RESOURCE)


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=2) as answer:  # noqa: S310 -- our own process
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False
