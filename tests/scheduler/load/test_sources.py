"""The two sources over real sockets: what is sent, and whatever the other side may do."""

from __future__ import annotations

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from runtime.errors import ApiError, UnreachableError
from scheduler.load.answers import Query
from scheduler.load.node_metrics import PATH
from scheduler.load.samples import Sample
from scheduler.load.settings import PrometheusSettings
from scheduler.load.sources import Asked, MetricsApiSource, PrometheusSource
from tests.scheduler.load.answering import (
    NOW,
    TLS,
    book,
    node,
    node_metrics,
    recorded,
    taken,
    value,
    vector,
)
from tests.scheduler.load.conftest import (
    FakePrometheus,
    Reply,
    breaks_off,
    hangs,
    never_ends,
    says,
    trickles,
)

QUERY = Query("use by ($labels)", "when", 60.0)
NODES = book(node("n1"))
GOOD = vector(value("n1", 0.5), taken("n1", NOW))


class Asker:
    """Makes sources and asks them."""

    def __init__(self) -> None:
        self.made: list[PrometheusSource] = []

    def source(self, url: str, **given: Any) -> PrometheusSource:
        """Make a source of one metric."""
        settings = PrometheusSettings.model_validate({"url": url, "timeout_seconds": 5, **given})
        source = PrometheusSource(settings, {"cpu": QUERY})
        self.made.append(source)
        return source

    async def __call__(self, url: str, **given: Any) -> Asked:
        """Ask once."""
        return await self.source(url, **given).ask(0, NODES, NOW)


@pytest.fixture
async def ask() -> AsyncIterator[Asker]:
    """Return an asker; its connections are closed at the end."""
    asker = Asker()
    yield asker
    for source in asker.made:
        await source.close()


async def test_one_query_brings_all_nodes(prometheus: FakePrometheus, ask: Asker) -> None:
    """GET below the url's own path, with the query and a time limit for the server."""
    prometheus.reply = says(GOOD)
    asked = await ask(prometheus.url + "/prom/")
    assert asked.outcome == "ok"
    assert asked.readings[0].samples == {"n1": Sample(0.5, NOW, 60.0)}
    (request,) = prometheus.asked
    assert (request.method, request.path) == ("GET", "/prom/api/v1/query")
    assert request.query["query"] == QUERY.text(NODES.directory.labels)
    assert request.query["timeout"] == "5s"


async def test_headers_and_a_token_are_sent(
    prometheus: FakePrometheus, ask: Asker, tmp_path: Path
) -> None:
    """The token's file is read each time: kubelet changes it every hour."""
    prometheus.reply = says(GOOD)
    token = tmp_path / "token"
    token.write_text("first\n")
    source = ask.source(prometheus.url, token_file=token, headers={"X-Scope-OrgID": "a"})
    await source.ask(0, NODES, NOW)
    token.write_text("second\n")
    await source.ask(0, NODES, NOW)
    sent = [request.headers["Authorization"] for request in prometheus.asked]
    assert sent == ["Bearer first", "Bearer second"]
    assert prometheus.asked[0].headers["X-Scope-OrgID"] == "a"
    assert prometheus.asked[0].headers["Accept-Encoding"] == "identity"


async def test_a_user_and_password_are_sent(
    prometheus: FakePrometheus, ask: Asker, tmp_path: Path
) -> None:
    """As basic authentication."""
    prometheus.reply = says(GOOD)
    password = tmp_path / "password"
    password.write_text("p:w")
    await ask(prometheus.url, username="user", password_file=password)
    assert prometheus.asked[0].headers["Authorization"] == "Basic dXNlcjpwOnc="


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "No such file or directory"),
        (b"", "want one line of text"),
        (b"\xff\xfe", "not UTF-8"),
        (b"one\ntwo", "want one line of text"),
        (b"x" * 70_000, "want one line of text"),
    ],
)
async def test_a_token_that_cannot_be_used_is_not_sent(
    prometheus: FakePrometheus, ask: Asker, tmp_path: Path, content: bytes | None, why: str
) -> None:
    """The problem names the file and shows nothing of what is in it."""
    token = tmp_path / "token"
    if content is not None:
        token.write_bytes(content)
    asked = await ask(prometheus.url, token_file=token)
    assert asked.outcome == "credentials"
    assert asked.problem == f"cpu: token_file {token}: {why}"
    assert not prometheus.asked


async def compressed(_: web.Request) -> web.Response:
    """Compress what nobody asked to be compressed: it could unfold to any size."""
    return web.Response(body=gzip.compress(GOOD), headers={"Content-Encoding": "gzip"})


