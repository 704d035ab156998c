"""Machine descriptions: YAML -> `Machine`.

The format is told in machine_files/README.md. Every rule of it is checked here, and a breach is
one MachineFileError that names the file and the place.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from topology.cpulist import parse_list
from topology.errors import MachineFileError
from topology.links import CELL_OF_LEVEL, LEVEL_OF_CELL, MAX_NVLINKS, Level, parse_nvlink_cell
from topology.machines import (
    CellMatrix,
    KnownLevels,
    Machine,
    MachineFabric,
    MachineGpu,
    MachineNic,
    MachineNvLink,
)
from topology.model import MAX_GPUS, CountMatrix
from topology.pci import normalise_pci
from topology.yaml_text import YamlError, load_yaml

_NIC_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,62}")


def parse_machine(text: str | bytes, source: str) -> Machine:
    """Read a machine description; `source` names it in the MachineFileError of a breach."""
    return _Reader(source).read(text)


class _Reader:
    """Checks one description; `source` goes into every error."""

    def __init__(self, source: str) -> None:
        self.source = source

    def fail(self, place: str, problem: str) -> MachineFileError:
        return MachineFileError(self.source, place, problem)

    def read(self, text: str | bytes) -> Machine:
        top = self._load(text)
        for key in ("name", "model", "gpus", "links", "nvlink"):
            if key not in top:
                raise self.fail("", f"missing key {key!r}")
        name = self._text(top["name"], "name")
        model = self._text(top["model"], "model")
        gpus = self._gpus(top["gpus"])
        count = len(gpus)
        links = self._cells(top["links"], "links", count, nvlinks=True)
        pcie_links = None
        if top.get("pcie_links") is not None:
            pcie_links = self._cells(top["pcie_links"], "pcie_links", count, nvlinks=False)
        nvlinks = tuple(tuple(parse_nvlink_cell(cell) or 0 for cell in row) for row in links)
        nvlink = self._nvlink(top["nvlink"])
        if nvlink.nvswitch:
            active = self._check_switch(nvlinks, nvlink)
        else:
            active = (0,) * count
            self._check_rows(nvlinks, nvlink)
        return Machine(
            name=name,
            model=model,
            gpus=gpus,
            links=links,
            pcie_links=pcie_links,
            nvlinks=nvlinks,
            levels=self._levels(links, pcie_links),
            nics=self._nics(top.get("nics"), count),
            nvlink=nvlink,
            active_links=active,
            fabric=_read_fabric(top.get("fabric")),
            p2p=str(top.get("p2p") or ""),
        )

    def _load(self, text: str | bytes) -> dict[str, Any]:
        try:
            top = load_yaml(text)
        except YamlError as error:
            place = f"line {error.line}" if error.line else ""
            raise self.fail(place, error.problem) from None
        if not isinstance(top, dict):
            raise self.fail("", f"a mapping is wanted, not {_kind(top)}")
        return top

    def _text(self, value: object, place: str) -> str:
        if not isinstance(value, str) or not value.strip():
            raise self.fail(place, f"a text is wanted, not {_kind(value)}")
        return value

    def _list(self, value: object, place: str) -> list[Any]:
        if not isinstance(value, list):
            raise self.fail(place, f"a list is wanted, not {_kind(value)}")
        return value

    def _mapping(self, value: object, place: str, keys: Sequence[str]) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self.fail(place, f"a mapping is wanted, not {_kind(value)}")
        for key in keys:
            if key not in value:
                raise self.fail(place, f"missing key {key!r}")
        return value

    def _number(self, value: object, place: str, most: int) -> int:
        if isinstance(value, str) and value.isascii() and value.isdecimal():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
            raise self.fail(place, f"a number from 0 to {most} is wanted, not {value!r}")
        return value

    def _gpus(self, value: object) -> tuple[MachineGpu, ...]:
        entries = self._list(value, "gpus")
        if not 1 <= len(entries) <= MAX_GPUS:
            raise self.fail("gpus", f"1 to {MAX_GPUS} GPUs are wanted, not {len(entries)}")
        gpus: list[MachineGpu] = []
        addresses: dict[str, int] = {}
        for position, entry in enumerate(entries):
            place = f"gpus[{position}]"
            fields = self._mapping(entry, place, ("index", "numa", "cpus"))
            index = self._number(fields["index"], f"{place}.index", MAX_GPUS)
            if index != position:
                raise self.fail(
                    f"{place}.index", f"{index} where {position} is due: GPUs stand in index order"
                )
            pci = self._pci(fields.get("pci"), f"{place}.pci")
            if pci is not None and addresses.setdefault(pci, position) != position:
                raise self.fail(f"{place}.pci", f"{pci} is GPU {addresses[pci]}'s already")
            own_node = fields.get("gpu_numa_id")
            gpus.append(
                MachineGpu(
                    index=index,
                    numa=self._affinity(fields["numa"], f"{place}.numa"),
                    cpus=self._affinity(fields["cpus"], f"{place}.cpus"),
                    pci=pci,
                    gpu_numa_id=None
                    if own_node is None
                    else self._number(own_node, f"{place}.gpu_numa_id", 1 << 16),
                    mig=self._mig(fields.get("mig"), f"{place}.mig"),
                )
            )
        return tuple(gpus)

    def _mig(self, value: object, place: str) -> tuple[str, ...] | None:
        if value is None:
            return None
        return tuple(
            self._text(name, f"{place}[{at}]") for at, name in enumerate(self._list(value, place))
        )

    def _affinity(self, value: object, place: str) -> str | None:
        if value is None:
            return None
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)  # written without quotes
        if not isinstance(value, str):
            raise self.fail(place, f"a list like '0-3,8' is wanted, not {_kind(value)}")
        try:
            parse_list(value)
        except ValueError as error:
            raise self.fail(place, str(error)) from None
        return value.strip()

    def _pci(self, value: object, place: str) -> str | None:
        if value is None:
            return None
        if not isinstance(value, str):
            raise self.fail(place, f"{value!r} is not a PCI address")
        try:
            return normalise_pci(value)
        except ValueError as error:
            raise self.fail(place, str(error)) from None

    def _cells(self, value: object, name: str, count: int, *, nvlinks: bool) -> CellMatrix:
        rows = self._list(value, name)
        if len(rows) != count:
            raise self.fail(name, f"{len(rows)} rows for {count} GPUs")
        for at, row in enumerate(rows):
            cells = self._list(row, f"{name}[{at}]")
            if len(cells) != count:
                raise self.fail(f"{name}[{at}]", f"{len(cells)} cells for {count} GPUs")
            for other, cell in enumerate(cells):
                place = f"{name}[{at}][{other}]"
                known = cell in LEVEL_OF_CELL if isinstance(cell, str) else False
                if not known and nvlinks and isinstance(cell, str):
                    known = parse_nvlink_cell(cell) is not None
                if not known:
                    raise self.fail(place, f"unknown cell {cell!r}")
                if (cell == "X") != (at == other):
                    raise self.fail(place, f"{cell!r}: X stands on the diagonal and only there")
        self._check_mirror(name, rows)
        return tuple(tuple(row) for row in rows)

    def _check_mirror(self, name: str, rows: Sequence[Sequence[object]]) -> None:
        for at, row in enumerate(rows):
            for other in range(at + 1, len(rows)):
                if row[other] != rows[other][at]:
                    raise self.fail(
                        f"{name}[{at}][{other}]",
                        f"{row[other]}, but {name}[{other}][{at}] is {rows[other][at]}",
                    )

    def _nvlink(self, value: object) -> MachineNvLink:
        fields = self._mapping(value, "nvlink", ("links_per_gpu", "nvswitch"))
        if not isinstance(fields["nvswitch"], bool):
            raise self.fail("nvlink.nvswitch", f"true or false is wanted, not {fields['nvswitch']}")
        per_switch = fields.get("links_per_switch")
        return MachineNvLink(
            links_per_gpu=self._number(
                fields["links_per_gpu"], "nvlink.links_per_gpu", MAX_NVLINKS
            ),
            nvswitch=fields["nvswitch"],
            links_per_switch=()
            if per_switch is None
            else tuple(
                self._number(links, f"nvlink.links_per_switch[{at}]", MAX_NVLINKS)
                for at, links in enumerate(self._list(per_switch, "nvlink.links_per_switch"))
            ),
        )

    def _check_rows(self, nvlinks: CountMatrix, nvlink: MachineNvLink) -> None:
        for at, row in enumerate(nvlinks):
            if sum(row) > nvlink.links_per_gpu:
                raise self.fail(
                    f"links[{at}]",
                    f"{sum(row)} NVLinks in the row, but a GPU has {nvlink.links_per_gpu}",
                )

    def _check_switch(self, nvlinks: CountMatrix, nvlink: MachineNvLink) -> tuple[int, ...]:
        """Return each GPU's links to the switch: a pair has the lesser of its two GPUs' counts."""
        count = len(nvlinks)
        active = tuple(max(row) for row in nvlinks)
        for at, row in enumerate(nvlinks):
            if active[at] > nvlink.links_per_gpu:
                raise self.fail(
                    f"links[{at}]",
                    f"{active[at]} NVLinks to the switch, but a GPU has {nvlink.links_per_gpu}",
                )
            for other in range(at + 1, count):
                joined = row[other] or any(
                    a and b for a, b in zip(row, nvlinks[other], strict=True)
                )
                wanted = min(active[at], active[other]) if joined else 0
                if row[other] != wanted:
                    raise self.fail(
                        f"links[{at}][{other}]",
                        f"{row[other]} NVLinks, but GPUs on one NVSwitch with {active[at]} and "
                        f"{active[other]} links have {wanted} between them",
                    )
        # A lone GPU shows no cell that could tell; its links are up.
        return (nvlink.links_per_gpu,) if count == 1 else active

    def _levels(self, links: CellMatrix, pcie_links: CellMatrix | None) -> KnownLevels:
        known = tuple(tuple(LEVEL_OF_CELL.get(cell) for cell in row) for row in links)
        if pcie_links is None:
            return known
        for at, row in enumerate(pcie_links):
            for other, cell in enumerate(row):
                level = known[at][other]
                if level is not None and CELL_OF_LEVEL[level] != cell:
                    raise self.fail(
                        f"pcie_links[{at}][{other}]",
                        f"{cell}, but links say {CELL_OF_LEVEL[level]}",
                    )
        return tuple(tuple(LEVEL_OF_CELL[cell] for cell in row) for row in pcie_links)

    def _nics(self, value: object, count: int) -> tuple[MachineNic, ...]:
        if value is None:
            return ()
        entries = self._list(value, "nics")
        nics: list[MachineNic] = []
        names: dict[str, int] = {}
        for at, entry in enumerate(entries):
            place = f"nics[{at}]"
            fields = self._mapping(entry, place, ("name", "gpus"))
            name = self._text(fields["name"], f"{place}.name")
            if not _NIC_NAME.fullmatch(name):
                raise self.fail(f"{place}.name", f"{name!r} is no interface name")
            if names.setdefault(name, at) != at:
                raise self.fail(f"{place}.name", f"{name} is nics[{names[name]}]'s already")
            gpus = self._nic_row(fields["gpus"], f"{place}.gpus", count, "GPUs", diagonal=None)
            others = None
            if fields.get("nics") is not None:
                others = self._nic_row(
                    fields["nics"], f"{place}.nics", len(entries), "NICs", diagonal=at
                )
            nics.append(MachineNic(name=name, gpus=gpus, nics=others))
        self._check_nic_mirror(nics)
        return tuple(nics)

    def _nic_row(
        self, value: object, place: str, count: int, what: str, *, diagonal: int | None
    ) -> tuple[Level, ...]:
        cells = self._list(value, place)
        if len(cells) != count:
            raise self.fail(place, f"{len(cells)} cells for {count} {what}")
        for at, cell in enumerate(cells):
            if not isinstance(cell, str) or cell not in LEVEL_OF_CELL:
                raise self.fail(f"{place}[{at}]", f"unknown cell {cell!r}")
            if (cell == "X") != (at == diagonal):
                raise self.fail(f"{place}[{at}]", f"{cell!r}: X stands for the NIC itself only")
        return tuple(LEVEL_OF_CELL[cell] for cell in cells)

    def _check_nic_mirror(self, nics: list[MachineNic]) -> None:
        for at, nic in enumerate(nics):
            for other in range(at + 1, len(nics)):
                mine, theirs = nic.nics, nics[other].nics
                if mine is not None and theirs is not None and mine[other] != theirs[at]:
                    raise self.fail(
                        f"nics[{at}].nics[{other}]",
                        f"{CELL_OF_LEVEL[mine[other]]}, but nics[{other}].nics[{at}] is "
                        f"{CELL_OF_LEVEL[theirs[at]]}",
                    )


def _read_fabric(value: object) -> MachineFabric | None:
    """Read the free-form fact `fabric`: of value only where it is a mapping with a state."""
    if not isinstance(value, dict) or not isinstance(value.get("state"), str):
        return None
    return MachineFabric(
        state=value["state"].lower(),
        cluster_uuid_nonzero=value.get("cluster_uuid_nonzero") is True,
        clique_nonzero=value.get("clique_nonzero") is True,
    )


def _kind(value: object) -> str:
    if value is None:
        return "nothing"
    if value == "":
        return "an empty text"
    for kind, words in ((dict, "a mapping"), (list, "a list"), (str, "a text")):
        if isinstance(value, kind):
            return words
    return repr(value)
