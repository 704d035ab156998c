"""Answers the shared library's calls: every process is a client of one machine's state."""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
import threading
from pathlib import Path
from typing import Any, Final, Self

import pynvml

from mock_nvml.client import Client
from mock_nvml.library import Library
from mock_nvml.native.signatures import (
    SIGNATURES,
    Answer,
    Argument,
    Array,
    Buffer,
    Struct,
    Text,
    Value,
    Versioned,
)
from mock_nvml.state import MachineState

_VALUE, _WRITTEN, _GIVEN, _NOTHING, _ROOM = range(5)
_HELLO: Final = 16


class _Process:
    """One process, known by its token, with the threads of it that are connected."""

    def __init__(self, machine: MachineState, missing: frozenset[str]) -> None:
        self.client = Client(machine)
        self.library = Library(self.client, missing)
        self.connections = 0


class NativeServer:
    """Serves a machine on a Unix socket until `close`.

    `missing` names functions that answer FUNCTION_NOT_FOUND: a library on disk has all its symbols.
    """

    def __init__(
        self, machine: MachineState, path: Path, missing: frozenset[str] = frozenset()
    ) -> None:
        self._machine = machine
        self._missing = missing
        self._path = path
        self._lock = threading.Lock()
        self._processes: dict[bytes, _Process] = {}
        self._connections: set[socket.socket] = set()
        self._closed = False
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(64)
        self._thread = threading.Thread(target=self._accept, name="mock-nvml", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def processes(self) -> int:
        """How many processes are connected now."""
        with self._lock:
            return len(self._processes)

    def close(self) -> None:
        """Hang up on everybody: from now on there is no driver."""
        with self._lock:
            self._closed = True
            connections = tuple(self._connections)
        # Closing alone does not wake a thread that is in accept or recv.
        for one in (self._listener, *connections):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._path.unlink(missing_ok=True)
        self._thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if self._closed:
                    connection.close()
                    return
                self._connections.add(connection)
            threading.Thread(
                target=self._serve, args=(connection,), name="mock-nvml-call", daemon=True
            ).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, contextlib.suppress(OSError, EOFError):
                token = _receive(connection, _HELLO)
                process = self._join(token)
                try:
                    while True:
                        (length,) = struct.unpack("<I", _receive(connection, 4))
                        connection.sendall(_answer(process.library, _receive(connection, length)))
                finally:
                    self._leave(token)
        finally:
            with self._lock:
                self._connections.discard(connection)

    def _join(self, token: bytes) -> _Process:
        with self._lock:
            process = self._processes.get(token)
            if process is None:
                process = self._processes[token] = _Process(self._machine, self._missing)
            process.connections += 1
            return process

    def _leave(self, token: bytes) -> None:
        with self._lock:
            process = self._processes[token]
            process.connections -= 1
            if not process.connections:
                del self._processes[token]
                process.client.close()


def _receive(connection: socket.socket, size: int) -> bytes:
    """Return exactly so many bytes; raises EOFError if the other end has gone."""
    parts = bytearray()
    while len(parts) < size:
        part = connection.recv(size - len(parts))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)


def _answer(library: Library, request: bytes) -> bytes:
    name, given = _read(request)
    signature = SIGNATURES[name]
    arguments = _Arguments(signature, given)
    try:
        function = getattr(library, name)
    except AttributeError:
        status = pynvml.NVML_ERROR_FUNCTION_NOT_FOUND
    else:
        status = function(*arguments.call_with)
    body = struct.pack("<I", status) + arguments.written()
    return struct.pack("<I", len(body)) + body


def _read(request: bytes) -> tuple[str, list[tuple[int, int | bytes | None]]]:
    """Return the function's name, and of each argument its kind, with its value or bytes."""
    length = request[0]
    name = request[1 : 1 + length].decode("ascii")
    at = 1 + length
    count, at = request[at], at + 1
    given: list[tuple[int, int | bytes | None]] = []
    for _ in range(count):
        kind, at = request[at], at + 1
        if kind == _VALUE:
            given.append((kind, int.from_bytes(request[at : at + 8], "little")))
            at += 8
        elif kind in (_WRITTEN, _GIVEN):
            size = int.from_bytes(request[at : at + 4], "little")
            given.append((kind, request[at + 4 : at + 4 + size]))
            at += 4 + size
        else:
            given.append((kind, None))
    return name, given


class _Arguments:
    """The arguments of one call as ctypes things, as pynvml would hand them over."""

    def __init__(
        self, signature: tuple[Argument, ...], given: list[tuple[int, int | bytes | None]]
    ) -> None:
        self._signature = signature
        self._kinds = [kind for kind, _ in given]
        self._things = [_make(one, value) for one, (_, value) in zip(signature, given, strict=True)]
        for at, one in enumerate(signature):
            if isinstance(one, Answer) and self._kinds[at] == _ROOM:
                self._things[at] = (one.kind * one.most)()

    @property
    def call_with(self) -> list[Any]:
        """What the function takes."""
        return [
            ctypes.byref(thing) if _is_referred(one) and thing is not None else thing
            for one, thing in zip(self._signature, self._things, strict=True)
        ]

    def written(self) -> bytes:
        """Return size and bytes of each argument that the caller wants to have back."""
        parts: list[bytes] = []
        for at, kind in enumerate(self._kinds):
            if kind not in (_WRITTEN, _ROOM):
                continue
            data = bytes(self._things[at])
            one = self._signature[at]
            if isinstance(one, Answer):
                data = data[: self._things[one.count].value * ctypes.sizeof(one.kind)]
            parts += [struct.pack("<I", len(data)), data]
        return b"".join(parts)


def _is_referred(argument: Argument) -> bool:
    # Buffers, texts and arrays of handles stand for themselves, as in pynvml.
    return isinstance(argument, Struct | Versioned) or (
        isinstance(argument, Array) and not argument.pointed
    )


def _make(argument: Argument, value: int | bytes | None) -> Any:
    """Return what ctypes would hand over for an argument; None for a null pointer."""
    if value is None:
        return None
    match argument:
        case Value(declaration):
            return ctypes.c_void_p(int(value)) if declaration.endswith("*") else int(value)
        case Text():
            return ctypes.create_string_buffer(bytes(value))
        case Buffer():
            return ctypes.create_string_buffer(bytes(value), len(bytes(value)))
        case Struct(kind):
            return kind.from_buffer_copy(bytes(value))
        case Versioned(kinds):
            return _choose(kinds, bytes(value)).from_buffer_copy(bytes(value))
        case Array(kind):
            return (kind * (len(bytes(value)) // ctypes.sizeof(kind))).from_buffer_copy(
                bytes(value)
            )
    return None


class _Unknown(ctypes.Structure):
    """The head of a versioned struct that is not known: its size will not fit."""

    _fields_ = (("version", ctypes.c_uint),)


def _choose(kinds: tuple[Any, ...], data: bytes) -> Any:
    return next((kind for kind in kinds if ctypes.sizeof(kind) == len(data)), _Unknown)
