"""Asks the API server for pods that kubelet shows and the watch does not, within an admission."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import structlog

from deviceplugin.admission.asking import Identified, identify
from deviceplugin.outcomes import Drift
from deviceplugin.pods.holdings import Holdings
from runtime.errors import KubeError
from runtime.objects import Pod

FORGET_SECONDS: Final = 10.0
"""How long a pod that the API server does not know (a static one) is not asked for again."""

_log = structlog.get_logger("deviceplugin.lookup")


class Lookup:
    """Settles who is asking where the watch alone does not. Used by one admission at a time.

    `get_pod` asks the API server for one pod within some seconds (None: there is none) and raises
    KubeError.
    """

    def __init__(
        self,
        get_pod: Callable[[str, float], Pod | None],
        resource: str,
        clock: Callable[[], float],
    ) -> None:
        self._get_pod = get_pod
        self._resource = resource
        self._clock = clock
        self._absent: dict[str, float] = {}

    def settle(
        self,
        who: Identified,
        holdings: Holdings,
        pods: Mapping[str, Pod],
        size: int,
        deadline: float,
    ) -> tuple[Identified, Mapping[str, Pod]]:
        """Return who is asking and all pods known by now, after asking until `deadline`."""
        seen = dict(pods)
        fresh: set[str] = set()
        failed = False
        now = self._clock()
        self._absent = {key: until for key, until in self._absent.items() if until > now}
        for key in who.unseen:
            if key in self._absent:
                continue
            left = deadline - self._clock()
            if left <= 0:
                failed = True
                break
            try:
                pod = self._get_pod(key, left)
            except KubeError as error:
                _log.warning("pod in admission cannot be looked up", pod=key, problem=str(error))
                failed = True
                break
            if pod is None:
                self._absent[key] = self._clock() + FORGET_SECONDS
            else:
                seen[key] = pod
                fresh.add(key)
        closer = identify(holdings, seen, self._resource, size, fresh=fresh)
        if failed and closer.drift is Drift.NO_POD:
            return Identified(None, Drift.API_SERVER), seen
        if closer.drift is Drift.NO_POD and any(
            self._is_static(key, holdings) for key in who.unseen
        ):
            return Identified(None), seen
        # With one candidate it is taken even if others could not be looked up: kubelet admits one
        # pod at a time, so it could only be another if this one was admitted without devices.
        return closer, seen

    def _is_static(self, key: str, holdings: Holdings) -> bool:
        """Tell whether a pod is one that kubelet is admitting and the API server does not know.

        Such a pod comes from a file, and nobody has promised it anything.
        """
        return key in self._absent and not all(holdings.pods[key].containers.values())
