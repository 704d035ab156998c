"""The fake container runtime answers as a kubelet needs it, over its real socket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import grpc
import pytest

from tests.e2e.cri import FakeRuntime
from tests.e2e.cri.errors import UnknownIdError
from tests.e2e.cri.v1 import api_pb2 as cri
from tests.e2e.cri.v1 import api_pb2_grpc as rpc


class Rig(NamedTuple):
    """A runtime, and kubelet's two ways to it."""

    fake: FakeRuntime
    runtime: rpc.RuntimeServiceStub
    images: rpc.ImageServiceStub

    def run_pod(self, name: str = "pod", *, network: int = cri.POD) -> str:
        """Run a sandbox as kubelet does; return its ID."""
        modes = cri.NamespaceOption(network=network)
        context = cri.LinuxSandboxSecurityContext(namespace_options=modes)
        config = cri.PodSandboxConfig(
            metadata=cri.PodSandboxMetadata(name=name, uid=f"uid-{name}", namespace="ns"),
            labels={"io.kubernetes.pod.name": name, "app": "x"},
            annotations={"of/pod": name},
            linux=cri.LinuxPodSandboxConfig(security_context=context),
        )
        answer = self.runtime.RunPodSandbox(cri.RunPodSandboxRequest(config=config))
        return str(answer.pod_sandbox_id)

    def create(self, sandbox: str, name: str = "main", **rest: object) -> str:
        """Create a container; return its ID."""
        attempt = int(str(rest.pop("attempt", 0)))
        config = cri.ContainerConfig(
            metadata=cri.ContainerMetadata(name=name, attempt=attempt),
            image=cri.ImageSpec(image="img"),
            labels={"io.kubernetes.container.name": name},
            **rest,  # type: ignore[arg-type]
        )
        request = cri.CreateContainerRequest(pod_sandbox_id=sandbox, config=config)
        return str(self.runtime.CreateContainer(request).container_id)

    def start(self, sandbox: str, name: str = "main", **rest: object) -> str:
        """Create and start a container; return its ID."""
        key = self.create(sandbox, name, **rest)
        self.runtime.StartContainer(cri.StartContainerRequest(container_id=key))
        return key

    def status(self, key: str) -> cri.ContainerStatus:
        """Return a container's status."""
        request = cri.ContainerStatusRequest(container_id=key)
        return self.runtime.ContainerStatus(request).status

    def listed(self, **wanted: object) -> list[str]:
        """Return the IDs of the containers that a filter lets through."""
        chosen = cri.ContainerFilter(**wanted)  # type: ignore[arg-type]
        answer = self.runtime.ListContainers(cri.ListContainersRequest(filter=chosen))
        return [one.id for one in answer.containers]

    def sandboxes(self, **wanted: object) -> list[str]:
        """Return the IDs of the sandboxes that a filter lets through."""
        chosen = cri.PodSandboxFilter(**wanted)  # type: ignore[arg-type]
        answer = self.runtime.ListPodSandbox(cri.ListPodSandboxRequest(filter=chosen))
        return [one.id for one in answer.items]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """Return a runtime that serves, and stubs on its socket."""
    fake = FakeRuntime(tmp_path / "cri.sock")
    fake.start()
    with grpc.insecure_channel(f"unix:{tmp_path / 'cri.sock'}") as channel:
        yield Rig(fake, rpc.RuntimeServiceStub(channel), rpc.ImageServiceStub(channel))
    fake.stop()


def test_it_is_ready_and_says_so(rig: Rig) -> None:
    """Version, both conditions and the cgroup driver are what a kubelet starts on."""
    assert rig.runtime.Version(cri.VersionRequest()).runtime_api_version == "v1"
    conditions = rig.runtime.Status(cri.StatusRequest()).status.conditions
    assert {one.type: one.status for one in conditions} == {
        "RuntimeReady": True,
        "NetworkReady": True,
    }
    answer = rig.runtime.RuntimeConfig(cri.RuntimeConfigRequest())
    assert answer.linux.cgroup_driver == cri.CGROUPFS


def test_a_container_is_seen_with_all_that_it_was_created_with(rig: Rig) -> None:
    """Environment, mounts, devices, CDI names and annotations are shown to the test."""
    sandbox = rig.run_pod("pod")
    key = rig.create(
        sandbox,
        "main",
        attempt=2,
        envs=[cri.KeyValue(key="NVIDIA_VISIBLE_DEVICES", value=b"GPU-1")],
        mounts=[cri.Mount(container_path="/in", host_path="/out", readonly=True)],
        devices=[cri.Device(container_path="/dev/a", host_path="/dev/b", permissions="rw")],
        CDI_devices=[cri.CDIDevice(name="vendor/gpu=1")],
        annotations={"key": "value"},
    )
    assert rig.fake.containers() == ()
    rig.runtime.StartContainer(cri.StartContainerRequest(container_id=key))
    (seen,) = rig.fake.containers()
    assert (seen.namespace, seen.pod, seen.pod_uid) == ("ns", "pod", "uid-pod")
    assert (seen.container, seen.attempt) == ("main", 2)
    assert seen.env == {"NVIDIA_VISIBLE_DEVICES": "GPU-1"}
    (mount,) = seen.mounts
    assert (mount.container_path, mount.host_path, mount.read_only) == ("/in", "/out", True)
    (device,) = seen.devices
    assert (device.container_path, device.host_path, device.permissions) == (
        "/dev/a",
        "/dev/b",
        "rw",
    )
    assert seen.cdi_devices == ("vendor/gpu=1",)
    assert seen.annotations == {"key": "value"}
    assert seen.running
    assert seen.exit_code is None


