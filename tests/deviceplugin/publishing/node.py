"""A Node behind an API server that can go away, and a publisher whose books a test writes."""

from __future__ import annotations

import json
from collections.abc import Mapping

from deviceplugin.metrics import Metrics
from deviceplugin.publishing.publisher import Publisher
from runtime.errors import KubeError
from tests.deviceplugin.nodes import (
    RESOURCE,
    FakeClock,
)
from topology.wire import (
    STATE_KEY,
    NodeState,
    decode_state,
)


class FakeNode:
    """A Node behind an API server that can go away."""

    def __init__(self) -> None:
        self.annotations: dict[str, str] = {"somebody/else": "x"}
        self.error: KubeError | None = None
        self.patches: list[tuple[float, dict[str, str]]] = []
        self.clock = FakeClock()

    def get(self, path: str, query: Mapping[str, str] | None = None, *, timeout: float) -> bytes:
        """Return the node."""
        assert path == "/api/v1/nodes/n1"
        if self.error is not None:
            raise self.error
        return json.dumps({"metadata": {"name": "n1", "annotations": self.annotations}}).encode()

    def patch(self, path: str, body: object, *, timeout: float) -> bytes:
        """Merge the annotations."""
        if self.error is not None:
            raise self.error
        assert isinstance(body, dict)
        changed = body["metadata"]["annotations"]
        self.patches.append((self.clock.now, dict(changed)))
        self.annotations.update(changed)
        return b"{}"


class World:
    """A publisher whose books a test writes."""

    def __init__(self) -> None:
        self.node = FakeNode()
        self.metrics = Metrics()
        self.topology: str | None = "T1"
        self.state: NodeState | None = NodeState(0, (RESOURCE,))
        self.publisher = Publisher(
            client=self.node,
            node_name="n1",
            topology=lambda: self.topology,
            state=lambda: self.state,
            metrics=self.metrics,
            interval=0.5,
            verify_seconds=60,
            clock=self.node.clock,
        )

    def pass_time(self, seconds: float) -> None:
        """Let the publisher work for so long, at every moment at which it wants to."""
        end = self.node.clock.now + seconds
        while True:
            rest = self.publisher.step()
            if self.node.clock.now + rest > end:
                self.node.clock.now = end
                return
            self.node.clock.now += max(rest, 0.001)

    def published(self) -> NodeState:
        """Return the state on the Node."""
        return decode_state(self.node.annotations[STATE_KEY])

    def hold(self, *uuids: str) -> None:
        """Let pod ``u`` hold these."""
        self.state = NodeState(0, (RESOURCE,), {}, {"u": uuids})
