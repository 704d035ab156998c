"""The committed gRPC code is what proto/ says, and proto/ says what kubelet speaks."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from deviceplugin.pluginregistration.v1 import api_pb2 as registration
from deviceplugin.podresources.v1 import api_pb2 as podresources
from deviceplugin.v1beta1 import api_pb2 as v1beta1
from tests.e2e.cri.v1 import api_pb2 as cri

REPOSITORY = Path(__file__).resolve().parents[2]

# message: {field number: (name, type, repeated)}; types by protobuf's numbers: 3 int64, 4 uint64,
# 5 int32, 8 bool, 9 string, 11 message, 12 bytes, 13 uint32, 14 enum. A map is a repeated message.
V1BETA1 = {
    "RegisterRequest": {1: (9, False), 2: (9, False), 3: (9, False), 4: (11, False)},
    "DevicePluginOptions": {1: (8, False), 2: (8, False)},
    "Empty": {},
    "ListAndWatchResponse": {1: (11, True)},
    "Device": {1: (9, False), 2: (9, False), 3: (11, False)},
    "TopologyInfo": {1: (11, True)},
    "NUMANode": {1: (3, False)},
    "PreStartContainerRequest": {1: (9, True)},
    "PreStartContainerResponse": {},
    "PreferredAllocationRequest": {1: (11, True)},
    "ContainerPreferredAllocationRequest": {1: (9, True), 2: (9, True), 3: (5, False)},
    "PreferredAllocationResponse": {1: (11, True)},
    "ContainerPreferredAllocationResponse": {1: (9, True)},
    "AllocateRequest": {1: (11, True)},
    "ContainerAllocateRequest": {1: (9, True)},
    "AllocateResponse": {1: (11, True)},
    "ContainerAllocateResponse": {
        1: (11, True),
        2: (11, True),
        3: (11, True),
        4: (11, True),
        5: (11, True),
    },
    "Mount": {1: (9, False), 2: (9, False), 3: (8, False)},
    "DeviceSpec": {1: (9, False), 2: (9, False), 3: (9, False)},
    "CDIDevice": {1: (9, False)},
}
PODRESOURCES = {
    "ListPodResourcesResponse": {1: (11, True)},
    "PodResources": {1: (9, False), 2: (9, False), 3: (11, True), 4: (3, True), 5: (11, True)},
    "ContainerResources": {
        1: (9, False),
        2: (11, True),
        3: (3, True),
        4: (11, True),
        5: (11, True),
    },
    "ContainerDevices": {1: (9, False), 2: (9, True), 3: (11, False)},
    "ContainerMemory": {1: (9, False), 2: (4, False), 3: (11, False)},
    "DynamicResource": {2: (9, False), 3: (9, False), 4: (11, True)},
    "AllocatableResourcesResponse": {1: (11, True), 2: (3, True), 3: (11, True)},
    "GetPodResourcesRequest": {1: (9, False), 2: (9, False)},
    "GetPodResourcesResponse": {1: (11, False)},
}
REGISTRATION = {
    "PluginInfo": {1: (9, False), 2: (9, False), 3: (9, False), 4: (9, True)},
    "RegistrationStatus": {1: (8, False), 2: (9, False)},
}
CRI = {
    "VersionResponse": {1: (9, False), 2: (9, False), 3: (9, False), 4: (9, False)},
    "RuntimeCondition": {1: (9, False), 2: (8, False), 3: (9, False), 4: (9, False)},
    "LinuxRuntimeConfiguration": {1: (14, False)},
    "PodSandboxMetadata": {1: (9, False), 2: (9, False), 3: (9, False), 4: (13, False)},
    "NamespaceOption": {1: (14, False), 2: (14, False), 3: (14, False), 4: (9, False)},
    "LinuxSandboxSecurityContext": {1: (11, False)},
    "LinuxPodSandboxConfig": {2: (11, False)},
    "PodSandboxConfig": {
        1: (11, False),
        2: (9, False),
        3: (9, False),
        6: (11, True),
        7: (11, True),
        8: (11, False),
    },
    "PodSandboxStatus": {
        1: (9, False),
        2: (11, False),
        3: (14, False),
        4: (3, False),
        5: (11, False),
        6: (11, False),
        7: (11, True),
        8: (11, True),
        9: (9, False),
    },
    "Namespace": {2: (11, False)},
    "PodSandboxFilter": {1: (9, False), 2: (11, False), 3: (11, True)},
    "PodSandbox": {
        1: (9, False),
        2: (11, False),
        3: (14, False),
        4: (3, False),
        5: (11, True),
        6: (11, True),
        7: (9, False),
    },
    "KeyValue": {1: (9, False), 2: (12, False)},
    "Mount": {1: (9, False), 2: (9, False), 3: (8, False)},
    "Device": {1: (9, False), 2: (9, False), 3: (9, False)},
    "ContainerMetadata": {1: (9, False), 2: (13, False)},
    "ContainerConfig": {
        1: (11, False),
        2: (11, False),
        3: (9, True),
        4: (9, True),
        6: (11, True),
        7: (11, True),
        8: (11, True),
        9: (11, True),
        10: (11, True),
        11: (9, False),
        17: (11, True),
    },
    "CreateContainerRequest": {1: (9, False), 2: (11, False), 3: (11, False)},
    "ContainerFilter": {1: (9, False), 2: (11, False), 3: (9, False), 4: (11, True)},
    "Container": {
        1: (9, False),
        2: (9, False),
        3: (11, False),
        4: (11, False),
        5: (9, False),
        6: (14, False),
        7: (3, False),
        8: (11, True),
        9: (11, True),
        10: (9, False),
    },
    "ContainerStatus": {
        1: (9, False),
        2: (11, False),
        3: (14, False),
        4: (3, False),
        5: (3, False),
        6: (3, False),
        7: (5, False),
        8: (11, False),
        9: (9, False),
        10: (9, False),
        11: (9, False),
        12: (11, True),
        13: (11, True),
        14: (11, True),
        15: (9, False),
        17: (9, False),
    },
    "Image": {1: (9, False), 2: (9, True), 4: (4, False)},
    "FilesystemUsage": {1: (3, False), 2: (11, False), 3: (11, False), 4: (11, False)},
}
METHODS = {
    "v1beta1.Registration": ["Register"],
    "v1beta1.DevicePlugin": [
        "GetDevicePluginOptions",
        "ListAndWatch",
        "GetPreferredAllocation",
        "Allocate",
        "PreStartContainer",
    ],
    "v1.PodResourcesLister": ["List", "GetAllocatableResources", "Get"],
    "pluginregistration.Registration": ["GetInfo", "NotifyRegistrationStatus"],
    "runtime.v1.RuntimeService": [
        "Version",
        "Status",
        "RuntimeConfig",
        "RunPodSandbox",
        "StopPodSandbox",
        "RemovePodSandbox",
        "PodSandboxStatus",
        "ListPodSandbox",
        "CreateContainer",
        "StartContainer",
        "StopContainer",
        "RemoveContainer",
        "ListContainers",
        "ContainerStatus",
        "ReopenContainerLog",
    ],
    "runtime.v1.ImageService": ["ListImages", "ImageStatus", "PullImage", "ImageFsInfo"],
}


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "generate_proto", REPOSITORY / "proto" / "generate.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_regenerating_changes_nothing(tmp_path: Path) -> None:
    """The committed modules and stubs equal a fresh generation byte for byte."""
    made = _generator().generate(tmp_path)
    assert made
    for path in made:
        committed = REPOSITORY / path.relative_to(tmp_path)
        assert committed.read_bytes() == path.read_bytes(), f"{committed}: run `make proto`"


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        pytest.param(v1beta1, V1BETA1, id="v1beta1"),
        pytest.param(podresources, PODRESOURCES, id="podresources"),
        pytest.param(registration, REGISTRATION, id="pluginregistration"),
        pytest.param(cri, CRI, id="cri"),
    ],
)
def test_field_numbers_are_kubelets(
    module: ModuleType, expected: dict[str, dict[int, tuple[int, bool]]]
) -> None:
    """Every message has the numbers, types and repetition that kubelet speaks."""
    messages = module.DESCRIPTOR.message_types_by_name
    actual = {
        name: {field.number: (field.type, field.is_repeated) for field in messages[name].fields}
        for name in expected
    }
    assert expected == actual


def test_method_paths_are_kubelets() -> None:
    """Services and methods carry the bare packages that kubelet dials."""
    actual = {
        service.full_name: [method.name for method in service.methods]
        for module in (v1beta1, podresources, registration, cri)
        for service in module.DESCRIPTOR.services_by_name.values()
    }
    assert actual == METHODS


def test_packages_share_one_descriptor_pool() -> None:
    """All four contracts are imported side by side under different file names."""
    names = {module.DESCRIPTOR.name for module in (v1beta1, podresources, registration, cri)}
    assert len(names) == 4
