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
    not at the top before they go. `port` -1 means that there is no API. `host` may be ``::`` for
    all addresses of both families.

    Callers show a bearer token: what stands in `token_file`, or a token of the cluster's for
    `audience`, whose owner may ``get decisions.gputopo.dev``. An address that is not the machine's
    own loopback wants one of these. `trust_loopback` asks nothing of callers on the loopback, by
    default where there is no `token_file`. `dashboard` serves pages for people beside the API,
    `events` writes decisions to the API server too.

    `lease` names the Lease of the kube-scheduler that asks this extender, as namespace/name: a
    replica whose kube-scheduler does not hold it hands questions on to the one that does, with the
    token in `peer_token_file`, by default that of `token_file`. `identity` is the name by which
    the Lease would know us: our own pod's, or the node's in the host's network; the host's name by
    default.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=-1, le=65535)] = 8887
    token_file: Path | None = None
    audience: str = ""
    trust_loopback: bool | None = None
    dashboard: bool = True
    keep_seconds: Annotated[float, Field(gt=0, le=86_400)] = 600.0
    max_records: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    max_mib: Annotated[int, Field(ge=1, le=16_384)] = 96
    events: EventSettings = EventSettings()
    lease: Annotated[str, Field(pattern=r"^([a-z0-9.-]+/[a-z0-9.-]+)?$")] = ""
    peer_token_file: Path | None = None
    identity: str = ""

    @model_validator(mode="after")
    def _somebody_may_ask(self) -> Self:
        if self.port < 0 or self.token_file is not None or self.audience:
            return self
        if not is_loopback(self.host):
            raise ValueError(
                f"host {self.host}: others reach it, so token_file or audience is needed"
            )
        if self.trust_loopback is False:
            raise ValueError("trust_loopback: without it token_file or audience is needed")
        return self

    @property
    def trusts_loopback(self) -> bool:
        """Whether who comes over the loopback needs no token."""
        return self.token_file is None if self.trust_loopback is None else self.trust_loopback

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
