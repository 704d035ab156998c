"""Static pods: files that a node runs, and the mirror pods that the API server shows of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from embedded.apiserver import ApiServer
from embedded.kubelet import ContainerView, Kubelet
from runtime.errors import NotFoundError
from runtime.kube import KubeClient, connect
from tests.embedded.kubelet.plugin import GPU, Plugin, healthy
from tests.waiting import wait_until

PODS = "/api/v1/namespaces/default/pods"
HASH, MIRROR = "kubernetes.io/config.hash", "kubernetes.io/config.mirror"


class Rig:
    """A node with four GPUs, its folder of static pods, and its API server."""

    def __init__(self, root: Path) -> None:
        self.server = ApiServer()
        self.server.start()
        self.client: KubeClient = connect(str(self.server.write_kubeconfig(root / "kc")))
        self.folder = root / "static"
        self.folder.mkdir()
        self.kubelet = Kubelet(
            "n1", root / "n", self.client, static_pods=self.folder, file_period=0.02
        )
        self.kubelet.start()
        self.plugin = Plugin(self.kubelet.device_plugins_dir, healthy("a", "b", "c", "d")).serve()

    def allocatable(self) -> str | None:
        """Return the node's allocatable GPUs."""
        node = self.get("/api/v1/nodes/n1")
        value: str | None = node.get("status", {}).get("allocatable", {}).get(GPU)
        return value

    def get(self, path: str) -> dict[str, Any]:
        """Return an object; {} if there is none."""
        try:
            found: dict[str, Any] = msgspec.json.decode(self.client.get(path))
        except NotFoundError:
            return {}
        return found

    def put(self, name: str, gpus: int = 1, **metadata: Any) -> None:
        """Write a pod's file."""
        limits = {"limits": {GPU: str(gpus)}}
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, **metadata},
            "spec": {"containers": [{"name": "main", "image": "x", "resources": limits}]},
        }
        (self.folder / f"{name}.json").write_bytes(msgspec.json.encode(body))

    def mirror(self, name: str) -> dict[str, Any]:
        """Return a mirror pod; {} if there is none."""
        return self.get(f"{PODS}/{name}")

    def phase(self, name: str) -> str | None:
        """Return a mirror pod's phase."""
        phase: str | None = self.mirror(name).get("status", {}).get("phase")
        return phase

    def wait_running(self, name: str) -> dict[str, Any]:
        """Wait until the API server shows that it runs, and return the mirror pod."""
        wait_until(lambda: self.phase(name) == "Running", what=f"{name} to run")
        return self.mirror(name)

    def views(self, name: str) -> list[ContainerView]:
        """Return every start of a pod's container."""
        return [view for view in self.kubelet.containers() if view.pod == name]


@pytest.fixture
def rig(root: Path) -> Iterator[Rig]:
    """Return a node that runs."""
    made = Rig(root)
    try:
        made.plugin.register()
        wait_until(lambda: made.allocatable() == "4", what="the GPUs")
        yield made
    finally:
        made.kubelet.stop()
        made.plugin.stop()
        made.client.close()
        made.server.stop()


def test_a_file_runs_with_devices_and_is_mirrored(rig: Rig) -> None:
    """Its name ends with the node's, its UID is not the mirror's, and the mirror has its status."""
    rig.put("one", 2, annotations={"mine": "kept"})
    mirror = rig.wait_running("one-n1")
    (view,) = rig.views("one-n1")
    assert len(view.devices) == 2
    meta = mirror["metadata"]
    assert meta["uid"] != view.uid
    assert meta["annotations"][HASH] == meta["annotations"][MIRROR] == view.uid
    assert meta["annotations"]["kubernetes.io/config.source"] == "file"
    assert meta["annotations"]["mine"] == "kept"
    (owner,) = meta["ownerReferences"]
    node = rig.get("/api/v1/nodes/n1")
    assert (owner["kind"], owner["name"], owner["uid"]) == ("Node", "n1", node["metadata"]["uid"])
    assert mirror["spec"]["nodeName"] == "n1"
    (told,) = mirror["status"]["containerStatuses"][0]["allocatedResourcesStatus"]
    assert {one["resourceID"] for one in told["resources"]} == set(view.devices)


