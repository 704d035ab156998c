"""Laws of the device manager, whatever plugins answer and whichever pods come and go.

1. No device is held by two live pods.
2. A container holds exactly as many devices as it asks for, or its pod is refused.
3. Only devices that were healthy are given.
4. What is refused holds nothing after the next admission.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from embedded.kubelet.checkpoint import FILE_NAME, read_checkpoint
from embedded.kubelet.devicemanager import DeviceManager
from embedded.kubelet.devices import Device, Injection, Options
from embedded.kubelet.errors import AllocationError, PluginError
from embedded.kubelet.numa import Policy
from runtime.objects import Pod
from tests.embedded.kubelet.node import container, pod
from tests.embedded.kubelet.plugin import GPU

NAMES = [f"g{n}" for n in range(8)]


class Scripted:
    """An endpoint that answers from lists that hypothesis made."""

    def __init__(self, answers: Sequence[Sequence[str]], failures: Sequence[bool]) -> None:
        self._answers = list(answers)
        self._failures = list(failures)

    def preferred_allocation(
        self, available: list[str], must_include: list[str], size: int
    ) -> list[str]:
        """Give the next answer, as foolish as it may be."""
        assert set(must_include) <= set(available)
        assert 0 < size <= len(available)
        return list(self._answers.pop()) if self._answers else []

    def allocate(self, devices: list[str]) -> Injection:
        """Fail if the script says so."""
        if self._failures and self._failures.pop():
            raise PluginError("rpc error: code = Unknown desc = no")
        return Injection(env={"D": ",".join(sorted(devices))})

    def pre_start(self, devices: list[str]) -> None:
        """Accept."""


def test_nothing_is_freed_before_all_pods_are_known(tmp_path: Path) -> None:
    """After a restart the checkpoint's pods keep their devices until the first list is through."""
    one = pod("one", containers=[container("main", 2)])

    def restarted(active: frozenset[str]) -> DeviceManager:
        manager = DeviceManager(
            rng=Random(0),
            clock=lambda: 0.0,
            active=lambda: active,
            note=lambda *_: None,
            changed=lambda: None,
            checkpoint=tmp_path / FILE_NAME,
        )
        manager.connected(GPU, Scripted((), ()), Options())
        manager.listed(GPU, [Device(name, healthy=True) for name in NAMES])
        return manager

    restarted(frozenset({one.metadata.uid})).allocate(one, one.spec.containers[0])
    manager = restarted(frozenset())
    manager.free_ended()
    assert len(manager.held_by(one.metadata.uid)) == 1
    manager.sources_ready()
    manager.free_ended()
    assert manager.held_by(one.metadata.uid) == ()


def test_a_process_that_has_ended_writes_no_checkpoint(tmp_path: Path) -> None:
    """A late word from a plugin must not overwrite what the next process has written."""
    path = tmp_path / FILE_NAME
    manager = DeviceManager(
        rng=Random(0),
        clock=lambda: 0.0,
        active=frozenset,
        note=lambda *_: None,
        changed=lambda: None,
        checkpoint=path,
    )
    manager.connected(GPU, Scripted((), ()), Options())
    manager.listed(GPU, [Device("g0")])
    before = path.read_bytes()
    manager.close()
    manager.listed(GPU, [Device("g0"), Device("g1")])
    assert path.read_bytes() == before


steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.lists(st.integers(0, 4), min_size=1, max_size=3)),
        st.tuples(st.just("end"), st.integers(0, 10)),
        st.tuples(st.just("health"), st.sets(st.sampled_from(NAMES), max_size=3)),
    ),
    max_size=14,
)


@settings(max_examples=60, deadline=None)
@given(
    steps=steps,
    answers=st.lists(st.lists(st.sampled_from([*NAMES, "x"]), max_size=6), max_size=12),
    failures=st.lists(st.booleans(), max_size=6),
    policy=st.sampled_from(["none", "best-effort"]),
    with_init=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_books_are_kept(  # noqa: PLR0917 -- hypothesis names them
    steps: list[tuple[str, object]],
    answers: list[list[str]],
    failures: list[bool],
    policy: Policy,
    with_init: bool,
    seed: int,
) -> None:
    """The four laws hold after every step, and the checkpoint says the same."""
    live: dict[str, Pod] = {}
    unhealthy: set[str] = set()
    with tempfile.TemporaryDirectory(prefix="gt") as directory:
        path = Path(directory) / FILE_NAME
        manager = DeviceManager(
            rng=Random(seed),
            clock=lambda: 0.0,
            active=lambda: frozenset(live),
            note=lambda *_: None,
            changed=lambda: None,
            checkpoint=path,
            policy=policy,
        )
        manager.sources_ready()
        manager.connected(
            GPU, Scripted(answers, failures), Options(get_preferred_allocation_available=True)
        )

        def tell() -> None:
            manager.listed(
                GPU, [Device(n, n not in unhealthy, (i % 2,)) for i, n in enumerate(NAMES)]
            )

        tell()
        for number, (what, value) in enumerate(steps):
            match what, value:
                case "add", list(sizes):
                    one = pod(
                        f"p{number}",
                        containers=[container(f"c{i}", n) for i, n in enumerate(sizes)],
                        init=[container("init", 2)] if with_init else (),
                    )
                    uid = one.metadata.uid
                    live[uid] = one
                    try:
                        for each in (*(one.spec.init_containers or ()), *one.spec.containers):
                            manager.align(one, each)
                            manager.allocate(one, each)
                    except (AllocationError, PluginError):
                        del live[uid]
                    else:
                        given_now = {g.container: g.ids for g in manager.held_by(uid)}
                        assert {f"c{i}": n for i, n in enumerate(sizes) if n} == {
                            name: len(ids) for name, ids in given_now.items() if name != "init"
                        }
                        fresh = frozenset().union(*given_now.values())
                        assert fresh <= set(NAMES) - unhealthy
                case "end", int(index) if live:
                    live.pop(list(live)[index % len(live)])
                case "health", set(names):
                    unhealthy = {str(name) for name in names}
                    tell()
            manager.free_ended()
            held = [g for uid in live for g in manager.held_by(uid) if g.container != "init"]
            ids = [name for grant in held for name in grant.ids]
            assert len(ids) == len(set(ids))
        manager.listed(GPU, [])
        assert {g.pod_uid for g in read_checkpoint(path).grants} <= set(live)
