"""The edge: asks Prometheus and the metrics API, and hands what they say to the pure part."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

import aiohttp
import msgspec

from runtime.errors import KubeError
from scheduler.load import answers, node_metrics
from scheduler.load.answers import Query, error_text, read_answer
from scheduler.load.errors import Outcome, SourceError, cut
from scheduler.load.node_metrics import MEASURED, read_usage
from scheduler.load.nodes import NodeBook
from scheduler.load.samples import Metric, Reading
from scheduler.load.settings import PrometheusSettings

SECRET_LIMIT: Final = 64 << 10
"""Bytes of a token or password file; a projected token has about 1 KiB."""

_METRICS_API_TIMEOUT: Final = 5.0


class Asked(msgspec.Struct, frozen=True):
    """One question: what came of it, and how long it took in seconds."""

    seconds: float
    outcome: Outcome
    readings: tuple[Reading, ...] = ()
    problem: str = ""


class Source(Protocol):
    """Somebody who knows how busy nodes are."""

    name: str
    questions: int

    async def ask(self, question: int, nodes: NodeBook, now: float) -> Asked:
        """Ask one of the questions. Never raises for what the other side does."""

    async def refresh(self) -> None:
        """Begin anew after a failure: connections, certificates."""

    async def close(self) -> None:
        """Close connections."""


class KubeApi(Protocol):
    """The part of the API client that the metrics API needs."""

    async def get(self, path: str, *, timeout: float = ...) -> bytes:  # noqa: ASYNC109 -- the client's
        """Read an object or a list."""


class PrometheusSource:
    """One question a metric, for all nodes at once."""

    name = answers.SOURCE

    def __init__(self, settings: PrometheusSettings, queries: Mapping[Metric, Query]) -> None:
        self._settings = settings
        self._queries = tuple(queries.items())
        self._session: aiohttp.ClientSession | None = None
        # 5,000 nodes are 25 ms of reading: beside one such thread the loop gets its turn in time,
        # beside five it does not.
        self._reading = asyncio.Lock()
        self.questions = len(self._queries)

    async def ask(self, question: int, nodes: NodeBook, now: float) -> Asked:
        """Ask for a metric; the answer is read beside the loop."""
        metric, query = self._queries[question]
        directory = nodes.directory
        begun = time.monotonic()
        try:
            body = await self._get(query.text(directory.labels))
            async with self._reading:
                reading = await asyncio.to_thread(
                    read_answer, body, metric, query, directory, now=now
                )
        except SourceError as error:
            return Asked(time.monotonic() - begun, error.outcome, problem=f"{metric}: {error}")
        return Asked(time.monotonic() - begun, "ok", (reading,))

    async def refresh(self) -> None:
        """Drop the connections: certificates may be new, and the name may lead elsewhere."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def close(self) -> None:
        """Close connections."""
        await self.refresh()

    async def _get(self, query: str) -> bytes:
        settings = self._settings
        limit = settings.max_answer_mib << 20
        headers = await asyncio.to_thread(_headers, settings)
        try:
            if self._session is None:
                context = await asyncio.to_thread(_tls, settings)
                if self._session is None:
                    self._session = _session(settings, context)
            async with self._session.get(
                f"{settings.url}/api/v1/query",
                params={"query": query, "timeout": f"{settings.timeout_seconds:g}s"},
                headers=headers,
                # It would carry our token to somebody that nobody named.
                allow_redirects=False,
            ) as answer:
                body = await _read(answer, limit)
                _check(answer, body)
                return body
        except (aiohttp.ClientSSLError, ssl.SSLError) as error:
            raise SourceError("tls", cut(f"TLS: {error}")) from error
        except TimeoutError as error:
            raise SourceError("timeout", f"no answer in {settings.timeout_seconds:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            said = str(error) or type(error).__name__
            raise SourceError("unreachable", cut(said)) from error


class MetricsApiSource:
    """One question for the CPU and memory of all nodes."""

    name = node_metrics.SOURCE
    questions = 1

    def __init__(self, api: KubeApi, metrics: tuple[Metric, ...]) -> None:
        self._api = api
        self._metrics = set(metrics) & set(MEASURED)

    async def ask(self, question: int, nodes: NodeBook, now: float) -> Asked:  # noqa: ARG002 -- there is one
        """Ask for all."""
        begun = time.monotonic()
        try:
            async with asyncio.timeout(_METRICS_API_TIMEOUT):
                body = await self._api.get(node_metrics.PATH, timeout=_METRICS_API_TIMEOUT)
            readings = await asyncio.to_thread(read_usage, body, dict(nodes.sizes), now=now)
        except SourceError as error:
            return Asked(time.monotonic() - begun, error.outcome, problem=str(error))
        except TimeoutError:
            problem = f"no answer in {_METRICS_API_TIMEOUT:g} s"
            return Asked(time.monotonic() - begun, "timeout", problem=problem)
        except KubeError as error:
            return Asked(time.monotonic() - begun, "unreachable", problem=cut(str(error)))
        wanted = tuple(reading for reading in readings if reading.metric in self._metrics)
        return Asked(time.monotonic() - begun, "ok", wanted)

    async def refresh(self) -> None:
        """Nothing: the API client is not ours."""

    async def close(self) -> None:
        """Nothing: the API client is not ours."""


def _session(settings: PrometheusSettings, context: ssl.SSLContext | bool) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=context),
        timeout=aiohttp.ClientTimeout(total=settings.timeout_seconds),
        # A compressed answer could unfold to more than we would ever read.
        headers={"Accept-Encoding": "identity", "User-Agent": "gputopo"},
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
    )


