"""GPUs taken out of service by an annotation: who gets them, and what is shown of it."""

from __future__ import annotations

import pytest

from deviceplugin.admission.allocation import check_devices
from deviceplugin.config.model import Config
from deviceplugin.errors import UnhealthyDeviceError
from deviceplugin.guarding.cordon import CordonKeeper, live_devices, one_node_query, read_words
from deviceplugin.nvml.interface import MigDevice
from deviceplugin.pods.holdings import Holdings
from deviceplugin.resources.inventory import Board, Cordon, Inventory
from deviceplugin.resources.stock import take_stock
from deviceplugin.serving.listing import list_devices
from runtime.objects import Node, ObjectMeta, Pod
from tests.deviceplugin.nodes import RESOURCE, by_key, holdings, machine, pod
from topology.gpuset import positions

TOPOLOGY = machine(4)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, ()),
        ("", ()),
        ("2", ("2",)),
        (" 2, g3 ,2", ("2", "g3")),
        ("all", ("all",)),
        ("0 1\n3", ("0", "1", "3")),
    ],
)
def test_the_annotation_is_a_list_of_words(text: str | None, words: tuple[str, ...]) -> None:
    """Separated by commas or blanks, each once."""
    assert read_words(text) == words


@pytest.mark.parametrize(
    ("word", "gpus"),
    [
        ("2", {"g2"}),
        ("g3", {"g3"}),
        ("0000:11:00.0", {"g1"}),
        ("11:00.0", {"g1"}),
        ("all", {"g0", "g1", "g2", "g3"}),
        ("9", set()),
        ("everything", set()),
    ],
)
def test_a_gpu_is_named_by_index_uuid_or_address(word: str, gpus: set[str]) -> None:
    """What names none is told apart, and harms nobody."""
    cordon = Cordon((word,))
    assert cordon.resolve(TOPOLOGY, {}).keys() == gpus
    assert cordon.unknown(TOPOLOGY) == (() if gpus else (word,))


def _health(board: Board) -> dict[str, str]:
    stock = take_stock(board.read(), Config())
    listed = list_devices(stock.resource(RESOURCE), numa_hints=False)
    return {one.ID: one.health for one in listed.devices}


class World:
    """A board with four GPUs, a pod on GPU 1, and what keeps the cordon."""

    def __init__(self) -> None:
        self.board = Board()
        self.board.post(Inventory(TOPOLOGY))
        self.pods: dict[str, Pod] = by_key(pod("a", uid="u-a", phase="Running"))
        self.holdings = holdings(a={"main": ("g1",)})
        self.keeper = CordonKeeper(
            self.board, holdings=lambda: self.holdings, pods=lambda: self.pods
        )

    def annotate(self, text: str | None) -> None:
        """Change the Node."""
        annotations = {} if text is None else {"gputopo.dev/cordon": text}
        self.keeper.changed(Node(metadata=ObjectMeta(name="n1", annotations=annotations)))


@pytest.fixture
def world() -> World:
    """Return a world without a cordon."""
    return World()


def test_a_free_gpu_is_closed_and_one_in_use_stays_open(world: World) -> None:
    """Kubelet would show the pod on a GPU that we call Unhealthy as one on a sick device."""
    world.annotate("1,2")
    assert _health(world.board) == {
        "g0": "Healthy",
        "g1": "Healthy",
        "g2": "Unhealthy",
        "g3": "Healthy",
    }
    assert world.board.read().unhealthy == {}
    assert tuple(positions(world.board.read().failed())) == (2,)


def test_the_scheduler_reads_of_both(world: World) -> None:
    """The state withholds them, whoever has them now."""
    world.annotate("1,2")
    stock = take_stock(world.board.read(), Config())
    assert stock.division.withheld == {"g1": "cordoned", "g2": "cordoned"}


def test_it_closes_when_its_pod_ends(world: World) -> None:
    """As soon as the watch shows the end, before kubelet frees the GPU."""
    world.annotate("1")
    world.pods = by_key(pod("a", uid="u-a", phase="Succeeded"))
    world.keeper.refresh()
    assert _health(world.board)["g1"] == "Unhealthy"


def test_a_promise_is_kept(world: World) -> None:
    """A pod that was bound with the GPU before the cordon still gets it."""
    world.pods = by_key(pod("b", 1, promised={"c0": ("g2",)}))
    world.annotate("2")
    assert _health(world.board)["g2"] == "Healthy"


def test_taking_the_annotation_away_opens_all(world: World) -> None:
    """So does a Node that is deleted and comes again without it."""
    world.annotate("all")
    assert len(world.board.read().cordoned) == 4
    world.annotate(None)
    assert world.board.read().cordoned == {}
    world.annotate("all")
    world.keeper.listed(())
    assert world.board.read().cordoned == {}


def test_a_gpu_that_comes_later_is_cordoned_too(world: World) -> None:
    """The words stay in force for every later inventory."""
    world.annotate("all")
    world.board.post(Inventory(machine(8)))
    assert len(world.board.read().cordoned) == 8


def test_parts_of_a_cordoned_gpu_close_one_by_one(world: World) -> None:
    """The MIG device that a pod has stays open, its siblings do not."""
    mig = {"g3": tuple(MigDevice(f"m{at}", at, at, 0, "1g.5gb") for at in range(3))}
    world.board.post(Inventory(TOPOLOGY, mig=mig))
    world.holdings = holdings(a={"main": ("m1",)})
    world.annotate("3")
    assert world.board.read().cordoned == {"g3": frozenset(["m1"])}
    config = Config.model_validate({"flags": {"migStrategy": "mixed"}})
    stock = take_stock(world.board.read(), config)
    parts = stock.resource("nvidia.com/mig-1g.5gb").devices
    assert [one.problem for one in parts] == ["cordoned", "", "cordoned"]


def test_a_pod_that_got_one_nevertheless_is_not_failed(world: World) -> None:
    """Kubelet may give a cordoned GPU a moment before it hears of it; a sick one is refused."""
    world.annotate("2")
    resource = take_stock(world.board.read(), Config()).resource(RESOURCE)
    assert [one.id for one in check_devices(["g2"], resource, {})] == ["g2"]
    sick = Inventory(TOPOLOGY, {"g2": "XID 48"})
    with pytest.raises(UnhealthyDeviceError):
        check_devices(["g2"], take_stock(sick, Config()).resource(RESOURCE), {})


def test_pods_that_nobody_knows_still_hold_their_devices() -> None:
    """Kubelet's word stands while the watch is late."""
    assert live_devices(holdings(x={"main": ("g0",)}), {}) == {"g0"}
    assert live_devices(Holdings(), {}) == frozenset()


def test_only_the_own_node_is_watched() -> None:
    """By its name, as kubelet does."""
    assert one_node_query("n1") == {"fieldSelector": "metadata.name=n1"}