HTML = b"<html><body>Sign in</body></html>"
FAILURES: list[tuple[str, Reply, str, str]] = [
    ("HTTP 500", says(HTML, 500, "text/html"), "http", "500 Internal Server Error"),
    ("HTTP 502 of a proxy", says(b"", 502), "http", "502 Bad Gateway"),
    ("HTTP 404: not Prometheus", says(b"404 page not found", 404), "http", "404 Not Found"),
    ("no right", says(b"no", 403), "credentials", "403 Forbidden"),
    ("no user", says(b"no", 401), "credentials", "401 Unauthorized"),
    (
        "a query that does not parse",
        says(recorded("bad_query"), 400),
        "query",
        "400 Bad Request: bad_data: invalid parameter",
    ),
    (
        "a query that cannot be worked out",
        says(recorded("many_to_many"), 422),
        "query",
        "422 Unprocessable Entity: execution: found duplicate series",
    ),
    ("a server too busy", says(recorded("too_slow"), 503), "http", "503 Service Unavailable"),
    ("a 400 of somebody else", says(HTML, 400, "text/html"), "http", "400 Bad Request"),
    ("an HTML body", says(HTML, 200, "text/html"), "unreadable", "'<html><body>Sign in"),
    ("truncated JSON", says(GOOD[:-9]), "unreadable", "not an answer of Prometheus"),
    ("a compressed body", compressed, "unreadable", "not an answer of Prometheus"),
    ("an empty body", says(b""), "unreadable", "not an answer of Prometheus"),
    ("a scalar", says(recorded("scalar")), "unreadable", "want a vector"),
    ("a connection that breaks off", breaks_off, "unreachable", "cpu: "),
    ("a body without end", never_ends, "too_large", "larger than 1 MiB"),
]


@pytest.mark.parametrize(
    ("reply", "outcome", "problem"),
    [row[1:] for row in FAILURES],
    ids=[row[0] for row in FAILURES],
)
async def test_a_failure_is_an_outcome_and_a_line(
    prometheus: FakePrometheus, ask: Asker, reply: Reply, outcome: str, problem: str
) -> None:
    """Nothing is raised, nothing is taken, and the text fits in a log."""
    prometheus.reply = reply
    asked = await ask(prometheus.url, max_answer_mib=1)
    assert (asked.outcome, asked.readings) == (outcome, ())
    assert problem in asked.problem
    assert asked.problem.startswith("cpu: ")
    assert len(asked.problem) < 260


@pytest.mark.parametrize("reply", [hangs, trickles])
async def test_a_slow_answer_is_given_up(
    prometheus: FakePrometheus, ask: Asker, reply: Reply
) -> None:
    """Whether it does not begin or does not end."""
    prometheus.reply = reply
    asked = await ask(prometheus.url, timeout_seconds=0.05)
    assert asked.outcome == "timeout"
    assert asked.problem == "cpu: no answer in 0.05 s"


async def test_a_redirect_is_not_followed(prometheus: FakePrometheus, ask: Asker) -> None:
    """It would carry the token to somebody that nobody named."""

    async def elsewhere(_: web.Request) -> web.Response:
        """Send to a page for people."""
        return web.Response(status=302, headers={"Location": "http://login.example/"})

    prometheus.reply = elsewhere
    asked = await ask(prometheus.url)
    assert asked.outcome == "http"
    assert asked.problem == "cpu: 302 Found, to http://login.example/"
    assert len(prometheus.asked) == 1