def test_a_deleted_mirror_comes_again(rig: Rig) -> None:
    """The pod runs on; the new mirror has another UID and the same status."""
    rig.put("one")
    first = rig.wait_running("one-n1")["metadata"]["uid"]
    rig.client.delete(f"{PODS}/one-n1")
    wait_until(
        lambda: rig.mirror("one-n1").get("metadata", {}).get("uid", first) != first,
        what="another mirror",
    )
    rig.wait_running("one-n1")
    assert len(rig.views("one-n1")) == 1


def test_a_file_that_goes_takes_its_pod_along(rig: Rig) -> None:
    """The container ends, the mirror goes, and the devices are there for others."""
    rig.put("one", 4)
    rig.wait_running("one-n1")
    (rig.folder / "one.json").unlink()
    wait_until(lambda: not rig.mirror("one-n1"), what="the mirror's end")
    assert not rig.views("one-n1")[0].running
    rig.put("two", 4)
    rig.wait_running("two-n1")


def test_another_content_is_another_pod(rig: Rig) -> None:
    """A changed file ends the old pod and starts a new one with a mirror of its own."""
    rig.put("one", 1)
    rig.wait_running("one-n1")
    rig.put("one", 3)
    wait_until(lambda: len(rig.views("one-n1")) == 2, what="the second start")
    old, new = rig.views("one-n1")
    wait_until(
        lambda: (
            rig.mirror("one-n1").get("metadata", {}).get("annotations", {}).get(HASH) == new.uid
        ),
        what="the new pod's mirror",
    )
    assert not old.running
    assert (len(old.devices), len(new.devices)) == (1, 3)
    rig.wait_running("one-n1")


def test_a_static_pod_outlives_its_kubelet(rig: Rig) -> None:
    """The new process finds the container running and starts none; the mirror stays as it is."""
    rig.put("one", 2)
    uid = rig.wait_running("one-n1")["metadata"]["uid"]
    rig.kubelet.restart()
    wait_until(
        lambda: len(rig.kubelet.journal.entries("admitted")) == 2, what="the second admission"
    )
    assert rig.wait_running("one-n1")["metadata"]["uid"] == uid
    assert len(rig.views("one-n1")) == 1


def test_a_mirror_whose_file_went_meanwhile_is_deleted(rig: Rig) -> None:
    """A kubelet that starts without the file ends what still runs of it."""
    rig.put("one")
    rig.wait_running("one-n1")
    rig.kubelet.stop()
    (rig.folder / "one.json").unlink()
    rig.kubelet.start()
    wait_until(lambda: not rig.mirror("one-n1"), what="the mirror's end")


def test_without_the_api_server_it_runs_all_the_same(rig: Rig) -> None:
    """The file is enough; the mirror is made when the server is back."""
    rig.server.go_away()
    rig.put("one", 2)
    wait_until(lambda: rig.views("one-n1"), what="its container")
    rig.server.come_back()
    rig.wait_running("one-n1")


def test_a_rejected_static_pod_has_no_mirror(rig: Rig) -> None:
    """More devices than there are: kubelet says so in its journal, the API server hears nothing."""
    rig.put("greedy", 5)
    wait_until(lambda: rig.kubelet.journal.entries("rejected"), what="the rejection")
    (entry,) = rig.kubelet.journal.entries("rejected")
    assert entry.subject == "default/greedy-n1"
    rig.put("one")
    rig.wait_running("one-n1")
    assert not rig.mirror("greedy-n1")


@pytest.mark.parametrize(
    "content",
    ["{", "kind: Node", "kind: Pod\nmetadata: {name: x}", "kind: Pod\nmetadata: {}\nspec: {}", "7"],
)
def test_a_file_that_is_no_pod_is_reported_once(rig: Rig, content: str) -> None:
    """The journal names the file; the other files run."""
    (rig.folder / "bad.yaml").write_text(content)
    rig.put("one")
    rig.wait_running("one-n1")
    (trouble,) = rig.kubelet.journal.entries("trouble", "bad.yaml")
    assert str(rig.folder / "bad.yaml") in trouble.detail


def test_files_with_a_dot_in_front_are_not_read(rig: Rig) -> None:
    """An editor's leftovers and half-written files run nothing."""
    rig.put(".hidden")
    rig.put("one")
    rig.wait_running("one-n1")
    assert {view.pod for view in rig.kubelet.containers()} == {"one-n1"}
