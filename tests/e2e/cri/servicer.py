"""RuntimeService: translates between the wire and the books."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import grpc

from tests.e2e.cri.books import Books, Container, Sandbox
from tests.e2e.cri.errors import CriError, UnknownIdError
from tests.e2e.cri.v1 import api_pb2 as cri
from tests.e2e.cri.v1 import api_pb2_grpc as rpc

Answer = TypeVar("Answer")


class Runtime(rpc.RuntimeServiceServicer):
    """Answers for sandboxes and containers.

    Containers are created with the ID of an image, as ImageService gave it, in place of its name.
    """

    def __init__(self, books: Books) -> None:
        self._books = books

    def Version(  # noqa: N802 -- the RPC's name, as are those below
        self, request: cri.VersionRequest, context: grpc.ServicerContext
    ) -> cri.VersionResponse:
        """Say what speaks here."""
        return cri.VersionResponse(
            version=request.version,
            runtime_name="fake",
            runtime_version="1.0.0",
            runtime_api_version="v1",
        )

    def Status(  # noqa: N802
        self, request: cri.StatusRequest, context: grpc.ServicerContext
    ) -> cri.StatusResponse:
        """Be ready."""
        ready = [
            cri.RuntimeCondition(type=name, status=True)
            for name in ("RuntimeReady", "NetworkReady")
        ]
        return cri.StatusResponse(status=cri.RuntimeStatus(conditions=ready))

    def RuntimeConfig(  # noqa: N802
        self, request: cri.RuntimeConfigRequest, context: grpc.ServicerContext
    ) -> cri.RuntimeConfigResponse:
        """Name the cgroup driver that needs no systemd."""
        linux = cri.LinuxRuntimeConfiguration(cgroup_driver=cri.CGROUPFS)
        return cri.RuntimeConfigResponse(linux=linux)

    def RunPodSandbox(  # noqa: N802
        self, request: cri.RunPodSandboxRequest, context: grpc.ServicerContext
    ) -> cri.RunPodSandboxResponse:
        """Start a sandbox."""
        made = self._books.run_sandbox(request.config, request.runtime_handler)
        return cri.RunPodSandboxResponse(pod_sandbox_id=made.id)

    def StopPodSandbox(  # noqa: N802
        self, request: cri.StopPodSandboxRequest, context: grpc.ServicerContext
    ) -> cri.StopPodSandboxResponse:
        """Stop a sandbox and what runs in it."""
        self._books.stop_sandbox(request.pod_sandbox_id)
        return cri.StopPodSandboxResponse()

    def RemovePodSandbox(  # noqa: N802
        self, request: cri.RemovePodSandboxRequest, context: grpc.ServicerContext
    ) -> cri.RemovePodSandboxResponse:
        """Remove a sandbox and what is in it."""
        self._books.remove_sandbox(request.pod_sandbox_id)
        return cri.RemovePodSandboxResponse()

    def PodSandboxStatus(  # noqa: N802
        self, request: cri.PodSandboxStatusRequest, context: grpc.ServicerContext
    ) -> cri.PodSandboxStatusResponse:
        """Tell how a sandbox stands."""
        found = _or_abort(context, lambda: self._books.sandbox(request.pod_sandbox_id))
        config = found.config
        modes = config.linux.security_context.namespace_options
        return cri.PodSandboxStatusResponse(
            status=cri.PodSandboxStatus(
                id=found.id,
                metadata=config.metadata,
                state=found.state,
                created_at=found.created,
                network=cri.PodSandboxNetworkStatus(ip=_address(found)),
                linux=cri.LinuxPodSandboxStatus(namespaces=cri.Namespace(options=modes)),
                labels=config.labels,
                annotations=config.annotations,
                runtime_handler=found.handler,
            )
        )

    def ListPodSandbox(  # noqa: N802
        self, request: cri.ListPodSandboxRequest, context: grpc.ServicerContext
    ) -> cri.ListPodSandboxResponse:
        """List the sandboxes that the filter lets through."""
        return cri.ListPodSandboxResponse(
            items=[
                cri.PodSandbox(
                    id=one.id,
                    metadata=one.config.metadata,
                    state=one.state,
                    created_at=one.created,
                    labels=one.config.labels,
                    annotations=one.config.annotations,
                    runtime_handler=one.handler,
                )
                for one in self._books.sandboxes()
                if _passes(request.filter, one.id, one.state, one.config.labels)
            ]
        )

    def CreateContainer(  # noqa: N802
        self, request: cri.CreateContainerRequest, context: grpc.ServicerContext
    ) -> cri.CreateContainerResponse:
        """Create a container."""
        made = _or_abort(
            context, lambda: self._books.create_container(request.pod_sandbox_id, request.config)
        )
        return cri.CreateContainerResponse(container_id=made.id)

    def StartContainer(  # noqa: N802
        self, request: cri.StartContainerRequest, context: grpc.ServicerContext
    ) -> cri.StartContainerResponse:
        """Start a container."""
        _or_abort(context, lambda: self._books.start_container(request.container_id))
        return cri.StartContainerResponse()

    def StopContainer(  # noqa: N802
        self, request: cri.StopContainerRequest, context: grpc.ServicerContext
    ) -> cri.StopContainerResponse:
        """Let a container end, as one does that heeds SIGTERM."""
        self._books.stop_container(request.container_id)
        return cri.StopContainerResponse()

    def RemoveContainer(  # noqa: N802
        self, request: cri.RemoveContainerRequest, context: grpc.ServicerContext
    ) -> cri.RemoveContainerResponse:
        """Remove a container."""
        self._books.remove_container(request.container_id)
        return cri.RemoveContainerResponse()

    def ListContainers(  # noqa: N802
        self, request: cri.ListContainersRequest, context: grpc.ServicerContext
    ) -> cri.ListContainersResponse:
        """List the containers that the filter lets through."""
        wanted = request.filter.pod_sandbox_id
        return cri.ListContainersResponse(
            containers=[
                cri.Container(
                    id=one.id,
                    pod_sandbox_id=one.sandbox.id,
                    metadata=one.config.metadata,
                    image=one.config.image,
                    image_ref=one.config.image.image,
                    state=one.state,
                    created_at=one.created,
                    labels=one.config.labels,
                    annotations=one.config.annotations,
                    image_id=one.config.image.image,
                )
                for one in self._books.containers()
                if wanted in ("", one.sandbox.id)
                and _passes(request.filter, one.id, one.state, one.config.labels)
            ]
        )

    def ContainerStatus(  # noqa: N802
        self, request: cri.ContainerStatusRequest, context: grpc.ServicerContext
    ) -> cri.ContainerStatusResponse:
        """Tell how a container stands."""
        found = _or_abort(context, lambda: self._books.container(request.container_id))
        config = found.config
        return cri.ContainerStatusResponse(
            status=cri.ContainerStatus(
                id=found.id,
                metadata=config.metadata,
                state=found.state,
                created_at=found.created,
                started_at=found.started,
                finished_at=found.finished,
                exit_code=found.exit_code,
                image=config.image,
                image_ref=config.image.image,
                reason=_reason(found),
                labels=config.labels,
                annotations=config.annotations,
                mounts=config.mounts,
                log_path=f"{found.sandbox.config.log_directory}/{config.log_path}",
                image_id=config.image.image,
            )
        )

    def ReopenContainerLog(  # noqa: N802
        self, request: cri.ReopenContainerLogRequest, context: grpc.ServicerContext
    ) -> cri.ReopenContainerLogResponse:
        """Write no log either way."""
        _or_abort(context, lambda: self._books.container(request.container_id))
        return cri.ReopenContainerLogResponse()


def _address(sandbox: Sandbox) -> str:
    # kubelet takes a pod's address from its node when the pod is in the host's network.
    modes = sandbox.config.linux.security_context.namespace_options
    return "" if modes.network == cri.NODE else sandbox.ip


def _reason(container: Container) -> str:
    if not container.finished:
        return ""
    return "Error" if container.exit_code else "Completed"


def _passes(wanted: Any, key: str, state: int, labels: Mapping[str, str]) -> bool:
    """Tell whether a filter (both kinds have these fields) lets something through."""
    if wanted.id not in ("", key):
        return False
    if wanted.HasField("state") and wanted.state.state != state:
        return False
    return all(labels.get(name) == value for name, value in wanted.label_selector.items())


def _or_abort(context: grpc.ServicerContext, work: Callable[[], Answer]) -> Answer:
    """Do it, or end the call with the status that a runtime gives."""
    try:
        return work()
    except CriError as error:
        unknown = isinstance(error, UnknownIdError)
        code = grpc.StatusCode.NOT_FOUND if unknown else grpc.StatusCode.FAILED_PRECONDITION
        context.abort(code, str(error))
        raise  # never reached: abort raises, which its type does not say
