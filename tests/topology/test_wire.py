"""The annotations: their size, their shape, and one clear error for what is broken."""

from __future__ import annotations

import json
from typing import Any

import pytest

from topology.errors import WireError
from topology.links import Level
from topology.model import Clique, Gpu, Nic, NodeTopology
from topology.wire import (
    MAX_TOPOLOGY_BYTES,
    Assignment,
    NodeState,
    decode_assignment,
    decode_state,
    decode_topology,
    encode_assignment,
    encode_state,
    encode_topology,
)


def _node(gpus: int, nics: int = 0, *, name: str = "NVIDIA H100 80GB HBM3") -> NodeTopology:
    pairs = [[i != j for j in range(gpus)] for i in range(gpus)]
    return NodeTopology(
        gpus=tuple(
            Gpu(
                uuid=f"GPU-{i:08d}-0000-4000-8000-000000000000",
                index=i,
                minor=i,
                pci=f"0000:{i:02x}:00.0",
                model=name,
                compute="9.0",
                memory_mib=81559,
                pcie_gen=5,
                numa="0-1",
                cpus="0-55,112-167",
                numa_node=i % 2,
            )
            for i in range(gpus)
        ),
        nvlinks=tuple(tuple(18 if pair else 0 for pair in row) for row in pairs),
        switch=(0,) * gpus,
        pcie=tuple(tuple(Level.SYS if pair else Level.SELF for pair in row) for row in pairs),
        nics=tuple(
            Nic(
                name=f"mlx5_{i}_{name}"[:63],
                pci=f"0000:{i:02x}:00.1",
                gpus=(Level.PIX,) * gpus,
                nics=(Level.SYS,) * nics,
            )
            for i in range(nics)
        ),
        clique=Clique(cluster_uuid="c" * 36, clique_id=32766),
    )


def _damage(**changes: object) -> str:
    tree: dict[str, Any] = json.loads(encode_topology(_node(3, 1)))
    tree.update(changes)
    return json.dumps(tree)


_LEVELS = (Level.PIX, Level.PXB, Level.PHB, Level.NODE, Level.SYS)


def test_a_topology_reads_as_version_1_wrote_it() -> None:
    """Plugins and extenders of different age share a cluster: version 1 is these very bytes."""
    first = [Level.SELF, *_LEVELS]
    rows = [[first[abs(i - j)] for j in range(6)] for i in range(6)]
    node = NodeTopology(
        gpus=tuple(
            Gpu(uuid=f"GPU-{i}", index=5 - i, minor=i, pci=f"0000:0{i}:00.0", model="M")
            for i in range(6)
        ),
        nvlinks=tuple(tuple(4 if {i, j} == {0, 5} else 0 for j in range(6)) for i in range(6)),
        switch=(-1,) * 6,
        pcie=tuple(map(tuple, rows)),
        nics=(Nic(name="ib0", pci="0000:09:00.0", gpus=(*_LEVELS, Level.SYS), nics=(Level.SELF,)),),
        clique=Clique(cluster_uuid="c", clique_id=7),
    )
    gpus = ",".join(
        f'{{"uuid":"GPU-{i}","index":{5 - i},"minor":{i},"pci":"0000:0{i}:00.0","model":"M"}}'
        for i in range(6)
    )
    text = (
        f'{{"v":1,"gpus":[{gpus}],'
        '"nvlinks":[[0,0,0,0,4],[0,0,0,0],[0,0,0],[0,0],[0]],"switch":[-1,-1,-1,-1,-1,-1],'
        '"pcie":["ixhns","ixhn","ixh","ix","i"],'
        '"nics":[{"name":"ib0","pci":"0000:09:00.0","gpus":"ixhnss","nics":"."}],'
        '"clique":{"cluster":"c","id":7}}'
    )
    assert encode_topology(node) == text
    assert decode_topology(text) == node


def test_state_and_assignment_read_as_version_1_wrote_them() -> None:
    """So do the other two annotations."""
    state = NodeState(
        generation=3, resources=("r",), unhealthy={"GPU-1": "xid 79"}, allocations={"u": ("GPU-0",)}
    )
    text = (
        '{"v":1,"generation":3,"resources":["r"],'
        '"unhealthy":{"GPU-1":"xid 79"},"allocations":{"u":["GPU-0"]}}'
    )
    assert (encode_state(state), decode_state(text)) == (text, state)
    state = NodeState(generation=3, withheld={"GPU-1": "shared"})
    text = '{"v":1,"generation":3,"withheld":{"GPU-1":"shared"}}'
    assert (encode_state(state), decode_state(text)) == (text, state)
    assignment = Assignment(containers={"main": ("GPU-0",)}, scores={"bw": 40.0}, trace="t")
    text = '{"v":1,"containers":{"main":["GPU-0"]},"scores":{"bw":40.0},"trace":"t"}'
    assert (encode_assignment(assignment), decode_assignment(text)) == (text, assignment)


def test_sixteen_gpus_and_nics_with_the_longest_names_fit() -> None:
    """16 GPUs and 16 NICs whose names fill NVML's buffer of 96 bytes fit in 16 KiB."""
    node = _node(16, 16, name="N" * 96)
    text = encode_topology(node)
    assert len(text.encode()) <= MAX_TOPOLOGY_BYTES
    assert decode_topology(text) == node


def test_sixty_four_gpus_are_written_and_read() -> None:
    """The largest node that the model takes is read back."""
    node = _node(64)
    assert decode_topology(encode_topology(node)) == node


