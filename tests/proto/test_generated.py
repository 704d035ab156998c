"""The committed gRPC code is what proto/ says, and proto/ says what kubelet speaks."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from deviceplugin.pluginregistration.v1 import api_pb2 as registration
from deviceplugin.podresources.v1 import api_pb2 as podresources
from deviceplugin.v1beta1 import api_pb2 as v1beta1

REPOSITORY = Path(__file__).resolve().parents[2]

# message: {field number: (name, type, repeated)}; types by protobuf's numbers: 3 int64, 4 uint64,
# 5 int32, 8 bool, 9 string, 11 message.
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
        for module in (v1beta1, podresources, registration)
        for service in module.DESCRIPTOR.services_by_name.values()
    }
    assert actual == METHODS


def test_packages_share_one_descriptor_pool() -> None:
    """All three contracts are imported side by side under different file names."""
    names = {module.DESCRIPTOR.name for module in (v1beta1, podresources, registration)}
    assert len(names) == 3
