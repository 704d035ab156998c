"""What the node offers at this moment, as one value, and where it is kept."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Final

import msgspec
import structlog

from deviceplugin.config.model import Config
from deviceplugin.resources.devices import Resource, Sharing
from deviceplugin.resources.division import Division, divide
from deviceplugin.resources.facts import NodeFacts, missing_channel
from deviceplugin.resources.inventory import Inventory

MAIN: Final = "nvidia.com/gpu"

_log = structlog.get_logger("deviceplugin.stock")


class Stock(msgspec.Struct, frozen=True):
    """The inventory, divided by a configuration, with what the host has for it."""

    inventory: Inventory
    config: Config
    division: Division
    facts: NodeFacts = NodeFacts()

    def resource(self, name: str) -> Resource:
        """Return a resource; one that is not offered any more has no devices."""
        return self.division.resources.get(name) or Resource(name)

    @property
    def problem(self) -> str:
        """Why less is offered than could be, "" if nothing is wrong."""
        return "; ".join(self.division.problems)


NOTHING_SEEN: Final = NodeFacts()


def take_stock(
    inventory: Inventory, config: Config, facts: NodeFacts = NOTHING_SEEN, main: str = MAIN
) -> Stock:
    """Divide the inventory. Pure. Without a channel that is required nothing is offered."""
    missing = missing_channel(config, facts)
    if missing:
        return Stock(inventory, config, Division({main: Resource(main)}, {}, (missing,)), facts)
    division = divide(config, inventory, main)
    waiting = [
        name
        for name, resource in division.resources.items()
        if resource.sharing is Sharing.MPS and name not in facts.mps_ready
    ]
    return Stock(inventory, config, _hold_back(division, waiting), facts)


def _hold_back(division: Division, waiting: Iterable[str]) -> Division:
    """Call the devices of these resources unhealthy: a container would start and find no MPS."""
    resources, problems = dict(division.resources), list(division.problems)
    for name in waiting:
        problem = f"the MPS control daemon of {name} has no pipe yet"
        resources[name] = msgspec.structs.replace(
            resources[name],
            devices=tuple(
                msgspec.structs.replace(device, problem=device.problem or problem)
                for device in resources[name].devices
            ),
        )
        problems.append(problem)
    return Division(resources, division.withheld, tuple(problems))


class Store:
    """Holds the newest stock. Any thread reads; whoever brings news waits for the listener.

    `look` reads what the host has for an inventory; `on_change` is called with each new stock, one
    at a time and in order, before the call that brought the news returns.
    """

    def __init__(
        self,
        config: Config,
        *,
        look: Callable[[Inventory, Config], NodeFacts],
        on_change: Callable[[Stock], None],
        main: str = MAIN,
    ) -> None:
        self._look = look
        self._on_change = on_change
        self._main = main
        self._lock = threading.Lock()
        self._stock = take_stock(Inventory(), config, main=main)

    def read(self) -> Stock:
        """Return the newest stock."""
        return self._stock

    def take_inventory(self, inventory: Inventory) -> None:
        """Divide another inventory."""
        with self._lock:
            self._renew(inventory, self._stock.config)

    def take_config(self, config: Config) -> None:
        """Divide by another configuration."""
        with self._lock:
            self._renew(self._stock.inventory, config)

    def refresh(self) -> None:
        """Look again at what the host has."""
        with self._lock:
            stock = self._stock
            # Every second, and hardly ever another answer.
            if self._look(stock.inventory, stock.config) != stock.facts:
                self._renew(stock.inventory, stock.config)

    def _renew(self, inventory: Inventory, config: Config) -> None:
        stock = take_stock(inventory, config, self._look(inventory, config), self._main)
        if stock == self._stock:
            return
        if stock.problem and stock.problem != self._stock.problem:
            _log.warning("not everything can be offered", problem=stock.problem)
        self._stock = stock
        self._on_change(stock)
