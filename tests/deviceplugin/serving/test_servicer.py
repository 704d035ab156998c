"""The RPCs, driven by grpc_testing: translation, refusals, measurements."""

from __future__ import annotations

from typing import Any

import grpc
import grpc_testing
import pytest

from deviceplugin.admission.desk import Desk
from deviceplugin.admission.ledger import Ledger
from deviceplugin.config.model import Config
from deviceplugin.metrics import Metrics
from deviceplugin.pods.holdings import Holdings
from deviceplugin.resources.inventory import Board, Inventory
from deviceplugin.resources.stock import Stock, take_stock
from deviceplugin.serving.listing import Listing, list_devices
from deviceplugin.serving.servicer import Servicer
from deviceplugin.v1beta1 import api_pb2
from tests.deviceplugin.nodes import (
    CHOOSERS,
    DGX1V,
    RESOURCE,
    FakePodResources,
    holdings,
    machine,
    names,
    pod,
    stock_of,
)
from tests.waiting import wait_until

PLUGIN = api_pb2.DESCRIPTOR.services_by_name["DevicePlugin"]


class Plugin:
    """A servicer behind grpc_testing's server."""

    def __init__(self, kubelet: Holdings) -> None:
        self.board = Board()
        self.board.post(Inventory(machine(8, DGX1V), {"g7": "XID 79"}))
        self.metrics = Metrics()
        self.allocated = 0
        self.listing = Listing(list_devices(self.stock().resource(RESOURCE), numa_hints=True))
        waiting = pod("a", 2, promised={"c0": names(1, 6)}, strict=True)
        desk = Desk(
            stock=self.stock,
            resource=RESOURCE,
            pods=lambda: {"d/a": waiting},
            get_pod=lambda _key, _timeout: None,
            ledger=Ledger(FakePodResources(kubelet), self.metrics),
            chooser_for=CHOOSERS,
            metrics=self.metrics,
        )
        servicer = Servicer(desk, self.listing, self.metrics, self._allocated)
        self.server = grpc_testing.server_from_dictionary(
            {PLUGIN: servicer}, grpc_testing.strict_real_time()
        )

    def stock(self) -> Stock:
        """Return what the node offers."""
        return take_stock(self.board.read(), Config())

    def call(self, method: str, request: Any) -> tuple[Any, grpc.StatusCode, str]:
        """Call a unary method; return the answer, the status and its details."""
        call = self.server.invoke_unary_unary(PLUGIN.methods_by_name[method], (), request, None)
        answer, _, code, details = call.termination()
        return answer, code, details

    def seconds(self, rpc: str) -> float | None:
        """Return how many calls were measured."""
        return self.metrics.registry.get_sample_value(
            "gputopo_plugin_rpc_seconds_count", {"rpc": rpc}
        )

    def _allocated(self) -> None:
        self.allocated += 1


@pytest.fixture
def plugin() -> Plugin:
    """Return a plugin that pod ``a`` is being admitted to."""
    return Plugin(holdings(a={"c0": ()}))


def _prefer(size: int, *available: str, must: tuple[str, ...] = ()) -> Any:
    return api_pb2.PreferredAllocationRequest(
        container_requests=[
            api_pb2.ContainerPreferredAllocationRequest(
                available_deviceIDs=available, must_include_deviceIDs=must, allocation_size=size
            )
        ]
    )


def _allocate(*containers: tuple[str, ...]) -> Any:
    return api_pb2.AllocateRequest(
        container_requests=[api_pb2.ContainerAllocateRequest(devices_ids=ids) for ids in containers]
    )


def test_options_offer_a_preference_and_no_prestart(plugin: Plugin) -> None:
    """GetPreferredAllocation is available, PreStartContainer is not required."""
    answer, code, _ = plugin.call("GetDevicePluginOptions", api_pb2.Empty())
    assert code is grpc.StatusCode.OK
    assert answer.get_preferred_allocation_available
    assert not answer.pre_start_required


def test_the_preference_is_the_pods_set(plugin: Plugin) -> None:
    """The wanted set travels through the RPC, and the call is measured."""
    answer, code, _ = plugin.call("GetPreferredAllocation", _prefer(2, *names(*range(7))))
    assert code is grpc.StatusCode.OK
    assert [list(one.deviceIDs) for one in answer.container_responses] == [["g1", "g6"]]
    assert plugin.seconds("GetPreferredAllocation") == 1


def test_a_strict_refusal_is_a_failed_precondition(plugin: Plugin) -> None:
    """A strict pod under drift becomes an error that says why."""
    _, code, details = plugin.call("GetPreferredAllocation", _prefer(2, *names(0, 1, 2)))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "strict" in details
    assert "not_offered" in details
    # The refusal is out before the handler has returned.
    wait_until(lambda: plugin.seconds("GetPreferredAllocation") == 1, what="the measurement")


def test_allocate_sets_one_variable_for_each_container(plugin: Plugin) -> None:
    """Each container gets NVIDIA_VISIBLE_DEVICES and nothing else, in order."""
    answer, code, _ = plugin.call("Allocate", _allocate(names(6, 1), names(2)))
    assert code is grpc.StatusCode.OK
    assert [dict(one.envs) for one in answer.container_responses] == [
        {"NVIDIA_VISIBLE_DEVICES": "g1,g6"},
        {"NVIDIA_VISIBLE_DEVICES": "g2"},
    ]
    assert not answer.container_responses[0].devices
    assert plugin.seconds("Allocate") == 1
    # After the answer, that nobody waits for it.
    wait_until(lambda: plugin.allocated == 1, what="the end of the call")


@pytest.mark.parametrize(
    ("device", "status"),
    [("gX", grpc.StatusCode.NOT_FOUND), ("g7", grpc.StatusCode.UNAVAILABLE)],
)
def test_allocate_refuses_by_name(plugin: Plugin, device: str, status: grpc.StatusCode) -> None:
    """An unknown and a failed id are errors that name it."""
    _, code, details = plugin.call("Allocate", _allocate((device,)))
    assert code is status
    assert device in details
    assert plugin.allocated == 0


def test_prestart_does_nothing(plugin: Plugin) -> None:
    """PreStartContainer succeeds with an empty answer."""
    request = api_pb2.PreStartContainerRequest(devices_ids=["g0"])
    answer, code, _ = plugin.call("PreStartContainer", request)
    assert code is grpc.StatusCode.OK
    assert answer == api_pb2.PreStartContainerResponse()


def test_list_and_watch_streams_until_kubelet_goes(plugin: Plugin) -> None:
    """The list comes at once and after a change; a cancelled stream is noticed."""
    call = plugin.server.invoke_unary_stream(
        PLUGIN.methods_by_name["ListAndWatch"], (), api_pb2.Empty(), None
    )
    first = call.take_response()
    assert {device.ID: device.health for device in first.devices}["g7"] == "Unhealthy"
    plugin.listing.post(
        list_devices(stock_of(machine(8, DGX1V)).resource(RESOURCE), numa_hints=True)
    )
    second = call.take_response()
    assert {device.health for device in second.devices} == {"Healthy"}
    assert plugin.listing.active == 1
    call.cancel()
    wait_until(lambda: plugin.listing.active == 0, what="the stream to end")
