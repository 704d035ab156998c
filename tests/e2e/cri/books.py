"""The sandboxes and containers of one node: what the runtime was told, and how each stands.

What kubelet has removed stays in the books, since a test asks for what was; only kubelet does not
see it any more.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from itertools import count
from typing import Final

import msgspec

from tests.e2e.cri.errors import UnknownIdError, WrongStateError
from tests.e2e.cri.v1 import api_pb2 as cri
from tests.e2e.cri.views import ContainerView, DeviceNode, Mount

KILLED: Final = 137
"""The exit code of a process that SIGKILL ended: 128 + 9."""

PROMPT: Final = {"true": 0, "false": 1}
"""Commands that end at once, and their exit codes. Every other one runs until it is stopped."""


class Sandbox(msgspec.Struct, frozen=True):
    """One start of a pod. Times are nanoseconds since the epoch, here and below."""

    id: str
    config: cri.PodSandboxConfig
    handler: str
    ip: str
    created: int
    ready: bool = True
    removed: bool = False

    @property
    def state(self) -> cri.PodSandboxState:
        """Its state as kubelet knows it."""
        return cri.SANDBOX_READY if self.ready else cri.SANDBOX_NOTREADY


class Container(msgspec.Struct, frozen=True):
    """One start of a container; `started` and `finished` are 0 before it is."""

    id: str
    sandbox: Sandbox
    config: cri.ContainerConfig
    created: int
    started: int = 0
    finished: int = 0
    exit_code: int = 0
    removed: bool = False

    @property
    def state(self) -> cri.ContainerState:
        """Its state as kubelet knows it."""
        if self.finished:
            return cri.CONTAINER_EXITED
        return cri.CONTAINER_RUNNING if self.started else cri.CONTAINER_CREATED

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self.state == cri.CONTAINER_RUNNING

    def view(self) -> ContainerView:
        """Return what a test sees of it."""
        pod, config = self.sandbox.config.metadata, self.config
        return ContainerView(
            namespace=pod.namespace,
            pod=pod.name,
            pod_uid=pod.uid,
            container=config.metadata.name,
            attempt=config.metadata.attempt,
            env={one.key: one.value.decode() for one in config.envs},
            mounts=tuple(
                Mount(one.container_path, one.host_path, one.readonly) for one in config.mounts
            ),
            devices=tuple(
                DeviceNode(one.container_path, one.host_path, one.permissions)
                for one in config.devices
            ),
            cdi_devices=tuple(one.name for one in config.CDI_devices),
            annotations=dict(config.annotations),
            running=self.running,
            exit_code=self.exit_code if self.finished else None,
        )


class Books:
    """All of it, under one lock. `clock` gives nanoseconds since the epoch."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._numbers = count(1)
        self._sandboxes: dict[str, Sandbox] = {}
        self._containers: dict[str, Container] = {}

    def sandboxes(self) -> tuple[Sandbox, ...]:
        """Return the sandboxes that are not removed, oldest first."""
        with self._lock:
            return tuple(one for one in self._sandboxes.values() if not one.removed)

    def containers(self) -> tuple[Container, ...]:
        """Return the containers that are not removed, started or not, oldest first."""
        with self._lock:
            return tuple(one for one in self._containers.values() if not one.removed)

    def history(self) -> tuple[Container, ...]:
        """Return every container that was ever started, oldest first."""
        with self._lock:
            return tuple(one for one in self._containers.values() if one.started)

    def sandbox(self, key: str) -> Sandbox:
        """Return a sandbox. Raises UnknownIdError."""
        with self._lock:
            found = self._sandboxes.get(key)
        if found is None or found.removed:
            raise UnknownIdError(f"no sandbox {key!r}")
        return found

    def container(self, key: str) -> Container:
        """Return a container. Raises UnknownIdError."""
        with self._lock:
            found = self._containers.get(key)
        if found is None or found.removed:
            raise UnknownIdError(f"no container {key!r}")
        return found

    def run_sandbox(self, config: cri.PodSandboxConfig, handler: str) -> Sandbox:
        """Start a sandbox, with an address of its own out of 10.88.0.0/16."""
        with self._lock:
            number = next(self._numbers)
            key = f"{number:064x}"
            ip = f"10.88.{number >> 8 & 255}.{number & 255}"
            self._sandboxes[key] = Sandbox(key, config, handler, ip, self._clock())
            return self._sandboxes[key]

    def stop_sandbox(self, key: str) -> None:
        """Stop a sandbox and its containers; one that is not there is stopped."""
        with self._lock:
            if (sandbox := self._sandboxes.get(key)) is None:
                return
            for one in self._inside(key):
                self.stop_container(one.id)
            self._sandboxes[key] = msgspec.structs.replace(sandbox, ready=False)

    def remove_sandbox(self, key: str) -> None:
        """Remove a sandbox and its containers; one that is not there is removed."""
        with self._lock:
            if key not in self._sandboxes:
                return
            self.stop_sandbox(key)
            for one in self._inside(key):
                self.remove_container(one.id)
            self._sandboxes[key] = msgspec.structs.replace(self._sandboxes[key], removed=True)

    def create_container(self, key: str, config: cri.ContainerConfig) -> Container:
        """Create a container in a sandbox. Raises UnknownIdError, WrongStateError."""
        with self._lock:
            sandbox = self.sandbox(key)
            if not sandbox.ready:
                raise WrongStateError(f"sandbox {key!r} is not ready")
            fresh = f"{next(self._numbers):064x}"
            self._containers[fresh] = Container(fresh, sandbox, config, self._clock())
            return self._containers[fresh]

    def start_container(self, key: str) -> None:
        """Start a container; a prompt command has ended by then. Raises as `create_container`."""
        with self._lock:
            found = self.container(key)
            if found.state != cri.CONTAINER_CREATED:
                raise WrongStateError(f"container {key!r} was started before")
            self._containers[key] = msgspec.structs.replace(found, started=self._clock())
            command: Sequence[str] = (*found.config.command, *found.config.args)
            if command and command[0] in PROMPT:
                self._end(key, PROMPT[command[0]])

    def stop_container(self, key: str, exit_code: int = 0) -> None:
        """Let a container end; one that does not run stays as it is."""
        with self._lock:
            found = self._containers.get(key)
            if found is not None and found.running:
                self._end(key, exit_code)

    def remove_container(self, key: str) -> None:
        """Remove a container, stopping it first; one that is not there is removed."""
        with self._lock:
            if key in self._containers:
                self.stop_container(key, KILLED)
                self._containers[key] = msgspec.structs.replace(self._containers[key], removed=True)

    def end(self, namespace: str, pod: str, container: str, exit_code: int) -> None:
        """Let a running container end. Raises UnknownIdError if there is no such one."""
        with self._lock:
            for one in self.containers():
                view = one.view()
                named = (view.namespace, view.pod, view.container)
                if view.running and named == (namespace, pod, container):
                    self._end(one.id, exit_code)
                    return
        raise UnknownIdError(f"no running container {container!r} in pod {namespace}/{pod}")

    def _inside(self, key: str) -> tuple[Container, ...]:
        return tuple(one for one in self._containers.values() if one.sandbox.id == key)

    def _end(self, key: str, exit_code: int) -> None:
        self._containers[key] = msgspec.structs.replace(
            self._containers[key], finished=self._clock(), exit_code=exit_code
        )
