"""The extender's process with load turned on in its config file."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from time import time

from embedded.apiserver import ApiServer
from embedded.ports import free_port
from runtime.kube_aio import AioKubeClient
from scheduler.load.answers import PART
from tests.scheduler.conftest import api, client
from tests.scheduler.load.answering import vector
from tests.scheduler.load.conftest import FakePrometheus
from tests.scheduler.nodes import mesh, node_object
from tests.scheduler.test_main import Start, get, start
from tests.waiting import wait_until

__all__ = ["api", "client", "start"]

CONFIG = """
load:
  prometheus: {{url: "{url}"}}
  refresh_seconds: 0.1
  weights: {{cpu: 1}}
profiles:
  training: {{weights: {{link_quality: 6, load: 2}}}}
"""


async def test_it_asks_shows_what_it_knows_and_ends_when_told(
    start: Start,
    api: ApiServer,
    client: AioKubeClient,
    prometheus: FakePrometheus,
    tmp_path: Path,
) -> None:
    """Two nodes covered by one query a round; a hanging question does not hold up the end."""
    for name in ("n1", "n2"):
        await client.post("/api/v1/nodes", node_object(name, mesh(4)))
    told = [
        ({"instance": f"{name}:9100", PART: part}, number)
        for name in ("n1", "n2", "n3")
        for part, number in (("value", 0.5), ("taken", time()))
    ]
    prometheus.answers["node_cpu"] = vector(*told, at=time())
    config = tmp_path / "extender.yaml"
    config.write_text(CONFIG.format(url=prometheus.url))
    ops = free_port()
    process = start(
        *("--config", str(config)),
        *("--kubeconfig", str(api.write_kubeconfig(tmp_path / "kubeconfig"))),
        *("--port", str(free_port()), "--ops-port", str(ops), "--explain-port", "0"),
    )

    def page() -> str:
        """Return its metrics."""
        return get(ops, "/metrics")[1]

    def shows(line: str) -> None:
        """Wait until they have this line."""
        wait_until(lambda: f"gputopo_extender_load_{line}\n" in page(), 30, line)

    await asyncio.to_thread(shows, 'nodes{metric="cpu"} 2.0')
    await asyncio.to_thread(shows, 'circuit{source="prometheus",state="closed"} 1.0')
    refused = 'refused_samples_total{metric="cpu",reason="unknown_node"} '
    assert f"gputopo_extender_load_{refused}0.0" not in await asyncio.to_thread(page)
    process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(process.wait, 15) == 0