async def test_a_phrase_that_is_no_unicode_can_be_said(ask: Asker) -> None:
    """Proxies say in Latin-1 what is wrong; a log line is JSON, and would be lost."""

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 503 Verf\xfcgbar\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(proxy, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        asked = await ask(f"http://{host}:{port}")
    assert asked.problem == "cpu: 503 Verf?gbar"


async def test_nobody_there_is_unreachable(ask: Asker) -> None:
    """A port that nobody listens on, and a name that nobody has."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        asked = await ask(f"http://127.0.0.1:{closed.getsockname()[1]}")
    assert asked.outcome == "unreachable"
    assert (await ask("http://no-such-host.invalid")).outcome == "unreachable"


async def test_tls_with_its_own_authority(tls_prometheus: FakePrometheus, ask: Asker) -> None:
    """By IP address too; our own certificate is shown if there is one."""
    tls_prometheus.reply = says(GOOD)
    assert (await ask(tls_prometheus.url, ca_file=TLS / "ca.pem")).outcome == "ok"
    mine = {"cert_file": TLS / "server.pem", "key_file": TLS / "server.key"}
    assert (await ask(tls_prometheus.url, ca_file=TLS / "ca.pem", **mine)).outcome == "ok"
    assert (await ask(tls_prometheus.url, insecure_skip_verify=True)).outcome == "ok"


@pytest.mark.parametrize("given", [{}, {"ca_file": TLS / "other-ca.pem"}])
async def test_a_certificate_of_somebody_else_is_refused(
    tls_prometheus: FakePrometheus, ask: Asker, given: dict[str, Path]
) -> None:
    """Nothing is asked, so no token is shown."""
    asked = await ask(tls_prometheus.url, **given)
    assert asked.outcome == "tls"
    assert "CERTIFICATE_VERIFY_FAILED" in asked.problem
    assert not tls_prometheus.asked


async def test_tls_to_a_server_without_it_is_a_tls_fault(
    prometheus: FakePrometheus, ask: Asker
) -> None:
    """And the other way round it is no answer."""
    asked = await ask(prometheus.url.replace("http:", "https:"), ca_file=TLS / "ca.pem")
    assert asked.outcome == "tls"


async def test_no_tls_to_a_server_with_it_is_no_answer(
    tls_prometheus: FakePrometheus, ask: Asker
) -> None:
    """The scheme of the url is wrong."""
    asked = await ask(tls_prometheus.url.replace("https:", "http:"))
    assert asked.outcome == "unreachable"


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"ca_file": "/nowhere/ca.pem"}, "cpu: ca_file /nowhere/ca.pem: "),
        ({"ca_file": TLS / "README.md"}, "ca_file"),
        ({"cert_file": "/nowhere/cert.pem"}, "cpu: cert_file /nowhere/cert.pem: "),
    ],
)
async def test_a_certificate_that_cannot_be_used_is_named(
    tls_prometheus: FakePrometheus, ask: Asker, given: dict[str, Any], problem: str
) -> None:
    """It may come later: the daemon lives, and reads it again after the failure."""
    asked = await ask(tls_prometheus.url, **given)
    assert asked.outcome == "credentials"
    assert problem in asked.problem


async def test_a_new_authority_is_read_after_a_failure(
    tls_prometheus: FakePrometheus, ask: Asker, tmp_path: Path
) -> None:
    """Certificates are renewed while we run."""
    tls_prometheus.reply = says(GOOD)
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes((TLS / "other-ca.pem").read_bytes())
    source = ask.source(tls_prometheus.url, ca_file=bundle)
    assert (await source.ask(0, NODES, NOW)).outcome == "tls"
    bundle.write_bytes((TLS / "ca.pem").read_bytes())
    await source.refresh()
    assert (await source.ask(0, NODES, NOW)).outcome == "ok"


class Api:
    """Answers as the API client does."""

    def __init__(self, answer: bytes | Exception) -> None:
        self.answer = answer
        self.paths: list[str] = []

    async def get(self, path: str, *, timeout: float = 5.0) -> bytes:  # noqa: ASYNC109 -- as the client has it
        """Read."""
        self.paths.append(path)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def test_the_metrics_api_is_asked_once_for_all() -> None:
    """Metrics that do not count are left out."""
    api = Api(node_metrics(("n1", "4", "8Gi")))
    asked = await MetricsApiSource(api, ("memory", "gpu")).ask(0, NODES, NOW)
    assert [reading.metric for reading in asked.readings] == ["memory"]
    assert asked.readings[0].samples["n1"].value == 0.25
    assert api.paths == [PATH]


@pytest.mark.parametrize(
    ("answer", "outcome", "problem"),
    [
        (ApiError(404, "NotFound", "the server could not find it"), "unreachable", "404 NotFound"),
        (ApiError(403, "Forbidden", "no"), "unreachable", "403 Forbidden"),
        (UnreachableError("GET: refused"), "unreachable", "refused"),
        (TimeoutError(), "timeout", "no answer in 5 s"),
        (b"<html>", "unreadable", "not a list of node metrics"),
    ],
)
async def test_the_metrics_api_may_be_missing(
    answer: bytes | Exception, outcome: str, problem: str
) -> None:
    """Not every cluster has it; the right to it may be missing too."""
    asked = await MetricsApiSource(Api(answer), ("cpu",)).ask(0, NODES, NOW)
    assert asked.outcome == outcome
    assert problem in asked.problem
