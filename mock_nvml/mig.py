"""The MIG instances of one GPU: what fits, what is there, and the handles' numbers.

Nothing here is guarded: whoever calls holds the machine's lock.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pynvml

from mock_nvml.errors import NvmlStatusError
from mock_nvml.mig_profiles import COMPUTE_KEYS, MigGeometry, MigProfile


@dataclass(eq=False)
class ComputeInstance:
    """A part of a GPU instance's compute slices; with it the GPU has a MIG device at `index`."""

    number: int
    id: int
    slices: int
    start: int
    uuid: str
    index: int


@dataclass(eq=False)
class GpuInstance:
    """A part of the GPU's memory and compute slices."""

    number: int
    id: int
    profile: MigProfile
    start: int
    compute: dict[int, ComputeInstance] = field(default_factory=dict)

    def free_slices(self) -> list[int]:
        """Return the compute slices that no compute instance has."""
        taken = {
            at for one in self.compute.values() for at in range(one.start, one.start + one.slices)
        }
        return [at for at in range(self.profile.slices) if at not in taken]

    def compute_starts(self, slices: int) -> list[int]:
        """Return where a compute instance of so many slices could begin now."""
        free = set(self.free_slices())
        return [
            start
            for start in range(0, self.profile.slices - slices + 1, slices)
            if free.issuperset(range(start, start + slices))
        ]


class MigState:
    """MIG on one GPU. `geometry` is None for a product that has none.

    `seed` names the GPU: the same instance at the same place always has the same uuid, also after
    a restart, as on hardware. `take_number` gives numbers that are unique on the machine.
    """

    def __init__(
        self, geometry: MigGeometry | None, seed: str, take_number: Callable[[], int]
    ) -> None:
        self.geometry = geometry
        self.enabled = False
        self.instances: dict[int, GpuInstance] = {}
        self._seed = seed
        self._take_number = take_number

    @property
    def most_devices(self) -> int:
        """How many MIG devices the GPU can have; 0 with MIG off."""
        return self.geometry.slices if self.geometry is not None and self.enabled else 0

    def devices(self) -> Iterator[tuple[GpuInstance, ComputeInstance]]:
        """Yield the MIG devices in no particular order."""
        for instance in self.instances.values():
            for compute in instance.compute.values():
                yield instance, compute

    def set_mode(self, *, enabled: bool) -> None:
        """Turn MIG on or off; IN_USE while there are instances."""
        self.known_geometry()
        if self.instances:
            raise NvmlStatusError(pynvml.NVML_ERROR_IN_USE)
        self.enabled = enabled

    def known_geometry(self) -> MigGeometry:
        """Return the geometry; NOT_SUPPORTED without one."""
        if self.geometry is None:
            raise NvmlStatusError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return self.geometry

    def starts(self, profile: MigProfile) -> list[int]:
        """Return where an instance could begin now."""
        geometry = self.known_geometry()
        present = list(self.instances.values())
        if sum(one.profile.slices for one in present) + profile.slices > geometry.slices:
            return []
        if sum(one.profile is profile for one in present) >= profile.most:
            return []
        taken = {at for one in present for at in range(one.start, one.start + one.profile.size)}
        return [
            start
            for start in profile.starts
            if taken.isdisjoint(range(start, start + profile.size))
        ]

    def remaining(self, profile: MigProfile) -> int:
        """Return how many more instances of a kind fit, alone."""
        geometry = self.known_geometry()
        slices = geometry.slices - sum(one.profile.slices for one in self.instances.values())
        there = sum(one.profile is profile for one in self.instances.values())
        return min(slices // profile.slices, profile.most - there, len(self.starts(profile)))

    def create(self, profile: MigProfile, start: int | None = None) -> GpuInstance:
        """Create a GPU instance, as high up as possible unless told where.

        The vendor's driver starts from the top too: what comes first leaves room below for the
        profiles that may begin at 0 only. INSUFFICIENT_RESOURCES if it does not fit.
        """
        geometry = self.known_geometry()
        if not self.enabled:
            raise NvmlStatusError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        starts = self.starts(profile)
        if not starts or start not in (None, *starts):
            raise NvmlStatusError(pynvml.NVML_ERROR_INSUFFICIENT_RESOURCES)
        at = starts[-1] if start is None else start
        instance = GpuInstance(
            number=self._take_number(),
            id=geometry.instance_id(profile, at),
            profile=profile,
            start=at,
        )
        self.instances[instance.id] = instance
        return instance

    def destroy(self, instance: GpuInstance) -> None:
        """Destroy a GPU instance; IN_USE while it has compute instances."""
        if instance.compute:
            raise NvmlStatusError(pynvml.NVML_ERROR_IN_USE)
        del self.instances[instance.id]

    def create_compute(
        self, instance: GpuInstance, slices: int, start: int | None = None
    ) -> ComputeInstance:
        """Create a compute instance; INSUFFICIENT_RESOURCES if it does not fit."""
        if slices not in COMPUTE_KEYS or slices > instance.profile.slices:
            raise NvmlStatusError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        starts = instance.compute_starts(slices)
        if not starts or start not in (None, *starts):
            raise NvmlStatusError(pynvml.NVML_ERROR_INSUFFICIENT_RESOURCES)
        taken = {compute.index for _, compute in self.devices()}
        at = starts[0] if start is None else start
        number = next(
            one for one in range(len(instance.compute) + 1) if one not in instance.compute
        )
        name = f"{self._seed}/{instance.profile.key}/{instance.id}/{slices}/{number}"
        compute = ComputeInstance(
            number=self._take_number(),
            id=number,
            slices=slices,
            start=at,
            uuid=f"MIG-{uuid_text(name)}",
            index=next(one for one in range(len(taken) + 1) if one not in taken),
        )
        instance.compute[number] = compute
        return compute

    def destroy_compute(self, instance: GpuInstance, compute: ComputeInstance) -> None:
        """Destroy a compute instance; the indexes of the others stay."""
        del instance.compute[compute.id]

    def partition(self, profiles: Sequence[MigProfile] | None) -> None:
        """Cut the GPU anew: one device for each profile; None turns MIG off.

        INSUFFICIENT_RESOURCES, and nothing has changed, if the profiles do not fit together.
        """
        self.known_geometry()
        before = self.enabled, self.instances
        self.enabled, self.instances = profiles is not None, {}
        try:
            for profile in profiles or ():
                self.create_compute(self.create(profile), profile.slices)
        except NvmlStatusError:
            self.enabled, self.instances = before
            raise


def uuid_text(seed: str) -> str:
    """Return a uuid that belongs to a name."""
    text = hashlib.sha256(seed.encode()).hexdigest()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:32]}"
