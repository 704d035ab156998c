"""Whatever kubelet asks and whatever annotations say: an answer, or a status that says why not."""

from __future__ import annotations

from typing import Any

import grpc
import grpc_testing
from hypothesis import given, settings
from hypothesis import strategies as st

from deviceplugin.admission.desk import Desk
from deviceplugin.admission.ledger import Ledger
from deviceplugin.metrics import Metrics
from deviceplugin.resources.inventory import Inventory
from deviceplugin.resources.stock import MAIN, take_stock
from deviceplugin.serving.listing import Listing, list_devices
from deviceplugin.serving.servicer import Servicer
from deviceplugin.v1beta1 import api_pb2
from runtime.objects import Pod
from tests.deviceplugin.nodes import CHOOSERS, DGX1V, FakePodResources, by_key, machine, pod
from tests.deviceplugin.nodes import holdings as held_by
from tests.deviceplugin.resources.nodes import config_of, cut

PLUGIN = api_pb2.DESCRIPTOR.services_by_name["DevicePlugin"]
CONFIGS = (
    "",
    "sharing: {timeSlicing: {resources: [{name: gpu, replicas: 3}]}}",
    "sharing: {timeSlicing: {distinctGPUs: true, resources: [{name: gpu, replicas: 3}]}}",
    "flags: {migStrategy: single, plugin: {deviceListStrategy: [cdi-cri, cdi-annotations]}}",
)
ALLOWED = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.FAILED_PRECONDITION,
}

_IDS = st.one_of(
    st.integers(0, 8).map("g{}".format),
    st.tuples(st.integers(0, 8), st.integers(0, 4)).map(lambda pair: f"g{pair[0]}::{pair[1]}"),
    st.tuples(st.integers(0, 8), st.integers(0, 2)).map(lambda pair: f"m{pair[0]}-{pair[1]}"),
    st.sampled_from(["", "::", "g0::", "::1", "g0::0::1", "GPU-?", "\u00e9"]),
)
_LISTS = st.lists(_IDS, max_size=10)
_SIZES = st.integers(-(2**31), 2**31 - 1) | st.integers(0, 9)
_ANNOTATIONS = st.one_of(
    st.none(),
    st.text(max_size=20),
    st.lists(_IDS, max_size=4).map(
        lambda ids: '{"v":1,"containers":{"c0":[' + ",".join(f'"{one}"' for one in ids) + "]}}"
    ),
    st.sampled_from(
        ["{}", "[]", '{"v":2}', '{"v":1,"containers":{"c0":[]}}', '{"v":1,"containers":1}']
    ),
)


class Plugin:
    """A servicer behind grpc_testing, with pods and kubelet's books as they happen to be."""

    def __init__(
        self, config: str, pods: dict[str, Pod], kubelet: FakePodResources, sick: dict[str, str]
    ) -> None:
        mig = {}
        for gpu in range(8):
            mig |= cut(gpu, "1g.5gb", "1g.5gb") if "single" in config else {}
        stock = take_stock(Inventory(machine(8, DGX1V), sick, mig), config_of(config))
        metrics = Metrics()
        desk = Desk(
            stock=lambda: stock,
            resource=MAIN,
            pods=lambda: pods,
            get_pod=lambda _key, _timeout: None,
            ledger=Ledger(kubelet, metrics),
            chooser_for=CHOOSERS,
            metrics=metrics,
        )
        listing = Listing(list_devices(stock.resource(MAIN), numa_hints=True))
        self.metrics = metrics
        self._server = grpc_testing.server_from_dictionary(
            {PLUGIN: Servicer(desk, listing, metrics)}, grpc_testing.strict_real_time()
        )

    def call(self, method: str, request: Any) -> tuple[Any, grpc.StatusCode, str]:
        """Call; return the answer, the status and its details."""
        call = self._server.invoke_unary_unary(PLUGIN.methods_by_name[method], (), request, None)
        answer, _, code, details = call.termination()
        return answer, code, details

    def faults(self) -> float:
        """Return how often a fault of ours was covered up."""
        value = self.metrics.registry.get_sample_value(
            "gputopo_plugin_drift_total", {"reason": "internal"}
        )
        return value or 0.0


def draw_plugin(data: st.DataObject) -> Plugin:
    """Make a plugin whose pods, annotations and books are whatever comes."""
    asking = pod(
        "a",
        data.draw(st.integers(0, 4)),
        annotation=data.draw(_ANNOTATIONS),
        strict=data.draw(st.booleans()),
        phase=data.draw(st.sampled_from(["Pending", "Running", "", "?"])),
    )
    other = pod("b", 1, annotation=data.draw(_ANNOTATIONS))
    books = held_by(a={"c0": ()}, b={"c0": tuple(data.draw(_LISTS))})
    kubelet = FakePodResources(data.draw(st.sampled_from([books, None])))
    sick = {f"g{gpu}": "XID 79" for gpu in data.draw(st.sets(st.integers(0, 7), max_size=3))}
    return Plugin(data.draw(st.sampled_from(CONFIGS)), by_key(asking, other), kubelet, sick)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), available=_LISTS, must=_LISTS, size=_SIZES)
def test_any_preference_is_answered(
    data: st.DataObject, available: list[str], must: list[str], size: int
) -> None:
    """The answer names devices of the offer, as many as asked or none; nothing breaks inside."""
    plugin = draw_plugin(data)
    if data.draw(st.booleans()):
        must = must and available[: len(must)]
    request = api_pb2.PreferredAllocationRequest(
        container_requests=[
            api_pb2.ContainerPreferredAllocationRequest(
                available_deviceIDs=available, must_include_deviceIDs=must, allocation_size=size
            )
        ]
    )
    answer, code, details = plugin.call("GetPreferredAllocation", request)
    assert code in ALLOWED, details
    assert plugin.faults() == 0
    if code is grpc.StatusCode.OK:
        (one,) = answer.container_responses
        chosen = list(one.deviceIDs)
        assert len(chosen) in (0, size)
        assert len(set(chosen)) == len(chosen)
        assert set(chosen) <= {*available, *must}
    else:
        assert details


@settings(max_examples=150, deadline=None)
@given(data=st.data(), containers=st.lists(_LISTS, max_size=3))
def test_any_allocation_is_answered(data: st.DataObject, containers: list[list[str]]) -> None:
    """One answer for each container in order, or a status that names what cannot be given."""
    plugin = draw_plugin(data)
    request = api_pb2.AllocateRequest(
        container_requests=[api_pb2.ContainerAllocateRequest(devices_ids=ids) for ids in containers]
    )
    answer, code, details = plugin.call("Allocate", request)
    assert code in ALLOWED, details
    if code is grpc.StatusCode.OK:
        assert len(answer.container_responses) == len(containers)
        for ids, one in zip(containers, answer.container_responses, strict=True):
            assert bool(one.envs or one.cdi_devices) == bool(ids)
