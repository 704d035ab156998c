"""The reference's flags and variables, as data: where in the file each of them belongs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec

TRUE: Final = "true"


class Option(msgspec.Struct, frozen=True):
    """A flag with its other names, its variables, and the key of the file that it overrides.

    A `switch` given without a value means true. `empty` says that an empty text is a value.
    """

    flags: tuple[str, ...]
    variables: tuple[str, ...]
    key: tuple[str, ...]
    switch: bool = False
    empty: bool = False
    many: bool = False


def _option(
    flag: str, key: str, *others: str, switch: bool = False, empty: bool = False, many: bool = False
) -> Option:
    """Make an option; its variables are the flags' names in capitals."""
    flags = (flag, *others)
    return Option(
        flags=tuple(f"--{name}" for name in flags),
        variables=tuple(name.upper().replace("-", "_") for name in flags),
        key=tuple(key.split(".")),
        switch=switch,
        empty=empty,
        many=many,
    )


OPTIONS: Final = (
    _option("mig-strategy", "flags.migStrategy"),
    _option("fail-on-init-error", "flags.failOnInitError", switch=True),
    _option("nvidia-driver-root", "flags.nvidiaDriverRoot", "driver-root"),
    _option("nvidia-dev-root", "flags.nvidiaDevRoot", "dev-root"),
    _option("pass-device-specs", "flags.plugin.passDeviceSpecs", switch=True),
    _option("device-list-strategy", "flags.plugin.deviceListStrategy", many=True),
    _option("device-id-strategy", "flags.plugin.deviceIDStrategy"),
    _option("gdrcopy-enabled", "flags.gdrcopyEnabled", switch=True),
    _option("gds-enabled", "flags.gdsEnabled", switch=True),
    _option("mofed-enabled", "flags.mofedEnabled", switch=True),
    _option("cdi-annotation-prefix", "flags.plugin.cdiAnnotationPrefix"),
    _option("nvidia-cdi-hook-path", "flags.plugin.nvidiaCTKPath", "nvidia-ctk-path"),
    _option("driver-root-ctr-path", "flags.plugin.containerDriverRoot", "container-driver-root"),
    _option("mps-root", "flags.mpsRoot"),
    _option("shared-devices-allocation-policy", "flags.plugin.sharedDevicesAllocationPolicy"),
    _option("device-discovery-strategy", "flags.deviceDiscoveryStrategy"),
    _option("imex-channel-ids", "imex.channelIDs", many=True),
    _option("imex-required", "imex.required", switch=True),
    _option("kubelet-socket", "flags.kubeletSocket", empty=True),
    _option("cdi-feature-flags", "flags.plugin.cdiFeatureFlags", many=True),
    _option("cdi-disable-hooks", "flags.plugin.cdiDisableHooks", many=True),
    Option((), ("DP_DISABLE_HEALTHCHECKS",), ("health", "disable")),
    Option((), ("DP_ENABLE_HEALTHCHECKS",), ("health", "enable")),
)

CONFIG_FILE: Final = "CONFIG_FILE"

_BY_FLAG: Final = {flag: option for option in OPTIONS for flag in option.flags}

Given = tuple[Option, str, str]
"""An option, the name that it was given by, and its text."""


def read_flags(words: Iterable[str]) -> tuple[list[Given], list[str]]:
    """Split a command line's words into the reference's options and all others."""
    found: dict[tuple[str, ...], Given] = {}
    others: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        name, equals, text = word.partition("=")
        option = _BY_FLAG.get(name)
        if option is None:
            others.append(word)
            continue
        if not equals:
            # As with Go's flags: a switch never takes the word that follows.
            text = TRUE if option.switch or not left else left.pop(0)
        if option.many and option.key in found:
            text = f"{found[option.key][2]},{text}"
        found[option.key] = (option, name, text)
    return list(found.values()), others


def read_variables(env: Mapping[str, str]) -> Iterator[Given]:
    """Yield what the environment says; an empty variable says nothing unless that is a value."""
    for option in OPTIONS:
        for name in option.variables:
            text = env.get(name)
            if text is not None and (text or option.empty):
                yield option, name, text
                break
