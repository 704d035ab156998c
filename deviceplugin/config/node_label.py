"""Asks the API server which configuration the own Node's labels name."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final
from urllib.parse import quote

import msgspec

from deviceplugin.config.selection import label_of
from runtime.depth import decode_shallow
from runtime.errors import AccessError, KubeError, SettingsError
from runtime.kube import KubeClient, connect
from runtime.objects import UNREADABLE, Node

TIMEOUT: Final = 5.0
PATIENCE: Final = 30.0
"""Seconds for the first answer: on a node that has just booted the way may not be there yet."""
PAUSE: Final = 1.0
_NODE: Final = msgspec.json.Decoder(Node)


class NodeLabel:
    """Returns what the Node's labels say, asked at most every `period` seconds.

    Once they have been read, a server that does not answer changes nothing. Before that it is
    asked for half a minute, and then it is an error: a wrong configuration is worse than none.
    """

    def __init__(
        self,
        kubeconfig: str | None,
        node_name: str,
        *,
        period: float = 5.0,
        patience: float = PATIENCE,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._kubeconfig = kubeconfig
        self._node_name = node_name
        self._period = period
        self._patience = patience
        self._clock = clock
        self._sleep = sleep
        self._client: KubeClient | None = None
        self._next = float("-inf")
        self._last: str | None = None

    def __call__(self) -> str:
        """Return the name asked for, "" if none; raises SettingsError."""
        if self._last is not None and self._clock() < self._next:
            return self._last
        end = self._clock() + self._patience
        while True:
            self._next = self._clock() + self._period
            try:
                self._last = self._ask()
            except (KubeError, *UNREADABLE) as error:
                if self._last is not None:
                    return self._last
                if self._clock() >= end:
                    told = f"the labels of node {self._node_name}: {error}"
                    raise SettingsError([told]) from error
                self._sleep(PAUSE)
            else:
                return self._last

    def _ask(self) -> str:
        if self._client is None:
            try:
                self._client = connect(self._kubeconfig)
            except AccessError as error:
                raise SettingsError([str(error)]) from error
        body = self._client.get(f"/api/v1/nodes/{quote(self._node_name)}", timeout=TIMEOUT)
        return label_of(decode_shallow(_NODE.decode, body).metadata.labels or {})