def test_a_topology_that_is_too_large_is_refused() -> None:
    """What would exceed 16 KiB is not written."""
    with pytest.raises(WireError, match=r"gputopo.dev/topology: \d+ bytes, at most 16384"):
        encode_topology(_node(8, name="N" * 4096))


def test_unknown_fields_are_ignored() -> None:
    """A newer writer's additional field does not disturb."""
    assert decode_topology(_damage(colour="green")) == _node(3, 1)


def test_text_and_bytes_are_read_alike() -> None:
    """An annotation may come as text or as bytes."""
    text = encode_topology(_node(2))
    assert decode_topology(text) == decode_topology(text.encode())


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "truncated"),
        (encode_topology(_node(3, 1))[:200], "truncated"),
        ("[]", "Expected `object`, got `array`"),
        ("{}", "missing required field `v`"),
        (_damage(v=2), r"\$\.v: version 2 is not 1"),
        (_damage(v=2, gpus="other"), r"\$\.v: version 2 is not 1"),
        (_damage(v="1"), r"Expected `int`, got `str` - at `\$\.v`"),
        (_damage(gpus="x"), r"at `\$\.gpus`"),
        (_damage(switch=[0, 0]), "switch: 2 entries for 3 GPUs"),
        (_damage(switch=[0, 0, -2]), r"at `\$\.switch\[2\]`"),
        (_damage(nvlinks=[[18, 18], [37]]), r"nvlinks\[1\]\[2\]: 37 links"),
        (_damage(nvlinks=[[18, 18]]), r"\$\.nvlinks: 1 rows for 3 GPUs, not 2"),
        (_damage(nvlinks=[[18], [18]]), r"\$\.nvlinks\[0\]: 1 cells, not 2"),
        (_damage(pcie=["sq", "s"]), r"\$\.pcie\[0\]: no level is called 'q'"),
        (_damage(pcie=["s.", "s"]), r"pcie\[0\]\[2\]: SELF"),
        (_damage(nics=[{"name": "a", "pci": "", "gpus": "ii", "nics": "."}]), "NIC a"),
        (_damage(nics=[{"name": "a", "pci": "", "gpus": "i?i", "nics": "."}]), r"nics\[0\]\.gpus"),
        ('{"v":1,"a":' + "[" * 100_000, "nested too deeply"),
        ("\ud800", "not Unicode"),
    ],
)
def test_a_broken_topology_is_refused_with_its_place(text: str, problem: str) -> None:
    """Each fault of a topology is one WireError that names the annotation and the place."""
    with pytest.raises(WireError, match=problem) as caught:
        decode_topology(text)
    assert str(caught.value).startswith("gputopo.dev/topology: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["uuid", "index"])
def test_two_gpus_of_one_name_are_refused(name: str) -> None:
    """A uuid or an index that stands twice is a contradiction."""
    tree = json.loads(encode_topology(_node(2)))
    tree["gpus"][1][name] = tree["gpus"][0][name]
    with pytest.raises(WireError, match=f"two GPUs have one {name}"):
        decode_topology(json.dumps(tree))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"v":1}', "missing required field `generation`"),
        ('{"v":1,"generation":-1}', r"at `\$\.generation`"),
        ('{"v":1,"generation":1,"unhealthy":["GPU-a"]}', r"at `\$\.unhealthy`"),
        (
            '{"v":1,"generation":1,"allocations":{"pod":["GPU-a","GPU-a"]}}',
            r"\$\.allocations\['pod'\]: one GPU is named twice",
        ),
    ],
)
def test_a_broken_state_is_refused_with_its_place(text: str, problem: str) -> None:
    """Each fault of a state is one WireError that names the annotation and the place."""
    with pytest.raises(WireError, match=rf"gputopo\.dev/state: .*{problem}"):
        decode_state(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"v":3,"containers":{}}', r"\$\.v: version 3 is not 1"),
        ('{"v":1,"containers":{"":["GPU-a"]}}', "length >= 1"),
        ('{"v":1,"containers":{"main":[1]}}', r"at `\$\.containers\[\.\.\.\]\[0\]`"),
        (
            '{"v":1,"containers":{"main":["GPU-a","GPU-a"]}}',
            r"\$\.containers\['main'\]: one GPU is named twice",
        ),
    ],
)
def test_a_broken_assignment_is_refused_with_its_place(text: str, problem: str) -> None:
    """Each fault of an assignment is one WireError that names the annotation and the place."""
    with pytest.raises(WireError, match=rf"gputopo\.dev/gpus: .*{problem}"):
        decode_assignment(text)


def test_a_score_that_json_cannot_hold_is_refused() -> None:
    """Infinity is no score."""
    with pytest.raises(WireError, match=r"scores\['busbw'\]: inf"):
        encode_assignment(Assignment(containers={}, scores={"busbw": float("inf")}))


def test_text_that_is_not_unicode_is_not_written() -> None:
    """A lone surrogate in a reason is refused when it is written."""
    with pytest.raises(WireError, match="not Unicode"):
        encode_state(NodeState(generation=1, unhealthy={"GPU-a": "\udc80"}))


def test_an_assignment_knows_its_gpus() -> None:
    """All GPUs of all containers are the pod's."""
    assignment = Assignment(containers={"a": ("GPU-1",), "b": ("GPU-2", "GPU-3")})
    assert assignment.uuids() == {"GPU-1", "GPU-2", "GPU-3"}
