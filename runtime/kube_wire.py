"""What both flavours of the API client share: timeouts, pages, lines, errors. No sockets.

Every text that comes from a server is cut before it can reach a log.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from runtime.depth import decode_shallow
from runtime.errors import AccessError, ApiError, UnreachableError, api_error
from runtime.objects import UNREADABLE, ListMeta

CONNECT_TIMEOUT = 5.0
"""Seconds for the TCP and TLS handshake; kubelet and client-go use the same order."""

READ_TIMEOUT = 30.0
"""Seconds without a byte of an answer; the API server's own request limit is 60."""

PAGE = 500
"""Objects a page: 3 MB and 3 ms of decoding for nodes, so that an event loop stays free."""

LINE_LIMIT = 32 << 20
"""Bytes of a watch line; etcd takes no object above 1.5 MiB, so a longer line is a broken one."""

Query = Mapping[str, str]

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
AUTH = ["BearerToken"]


class _Status(msgspec.Struct):
    kind: str = ""
    reason: str | None = None
    message: str | None = None


class _PageHead(msgspec.Struct):
    metadata: ListMeta = ListMeta()


_decode_status = msgspec.json.Decoder(_Status).decode
_decode_head = msgspec.json.Decoder(_PageHead).decode


def error_of(status: int, phrase: str, body: bytes) -> ApiError:
    """Turn an error answer into an error; the text is kept only if it is a Status object's."""
    try:
        told = _decode_status(body)
    except UNREADABLE:
        told = _Status()
    if told.kind != "Status":
        told = _Status()
    return api_error(status, told.reason or legible(phrase) or "Error", told.message or "")


def legible(text: str) -> str:
    """Return text from an HTTP header, whose odd bytes are surrogates, as JSON can carry it."""
    return text.encode(errors="replace").decode()


class LineSplitter:
    r"""Cuts a byte stream into lines; an unfinished last line stays back.

    >>> splitter = LineSplitter()
    >>> splitter.feed(b'{"a":1}\n{"b"'), splitter.feed(b":2}\n")
    ([b'{"a":1}'], [b'{"b":2}'])
    """

    def __init__(self, limit: int = LINE_LIMIT) -> None:
        self._rest: list[bytes] = []
        self._size = 0
        self._limit = limit

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the lines that `chunk` completes. Raises UnreachableError past the limit."""
        head, newline, tail = chunk.partition(b"\n")
        if not newline:
            self._keep(head)
            return []
        lines = [b"".join((*self._rest, head)), *tail.split(b"\n")]
        self._rest, self._size = [], 0
        self._keep(lines.pop())
        return [line for line in lines if line]

    def _keep(self, part: bytes) -> None:
        if part:
            self._rest.append(part)
            self._size += len(part)
        if self._size > self._limit:
            raise UnreachableError(f"a watch line is longer than {self._limit} bytes")


def plain(body: object) -> Any:
    """Turn JSON bytes, structs and dicts into what the client serialises."""
    # The client serialises the body itself and takes no bytes for a JSON content type. Our
    # writes are an annotation or a Binding: at most 20 KB, a tenth of a millisecond.
    if isinstance(body, bytes):
        return msgspec.json.decode(body)
    return None if body is None else msgspec.to_builtins(body)


def headers(content: str | None) -> dict[str, str]:
    """Ask for JSON, and say what is sent."""
    return {"Accept": JSON} if content is None else {"Accept": JSON, "Content-Type": content}


def next_query(query: Query, token: str) -> dict[str, str]:
    """Make the query for the page after this one."""
    # The server refuses a resource version together with a continue token.
    following = {key: value for key, value in query.items() if key != "resourceVersion"}
    return {**following, "continue": token}


def page_token(page: bytes) -> str | None:
    """Return the continue token of a list page, None on the last one."""
    try:
        return decode_shallow(_decode_head, page).metadata.continue_ or None
    except UNREADABLE as error:
        raise UnreachableError(f"a list page does not read: {error}") from error


def in_cluster(config: Any, kubeconfig: str | None, settings: Any) -> bool:
    """Load the pod's service account into `settings`, unless a file was named or there is none."""
    if kubeconfig is not None:
        return False
    try:
        config.load_incluster_config(client_configuration=settings)
    except config.ConfigException:
        return False
    return True


@contextlib.contextmanager
def access(kubeconfig: str | None) -> Iterator[None]:
    """Name the source in whatever goes wrong while credentials are read."""
    where = kubeconfig or "neither a service account nor a default kubeconfig"
    try:
        yield
    except Exception as error:
        # The loader lets errors of YAML, base64, files and its own through, as it meets them.
        raise AccessError(f"{where}: {said(error)}") from error


def said(error: BaseException) -> str:
    """Say an error in one line of at most 200 characters."""
    text = legible(" ".join(str(error).split())[:200])
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
