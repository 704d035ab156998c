"""What the operator may set of the API."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from scheduler.explain.store import Limits


class EventSettings(BaseModel):
    """Whether decisions are also written as Kubernetes Events on their pods.

    Each is deleted when it is `lifetime_seconds` old, also by a process that came later. At most
    `per_second` are written; what is more than can wait is lost.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = False
    lifetime_seconds: Annotated[float, Field(ge=1, le=86_400)] = 600.0
    per_second: Annotated[float, Field(gt=0, le=1000)] = 10.0


class ExplainSettings(BaseModel):
    """How long decisions are kept, and who may read them.

    A record is kept for `keep_seconds` after the last try of its pod; there are at most
    `max_records` in about `max_mib` of memory, and the oldest lose the scores of nodes that are
    not at the top before they go. `port` -1 means that there is no API. An address that is not
    the machine's own loopback wants `token_file`: who reads the API must then send what stands
    in it as a bearer token. `dashboard` serves pages for people beside the API, `events` writes
    decisions to the API server too. `lease` names the Lease of the kube-scheduler that asks this
    extender, as namespace/name: a replica whose kube-scheduler does not hold it hands questions on
    to the pod that does. `identity` is the name of our own pod, the host's by default.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=-1, le=65535)] = 8887
    token_file: Path | None = None
    dashboard: bool = True
    keep_seconds: Annotated[float, Field(gt=0, le=86_400)] = 600.0
    max_records: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    max_mib: Annotated[int, Field(ge=1, le=16_384)] = 96
    events: EventSettings = EventSettings()
    lease: Annotated[str, Field(pattern=r"^([a-z0-9.-]+/[a-z0-9.-]+)?$")] = ""
    identity: str = ""

    @model_validator(mode="after")
    def _token_when_wide(self) -> Self:
        if self.port >= 0 and self.token_file is None and not is_loopback(self.host):
            raise ValueError(f"host {self.host}: others reach it, so token_file is needed")
        return self

    @property
    def limits(self) -> Limits:
        """What the store may hold."""
        return Limits(self.keep_seconds, self.max_records, self.max_mib << 20)


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
