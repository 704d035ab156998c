"""The books: who saw exactly its set, and whether a GPU was given twice."""

from __future__ import annotations

import pytest

from embedded.ledger import ContainerLife, TakenGpu, check_lives

SET_AB = '{"v":1,"containers":{"main":["A","B"]}}'


def life(
    *gpus: str,
    uid: str = "1",
    requested: int | None = None,
    node: str = "n01",
    started: float = 1.0,
    ended: float | None = None,
) -> ContainerLife:
    """Make a container that saw these GPUs and asked for as many."""
    return ContainerLife(
        node=node,
        pod=f"default/p{uid}",
        uid=uid,
        container="main",
        requested=len(gpus) if requested is None else requested,
        gpus=frozenset(gpus),
        started=started,
        ended=ended,
    )


@pytest.mark.parametrize(
    ("name", "seen", "annotation", "why"),
    [
        ("the same set", life("B", "A"), SET_AB, None),
        ("another set", life("A", "C"), SET_AB, "another set"),
        ("nothing seen", life(requested=2), SET_AB, "another set"),
        ("no annotation", life("A", "B"), None, "no annotation"),
        ("cut annotation", life("A", "B"), SET_AB[:20], "unreadable"),
        ("container not named", life("A"), '{"v":1,"containers":{"x":["A"]}}', "not name"),
        ("another count", life("A", "B", requested=3), SET_AB, "names 2 GPUs where 3"),
        ("asks for none, sees none", life(), None, None),
        ("asks for none, sees one", life("A", requested=0), None, "another set"),
    ],
)
def test_each_container_is_judged(
    name: str, seen: ContainerLife, annotation: str | None, why: str | None
) -> None:
    """A container is honoured when it saw exactly the annotated set, which is as big as asked."""
    verdict = check_lives([seen], {"1": annotation})
    assert (verdict.honoured == {"1"}) == (why is None), name
    assert [why in each.why for each in verdict.mismatched] == [True] * (why is not None), name  # type: ignore[operator]  # the list is empty where why is None


def test_a_pod_is_honoured_only_as_a_whole() -> None:
    """One container with a wrong set spoils its pod."""
    other = ContainerLife("n01", "default/p1", "1", "side", 1, frozenset("Z"), 1.0)
    text = '{"v":1,"containers":{"main":["A"],"side":["B"]}}'
    verdict = check_lives([life("A"), other], {"1": text})
    assert verdict.honoured == frozenset()
    assert len(verdict.mismatched) == 1


@pytest.mark.parametrize(
    ("taken", "drifted"),
    [
        (TakenGpu("n01", "B", since=0.5), True),
        (TakenGpu("n01", "B", since=0.5, until=1.5), True),
        (TakenGpu("n01", "B", since=0.5, until=0.9), False),  # back before the container started
        (TakenGpu("n01", "B", since=2.0), False),  # taken only after the container had started
        (TakenGpu("n01", "C", since=0.5), False),  # not of the wanted set
        (TakenGpu("n02", "B", since=0.5), False),  # another node
    ],
)
def test_only_a_gpu_that_was_taken_before_explains_a_drift(taken: TakenGpu, drifted: bool) -> None:
    """A mismatch is excused when a fault had taken a wanted GPU of that node before."""
    verdict = check_lives([life("A", "C")], {"1": SET_AB}, [taken])
    assert (len(verdict.drifted), len(verdict.mismatched)) == ((1, 0) if drifted else (0, 1))
    assert verdict.honoured == frozenset()


@pytest.mark.parametrize(
    ("first", "second", "doubles"),
    [
        (life("A", started=1, ended=2), life("A", uid="2", started=3), 0),
        (life("A", started=1, ended=2), life("A", uid="2", started=2), 0),
        (life("A", started=1, ended=3), life("A", uid="2", started=2), 1),
        (life("A", started=1), life("A", uid="2", started=2), 1),
        (life("A", "B", started=1), life("A", "B", uid="2", started=2), 2),
        (life("A", started=1), life("A", uid="2", started=2, node="n02"), 0),
        (life("A", started=1), life("B", uid="2", started=2), 0),
    ],
)
def test_doubles_are_overlaps(first: ContainerLife, second: ContainerLife, doubles: int) -> None:
    """A GPU is given twice when two containers of one node saw it at one moment."""
    for order in ((first, second), (second, first)):
        assert len(check_lives(order, {}).double_allocated) == doubles


def test_a_long_holder_is_not_forgotten() -> None:
    """A short second holder does not hide that the first one still runs when a third starts."""
    lives = [
        life("A", uid="1", started=1, ended=10),
        life("A", uid="2", started=2, ended=3),
        life("A", uid="3", started=4, ended=5),
    ]
    assert len(check_lives(lives, {}).double_allocated) == 2