def test_labels_and_annotations_come_back(rig: Rig) -> None:
    """Kubelet finds its pods again by what it wrote on sandboxes and containers."""
    sandbox = rig.run_pod("pod")
    key = rig.start(sandbox, annotations={"restarts": "0"})
    labels = {"io.kubernetes.pod.name": "pod", "app": "x"}
    status = rig.runtime.PodSandboxStatus(cri.PodSandboxStatusRequest(pod_sandbox_id=sandbox))
    assert dict(status.status.labels) == labels
    assert dict(status.status.annotations) == {"of/pod": "pod"}
    (listed,) = rig.runtime.ListPodSandbox(cri.ListPodSandboxRequest()).items
    assert dict(listed.labels) == labels
    assert dict(listed.annotations) == {"of/pod": "pod"}
    (container,) = rig.runtime.ListContainers(cri.ListContainersRequest()).containers
    for told in (container, rig.status(key)):
        assert dict(told.labels) == {"io.kubernetes.container.name": "main"}
        assert dict(told.annotations) == {"restarts": "0"}
        assert told.metadata.name == "main"
        assert told.image.image == "img"


def test_containers_are_filtered_by_what_is_set(rig: Rig) -> None:
    """ID, sandbox, state and labels choose, each alone and together; no filter chooses all."""
    first, second = rig.run_pod("first"), rig.run_pod("second")
    a = rig.start(first, "a")
    b = rig.create(first, "b")
    c = rig.start(second, "c", command=["true"])
    running = cri.ContainerStateValue(state=cri.CONTAINER_RUNNING)
    created = cri.ContainerStateValue(state=cri.CONTAINER_CREATED)
    exited = cri.ContainerStateValue(state=cri.CONTAINER_EXITED)
    assert rig.listed() == [a, b, c]
    assert rig.listed(id=b) == [b]
    assert rig.listed(pod_sandbox_id=first) == [a, b]
    assert rig.listed(state=running) == [a]
    assert rig.listed(state=created) == [b]
    assert rig.listed(state=exited) == [c]
    assert rig.listed(label_selector={"io.kubernetes.container.name": "c"}) == [c]
    assert rig.listed(label_selector={"other": "c"}) == []
    assert rig.listed(pod_sandbox_id=first, state=exited) == []


def test_sandboxes_are_filtered_by_what_is_set(rig: Rig) -> None:
    """A state of 0 is a state, not its absence."""
    first, second = rig.run_pod("first"), rig.run_pod("second")
    rig.runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=second))
    ready = cri.PodSandboxStateValue(state=cri.SANDBOX_READY)
    not_ready = cri.PodSandboxStateValue(state=cri.SANDBOX_NOTREADY)
    assert rig.sandboxes() == [first, second]
    assert rig.sandboxes(id=second) == [second]
    assert rig.sandboxes(state=ready) == [first]
    assert rig.sandboxes(state=not_ready) == [second]
    assert rig.sandboxes(label_selector={"io.kubernetes.pod.name": "first"}) == [first]
    assert rig.sandboxes(state=ready, id=second) == []


@pytest.mark.parametrize(
    ("command", "args", "code"),
    [(["true"], [], 0), ([], ["true"], 0), (["false"], ["x"], 1), (["sleep", "1"], [], None)],
)
def test_a_prompt_command_ends_at_once(
    rig: Rig, command: list[str], args: list[str], code: int | None
) -> None:
    """An init container runs `true` and is over with 0; anything else runs on."""
    key = rig.start(rig.run_pod(), "init", command=command, args=args)
    (seen,) = rig.fake.containers()
    assert seen.exit_code == code
    assert seen.running == (code is None)
    assert bool(rig.status(key).finished_at) == (code is not None)


@pytest.mark.parametrize(
    ("verb", "code", "reason"), [("crash", 137, "Error"), ("finish", 0, "Completed")]
)
def test_a_test_ends_a_container(rig: Rig, verb: str, code: int, reason: str) -> None:
    """Kubelet sees the exit code, the reason and both times."""
    key = rig.start(rig.run_pod("pod"))
    getattr(rig.fake, verb)("ns", "pod", "main")
    status = rig.status(key)
    assert (status.state, status.exit_code, status.reason) == (cri.CONTAINER_EXITED, code, reason)
    assert 0 < status.created_at <= status.started_at <= status.finished_at
    with pytest.raises(UnknownIdError, match="no running container 'main' in pod ns/pod"):
        getattr(rig.fake, verb)("ns", "pod", "main")


