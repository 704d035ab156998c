"""Whatever NVML answers: the plugin's own errors, and nothing about a GPU that is not so."""

from __future__ import annotations

import contextlib
from typing import Any

import pynvml
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from deviceplugin.errors import DiscoveryError, NvmlError
from deviceplugin.health.probe import ask_all
from deviceplugin.nvml.interface import EventType
from deviceplugin.nvml.library import Nvml
from mock_nvml.native.signatures import SIGNATURES
from tests.mock_nvml.rig import Rig, rig
from topology.catalogue import load_machine

CODES = sorted(
    {
        value
        for name in dir(pynvml)
        if name.startswith("NVML_ERROR_") and isinstance(value := getattr(pynvml, name), int)
    }
    - {0}
)
FUNCTIONS = sorted(name for name in SIGNATURES if name.startswith(("nvmlDevice", "nvmlSystem")))

_FAILING = st.fixed_dictionaries(
    {
        "function": st.sampled_from(FUNCTIONS),
        "code": st.sampled_from([*CODES, 4711]),
        "gpu": st.none() | st.integers(0, 3),
        "times": st.none() | st.integers(1, 3),
    }
)
_FAULTS = st.lists(_FAILING, min_size=1, max_size=4)


@pytest.fixture(scope="module")
def machine() -> Any:
    """Return a machine with links, MIG and few GPUs."""
    return load_machine("gb200-nvl72-tray-4x")


def _watch(nvml: Nvml) -> None:
    """Register for events and wait for none, as the monitor does."""
    events = nvml.event_set()
    try:
        for index in range(nvml.count()):
            with contextlib.suppress(NvmlError):
                events.register(nvml.device(index), EventType.XID | EventType.MIG_CHANGE)
        events.wait(0)
    finally:
        with contextlib.suppress(NvmlError):
            events.close()


def _disturbed(set_up: Rig, faults: list[dict[str, Any]]) -> None:
    set_up.mock.inject("recover")
    set_up.mock.inject("mig", gpu=2, profiles=["3g.93gb", "1g.23gb"])
    for fault in faults:
        set_up.mock.inject("call", **fault)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(_FAULTS)
@example([{"function": "nvmlSystemGetCudaDriverVersion_v2", "code": 1, "gpu": None}])
def test_no_answer_gets_past_the_plugins_own_errors(
    machine: Any, faults: list[dict[str, Any]]
) -> None:
    """Discovery, probe and event set end well or with their own error, whichever calls fail."""
    with rig(machine) as set_up:
        whole = set_up.discover().topology
        _disturbed(set_up, faults)
        with contextlib.suppress(DiscoveryError):
            found = set_up.discover()
            # Fewer GPUs may be known, and less of them; never other ones.
            assert found.topology.position_of().keys() <= whole.position_of().keys()
            assert found.mig.keys() <= found.topology.position_of().keys()
            assert len(found.topology.gpus) + len(found.problems) == 4
        _disturbed(set_up, faults)
        with contextlib.suppress(NvmlError):
            seen = ask_all(set_up.nvml, lambda *_: None)
            assert seen.answers.keys().isdisjoint(seen.sick)
            assert seen.answers.keys() | seen.sick.keys() <= whole.position_of().keys()
        _disturbed(set_up, faults)
        with contextlib.suppress(NvmlError):
            _watch(set_up.nvml)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(_FAILING, st.integers(0, 3))
def test_one_gpus_failing_calls_say_nothing_of_the_others(
    machine: Any, fault: dict[str, Any], gpu: int
) -> None:
    """Their own facts, and the links among them, are as without it."""
    with rig(machine) as set_up:
        whole = set_up.discover().topology
        set_up.mock.inject("call", **{**fault, "gpu": gpu, "times": None})
        try:
            found = set_up.discover().topology
        except DiscoveryError:
            return
        others = [one for one in whole.gpus if one.index != gpu]
        assert [one for one in found.gpus if one.index != gpu] == others
        was, now = whole.position_of(), found.position_of()
        for first in others:
            for second in others:
                assert (
                    found.nvlinks[now[first.uuid]][now[second.uuid]]
                    == whole.nvlinks[was[first.uuid]][was[second.uuid]]
                )