def _tls(settings: PrometheusSettings) -> ssl.SSLContext | bool:
    """Return how the server is checked. Raises SourceError naming the file that does not do."""
    if settings.insecure_skip_verify:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        if settings.ca_file is None and settings.cert_file is None:
            return True
        try:
            context = ssl.create_default_context(cafile=settings.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise SourceError("credentials", f"ca_file {settings.ca_file}: {error}") from error
    if settings.cert_file is not None:
        try:
            context.load_cert_chain(settings.cert_file, settings.key_file)
        except (OSError, ssl.SSLError) as error:
            raise SourceError("credentials", f"cert_file {settings.cert_file}: {error}") from error
    return context


def _headers(settings: PrometheusSettings) -> dict[str, str]:
    """Return the headers of a question; the files are read anew, since tokens change hourly."""
    headers = dict(settings.headers)
    if settings.token_file is not None:
        headers["Authorization"] = f"Bearer {_secret('token_file', settings.token_file)}"
    elif settings.username is not None and settings.password_file is not None:
        password = _secret("password_file", settings.password_file)
        headers["Authorization"] = aiohttp.encode_basic_auth(settings.username, password)
    return headers


def _secret(field: str, path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(SECRET_LIMIT + 1).strip()
    except (OSError, UnicodeDecodeError) as error:
        # Its bytes stay out of the text.
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise SourceError("credentials", f"{field} {path}: {why}") from None
    if not text or len(text) > SECRET_LIMIT or not text.isprintable():
        raise SourceError("credentials", f"{field} {path}: want one line of text")
    return text


async def _read(answer: aiohttp.ClientResponse, limit: int) -> bytes:
    """Read a body. Raises SourceError when it is larger than `limit` bytes."""
    body = bytearray()
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) > limit:
            answer.close()
            raise SourceError("too_large", f"the answer is larger than {limit >> 20} MiB")
    return bytes(body)


def _check(answer: aiohttp.ClientResponse, body: bytes) -> None:
    """Raise SourceError for an answer that is none."""
    status = answer.status
    if status == 200:
        return
    told = error_text(body)
    said = cut(f"{status} {answer.reason}: {told}" if told else f"{status} {answer.reason}")
    if status in {401, 403}:
        raise SourceError("credentials", said)
    if status in {400, 422} and told:
        raise SourceError("query", said)
    if 300 <= status < 400:
        raise SourceError("http", f"{said}, to {cut(answer.headers.get('Location', 'nowhere'))}")
    raise SourceError("http", said)