def test_what_kubelet_removes_the_test_still_sees(rig: Rig) -> None:
    """A pod's end takes its containers from kubelet's lists only; the second time is no error."""
    sandbox = rig.run_pod()
    key = rig.start(sandbox)
    for _ in range(2):
        rig.runtime.StopContainer(cri.StopContainerRequest(container_id=key, timeout=30))
        rig.runtime.RemoveContainer(cri.RemoveContainerRequest(container_id=key))
        rig.runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=sandbox))
        rig.runtime.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox))
    assert rig.listed() == []
    assert rig.sandboxes() == []
    (seen,) = rig.fake.containers()
    assert seen.exit_code == 0


def test_a_sandbox_takes_its_containers_with_it(rig: Rig) -> None:
    """Stopped, its containers have ended; removed, they are gone as well."""
    sandbox = rig.run_pod()
    key = rig.start(sandbox)
    rig.runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=sandbox))
    assert rig.status(key).state == cri.CONTAINER_EXITED
    rig.runtime.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox))
    assert rig.listed() == []


def test_unknown_and_unfit_calls_are_refused(rig: Rig) -> None:
    """A wrong ID is NOT_FOUND, a second start or a dead sandbox FAILED_PRECONDITION."""
    sandbox = rig.run_pod()
    key = rig.start(sandbox)
    rig.runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=sandbox))

    def refusal(call: object, request: object) -> grpc.StatusCode:
        with pytest.raises(grpc.RpcError) as caught:
            call(request)  # type: ignore[operator]
        return caught.value.code()  # type: ignore[no-any-return]

    runtime = rig.runtime
    missing = [
        (runtime.ContainerStatus, cri.ContainerStatusRequest(container_id="x")),
        (runtime.StartContainer, cri.StartContainerRequest(container_id="x")),
        (runtime.ReopenContainerLog, cri.ReopenContainerLogRequest(container_id="x")),
        (runtime.PodSandboxStatus, cri.PodSandboxStatusRequest(pod_sandbox_id="x")),
        (runtime.CreateContainer, cri.CreateContainerRequest(pod_sandbox_id="x")),
    ]
    for call, request in missing:
        assert refusal(call, request) == grpc.StatusCode.NOT_FOUND
    unfit = [
        (runtime.StartContainer, cri.StartContainerRequest(container_id=key)),
        (runtime.CreateContainer, cri.CreateContainerRequest(pod_sandbox_id=sandbox)),
    ]
    for call, request in unfit:
        assert refusal(call, request) == grpc.StatusCode.FAILED_PRECONDITION


def test_a_pod_has_an_address_unless_it_uses_its_hosts(rig: Rig) -> None:
    """Two pods have two addresses, one in the host's network none; the modes come back."""

    def status(sandbox: str) -> cri.PodSandboxStatus:
        request = cri.PodSandboxStatusRequest(pod_sandbox_id=sandbox)
        return rig.runtime.PodSandboxStatus(request).status

    first, second = status(rig.run_pod("a")), status(rig.run_pod("b"))
    host = status(rig.run_pod("c", network=cri.NODE))
    assert first.network.ip
    assert second.network.ip not in ("", first.network.ip)
    assert host.network.ip == ""
    assert host.linux.namespaces.options.network == cri.NODE


def test_every_image_is_there(rig: Rig) -> None:
    """None is listed for collection, each one asked for is present, its disk is empty."""
    spec = cri.ImageSpec(image="registry.example/app:1")
    found = rig.images.ImageStatus(cri.ImageStatusRequest(image=spec)).image
    assert list(found.repo_tags) == [spec.image]
    assert found.size > 0
    assert rig.images.PullImage(cri.PullImageRequest(image=spec)).image_ref == found.id
    assert not rig.images.ListImages(cri.ListImagesRequest()).images
    (usage,) = rig.images.ImageFsInfo(cri.ImageFsInfoRequest()).image_filesystems
    assert Path(usage.fs_id.mountpoint).is_dir()


def test_it_may_be_started_again_and_knows_its_containers(tmp_path: Path) -> None:
    """A stop and a start in between lose nothing, and a socket file left behind is no hindrance."""
    path = tmp_path / "cri.sock"
    fake = FakeRuntime(path)
    fake.start()
    with grpc.insecure_channel(f"unix:{path}") as channel:
        rig = Rig(fake, rpc.RuntimeServiceStub(channel), rpc.ImageServiceStub(channel))
        key = rig.start(rig.run_pod())
    fake.stop()
    path.touch()
    fake.start()
    with grpc.insecure_channel(f"unix:{path}") as channel:
        rig = Rig(fake, rpc.RuntimeServiceStub(channel), rpc.ImageServiceStub(channel))
        assert rig.status(key).state == cri.CONTAINER_RUNNING
    fake.stop()
