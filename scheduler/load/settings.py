"""What the operator may set about load; all of it has defaults but where Prometheus is."""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from pathlib import Path
from typing import Annotated, Final, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from scheduler.load.answers import Query
from scheduler.load.breaker import Rules
from scheduler.load.node_metrics import MEASURED
from scheduler.load.queries import DEFAULT_QUERIES, NODE_LABELS
from scheduler.load.samples import Metric

Label = Annotated[str, Field(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$", max_length=128)]
PromQL = Annotated[str, Field(min_length=1, max_length=4000)]
Seconds = Annotated[float, Field(gt=0, le=3600)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$", max_length=128)]
HeaderValue = Annotated[str, Field(pattern=r"^[\x20-\x7e]*$", max_length=4096)]

_DNS_NAME: Final = re.compile(r"(?=.{1,253}$)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?", re.ASCII)


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class QuerySettings(_Model):
    """How one metric is asked for; it replaces the default whole.

    `query` gives each node's share in use, 0 to 1, as one series a node; `taken` the Unix time of
    the newest sample behind it, None takes the time of the question; `window_seconds` is over how
    long the value is an average. ``$labels`` stands for `node_labels` in both.
    """

    query: PromQL
    taken: PromQL | None = None
    window_seconds: Annotated[float, Field(ge=0, le=86400)] = 0.0

    def as_query(self) -> Query:
        """Return it as the value that the core knows."""
        return Query(self.query, self.taken, self.window_seconds)


class PrometheusSettings(_Model):
    """Where Prometheus is, and how it knows us.

    `url` is what stands before ``/api/v1/query``. One way of authentication: a bearer token's
    file, or a user with the password's file; files are read again each time. `ca_file` checks the
    server instead of the system's authorities, `cert_file` and `key_file` are our own.
    `headers` are sent as they stand (a tenant's name; no secrets, they are not hidden).
    """

    url: str
    ca_file: Path | None = None
    insecure_skip_verify: bool = False
    cert_file: Path | None = None
    key_file: Path | None = None
    token_file: Path | None = None
    username: Annotated[str, Field(pattern=r"^[^:]+$", max_length=1024)] | None = None
    password_file: Path | None = None
    headers: dict[HeaderName, HeaderValue] = {}
    timeout_seconds: Annotated[float, Field(gt=0, le=60)] = 5.0
    max_answer_mib: Annotated[int, Field(ge=1, le=1024)] = 32

    @field_validator("url")
    @classmethod
    def _is_plain(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise ValueError(f"not a URL: {error}") from None
        if parts.scheme not in {"http", "https"} or not host or port == 0:
            raise ValueError("want http://HOST:PORT or https://HOST:PORT, a path may follow")
        if not _is_host(host):
            raise ValueError("its host is neither a DNS name nor an address")
        if parts.query or parts.fragment:
            raise ValueError("want no ? and no #: what stands before /api/v1/query")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        # Not the field's own check: an error of a field repeats what was given.
        if "@" in urlsplit(self.url).netloc:
            raise ValueError("url: credentials do not belong here: username and password_file do")
        if self.token_file is not None and self.username is not None:
            raise ValueError("token_file and username are two ways to authenticate: want one")
        if (self.username is None) != (self.password_file is None):
            raise ValueError("username and password_file need each other")
        if self.key_file is not None and self.cert_file is None:
            raise ValueError("key_file needs cert_file")
        tls = self.ca_file or self.cert_file or self.insecure_skip_verify
        if tls and not self.url.startswith("https:"):
            raise ValueError("ca_file, cert_file and insecure_skip_verify need an https url")
        if self.ca_file is not None and self.insecure_skip_verify:
            raise ValueError("insecure_skip_verify ignores ca_file: want one of them")
        return self


class BreakerSettings(_Model):
    """After how many failed rounds in a row a source is left alone, and for how long."""

    failures: Annotated[int, Field(ge=1, le=100)] = 3
    first_pause_seconds: Seconds = 10.0
    last_pause_seconds: Seconds = 120.0

    @model_validator(mode="after")
    def _grows(self) -> Self:
        if self.last_pause_seconds < self.first_pause_seconds:
            raise ValueError("last_pause_seconds is less than first_pause_seconds")
        return self

    def as_rules(self) -> Rules:
        """Return it as the value that the core knows."""
        return Rules(self.failures, self.first_pause_seconds, self.last_pause_seconds)


class LoadSettings(_Model):
    """Where load comes from and how it is made one number.

    Without `prometheus`, or while its circuit is open, CPU and memory come from the Kubernetes
    metrics API, unless `metrics_api` is false. `weights` say which metrics are asked for, and
    count by their ratios. `metrics` replaces default queries. `node_labels` are the labels that
    may name a node, the first that does decides.
    """

    prometheus: PrometheusSettings | None = None
    metrics_api: bool = True
    refresh_seconds: Seconds = 15.0
    stale_seconds: Seconds = 120.0
    weights: dict[Metric, Weight] = {
        "cpu": 0.4,
        "memory": 0.2,
        "network": 0.1,
        "disk": 0.1,
        "gpu": 0.2,
    }
    metrics: dict[Metric, QuerySettings] = {}
    node_labels: tuple[Label, ...] = NODE_LABELS
    breaker: BreakerSettings = BreakerSettings()

    @model_validator(mode="after")
    def _can_be_asked(self) -> Self:
        if self.prometheus is None and not self.metrics_api:
            raise ValueError("nobody to ask: give prometheus.url, or metrics_api: true")
        if not self.asked:
            raise ValueError("weights: all are 0")
        if not self.node_labels:
            raise ValueError("node_labels: none would name a node")
        if self.prometheus is None and not set(self.asked) & set(MEASURED):
            raise ValueError(f"weights: the metrics API has only {' and '.join(MEASURED)}")
        if self.stale_seconds < self.refresh_seconds:
            raise ValueError("stale_seconds is less than refresh_seconds: no sample would live")
        return self

    @property
    def asked(self) -> tuple[Metric, ...]:
        """The metrics that count."""
        return tuple(metric for metric, weight in self.weights.items() if weight > 0)

    def queries(self) -> dict[Metric, Query]:
        """Return how each metric that counts is asked for."""
        given = {metric: query.as_query() for metric, query in self.metrics.items()}
        return {metric: given.get(metric, DEFAULT_QUERIES[metric]) for metric in self.asked}

    @property
    def remember_seconds(self) -> float:
        """How long a pod may run before every sample in use shows it whole."""
        window = max(query.window for query in self.queries().values())
        return self.stale_seconds + window


def _is_host(text: str) -> bool:
    """Return whether a resolver can be asked for it; the rest would be an error of Python's own."""
    if ":" not in text:
        return _DNS_NAME.fullmatch(text.lower()) is not None
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True
