"""A real extender over the embedded API server, with a few decisions behind it."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from embedded.apiserver import ApiServer
from embedded.ports import free_port
from runtime.kube import KubeClient, connect
from tests.scheduler.nodes import mesh, node_object, pcie, pod_object, switched
from tests.waiting import wait_until

ROOM = {"cpu": "96", "memory": "1Ti", "pods": "110"}
NODES = ("fast", "near", "slow")
PODS = "/api/v1/namespaces/default/pods"


class Explained(NamedTuple):
    """Where the extender answers, and as whom the API server is asked."""

    url: str
    verbs: str
    api: ApiServer
    client: KubeClient
    kubeconfig: Path
    token: str = ""

    def ask(self, path: str, body: object = None) -> Any:
        """Ask the explain API."""
        return _call(f"{self.url}{path}", body, self.token)

    def place(self, pod: dict[str, Any]) -> str | None:
        """Create a pod, filter it, and bind it if a node will do; returns which."""
        made = json.loads(self.client.post(PODS, pod))
        given = {"Pod": made, "NodeNames": list(NODES)}
        names = _call(f"{self.verbs}/filter", given)["NodeNames"]
        if not names:
            return None
        meta = made["metadata"]
        bind = {"PodName": meta["name"], "PodNamespace": "default", "PodUID": meta["uid"]}
        assert _call(f"{self.verbs}/bind", {**bind, "Node": names[0]}) == {"Error": ""}
        return str(names[0])


@contextmanager
def explained(folder: Path, *options: str, token: str = "") -> Iterator[Explained]:
    """Run an extender; `train` has four GPUs of `fast`, and `big` wants all eight.

    `token` is the one that its API wants by these options.
    """
    api = ApiServer()
    api.start()
    kubeconfig = api.write_kubeconfig(folder / "kubeconfig")
    client = connect(str(kubeconfig))
    for name, machine in zip(NODES, (switched(8), mesh(4), pcie(4)), strict=True):
        client.post("/api/v1/nodes", node_object(name, machine, amounts=ROOM))
    port, ops, explain = free_port(), free_port(), free_port()
    command = [sys.executable, "-m", "cli.main", "extender", "--kubeconfig", str(kubeconfig)]
    command += ["--port", str(port), "--ops-port", str(ops), "--explain-port", str(explain)]
    with (folder / "extender.log").open("wb") as log:
        process = subprocess.Popen([*command, *options], stdout=log, stderr=log)
    found = Explained(
        f"http://127.0.0.1:{explain}", f"http://127.0.0.1:{port}", api, client, kubeconfig, token
    )
    try:
        wait_until(lambda: _answers(f"http://127.0.0.1:{ops}/readyz"), 30, "extender ready")
        assert found.place(pod_object("train", 4)) == "fast"
        wait_until(lambda: found.ask("/v1/nodes/fast")["summary"]["free"] == 4, 10, "pod seen")
        assert found.place(pod_object("big", 8)) is None
        yield found
    finally:
        process.terminate()
        process.wait(15)
        client.close()
        api.stop()


def _call(url: str, body: object, token: str = "") -> Any:
    content = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(url, content, headers)  # noqa: S310 -- our own http address
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 -- as above
        return json.load(answer)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):  # noqa: S310 -- as above
            return True
    except OSError:
        return False
