"""How products can be cut into MIG instances, as data.

Numbers of slices, placements and engines are those of the vendor's MIG tables for A100, A30 and
H100; later products of eight memory slices are cut as H100 is.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

from mock_nvml.products import Product

_DRIVERS_SHARE: Final = {1: 256, 2: 384, 4: 512, 8: 768}
"""MiB of an instance that are not the user's, by memory slices; A100's own numbers."""


class MigProfile(msgspec.Struct, frozen=True):
    """One kind of GPU instance.

    `key` is NVML's NVML_GPU_INSTANCE_PROFILE_*, `id` the number that creation wants. `size` counts
    memory slices, `starts` says where it may begin, `most` how many there can be at once.
    `engines` are copy, decoder, encoder, JPEG and OFA.
    """

    key: int
    id: int
    slices: int
    size: int
    starts: tuple[int, ...]
    most: int
    multiprocessors: int
    engines: tuple[int, int, int, int, int]
    media: bool = False

    def multiprocessors_of(self, slices: int) -> int:
        """Return the share of some of its compute slices."""
        return self.multiprocessors * slices // self.slices


class MigGeometry(msgspec.Struct, frozen=True):
    """How a product can be cut: compute slices, memory slices, and the profiles."""

    slices: int
    memory_slices: int
    profiles: tuple[MigProfile, ...]

    def by_key(self, key: int) -> MigProfile | None:
        """Return the profile with NVML's number of a kind."""
        return next((profile for profile in self.profiles if profile.key == key), None)

    def by_id(self, number: int) -> MigProfile | None:
        """Return the profile with the number that creation wants."""
        return next((profile for profile in self.profiles if profile.id == number), None)

    def instance_id(self, profile: MigProfile, start: int) -> int:
        """Return the id of an instance: it follows from where it lies, the whole GPU is 0."""
        return self.memory_slices // profile.size - 1 + start // profile.size


_EIGHTHS: Final = MigGeometry(
    slices=7,
    memory_slices=8,
    profiles=(
        MigProfile(0, 19, 1, 1, tuple(range(7)), 7, 14, (1, 0, 0, 0, 0)),
        MigProfile(7, 20, 1, 1, tuple(range(7)), 1, 14, (1, 1, 0, 1, 1), media=True),
        MigProfile(9, 15, 1, 2, (0, 2, 4, 6), 4, 14, (1, 1, 0, 0, 0)),
        MigProfile(1, 14, 2, 2, (0, 2, 4), 3, 28, (2, 1, 0, 0, 0)),
        MigProfile(2, 9, 3, 4, (0, 4), 2, 42, (3, 2, 0, 0, 0)),
        MigProfile(3, 5, 4, 4, (0,), 1, 56, (4, 2, 0, 0, 0)),
        MigProfile(4, 0, 7, 8, (0,), 1, 98, (7, 5, 0, 1, 1)),
    ),
)

_HOPPER: Final = MigGeometry(
    slices=7,
    memory_slices=8,
    profiles=(
        MigProfile(0, 19, 1, 1, tuple(range(7)), 7, 16, (1, 1, 0, 1, 0)),
        MigProfile(7, 20, 1, 1, tuple(range(7)), 1, 16, (1, 1, 0, 1, 1), media=True),
        MigProfile(9, 15, 1, 2, (0, 2, 4, 6), 4, 26, (1, 1, 0, 1, 0)),
        MigProfile(1, 14, 2, 2, (0, 2, 4), 3, 32, (2, 2, 0, 2, 0)),
        MigProfile(2, 9, 3, 4, (0, 4), 2, 60, (3, 3, 0, 3, 0)),
        MigProfile(3, 5, 4, 4, (0,), 1, 64, (4, 4, 0, 4, 0)),
        MigProfile(4, 0, 7, 8, (0,), 1, 132, (8, 7, 0, 7, 1)),
    ),
)

_QUARTERS: Final = MigGeometry(
    slices=4,
    memory_slices=4,
    profiles=(
        MigProfile(0, 14, 1, 1, (0, 1, 2, 3), 4, 14, (1, 0, 0, 0, 0)),
        MigProfile(7, 21, 1, 1, (0, 1, 2, 3), 1, 14, (1, 1, 0, 1, 1), media=True),
        MigProfile(1, 5, 2, 2, (0, 2), 2, 28, (2, 2, 0, 0, 0)),
        MigProfile(8, 6, 2, 2, (0, 2), 1, 28, (2, 2, 0, 1, 1), media=True),
        MigProfile(3, 0, 4, 4, (0,), 1, 56, (4, 4, 0, 1, 1)),
    ),
)

COMPUTE_KEYS: Final = {1: 0, 2: 1, 3: 2, 4: 3, 7: 4}
"""NVML_COMPUTE_INSTANCE_PROFILE_* by compute slices; creation wants the same number."""


def geometry_of(product: Product) -> MigGeometry | None:
    """Return how a product can be cut, None if it cannot."""
    if "mig" not in product.features:
        return None
    if "quarters" in product.features:
        return _QUARTERS
    return _EIGHTHS if product.architecture == 7 else _HOPPER


def instance_memory_mib(product: Product, geometry: MigGeometry, profile: MigProfile) -> int:
    """Return the memory of an instance in MiB, the driver's share taken off."""
    return (
        product.memory_mib * profile.size // geometry.memory_slices - _DRIVERS_SHARE[profile.size]
    )


def profile_name(
    product: Product, geometry: MigGeometry, profile: MigProfile, compute_slices: int | None = None
) -> str:
    """Return the name as tools print it: ``3g.20gb``, ``1g.5gb+me``, ``1c.3g.20gb``.

    The gigabytes are the share of the whole, rounded; they are not the instance's own memory.
    """
    whole = math.ceil(product.memory_mib / 1024)
    gigabytes = int(whole * profile.size / geometry.memory_slices + 0.5)
    part = "" if compute_slices in (None, profile.slices) else f"{compute_slices}c."
    return f"{part}{profile.slices}g.{gigabytes}gb{'+me' if profile.media else ''}"


def named_profiles(product: Product) -> dict[str, MigProfile]:
    """Return the profiles of a product by name; {} for one that cannot be cut.

    >>> from mock_nvml.products import find_product
    >>> sorted(named_profiles(find_product("H200")))[:3]
    ['1g.18gb', '1g.18gb+me', '1g.35gb']
    """
    geometry = geometry_of(product)
    if geometry is None:
        return {}
    return {profile_name(product, geometry, one): one for one in geometry.profiles}
