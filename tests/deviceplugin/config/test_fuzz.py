"""Whatever a configuration file, a flag or a variable is: a value, or lines that say why not."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from deviceplugin.config.health import xid_responses
from deviceplugin.config.loading import read_config
from deviceplugin.config.model import Config
from deviceplugin.config.options import OPTIONS, read_flags
from deviceplugin.resources.inventory import Inventory
from deviceplugin.resources.stock import take_stock
from runtime.errors import SettingsError
from tests.deviceplugin.nodes import machine
from tests.deviceplugin.resources.nodes import cut

_KEYS = st.sampled_from(
    [
        "version",
        "flags",
        "resources",
        "sharing",
        "imex",
        "gpus",
        "health",
        "migStrategy",
        "plugin",
        "deviceListStrategy",
        "deviceIDStrategy",
        "passDeviceSpecs",
        "mpsRoot",
        "timeSlicing",
        "mps",
        "renameByDefault",
        "replicas",
        "rename",
        "devices",
        "name",
        "pattern",
        "mig",
        "channelIDs",
        "required",
        "include",
        "exclude",
        "policy",
        "disable",
        "enable",
        "xids",
        "holdSeconds",
        "failRequestsGreaterThanOne",
        "distinctGPUs",
        "gfd",
        "failOnInitError",
    ]
)
_WORDS = st.sampled_from(
    [
        "v1",
        "none",
        "single",
        "mixed",
        "envvar",
        "cdi-cri",
        "volume-mounts",
        "uuid",
        "index",
        "all",
        "0",
        "1",
        "0:1",
        "1:2",
        "-1",
        "true",
        "~",
        "*",
        "gpu",
        "nvidia.com/gpu",
        "mig-1g.5gb",
        "1g.5gb",
        "GPU-0-1-2-3-4",
        "MIG-GPU-0-1-2-3-4/1/0",
        "reference",
        "1e999",
        ".inf",
        "0x10",
        "1:30:00",
        "2001-01-01",
        "unhealthy",
    ]
)
_SCALARS = st.one_of(
    _WORDS, st.text(max_size=8), st.integers(), st.floats(), st.booleans(), st.none()
)
_VALUES: st.SearchStrategy[Any] = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS, inner, max_size=5),
    max_leaves=24,
)
_RULE = st.fixed_dictionaries(
    {"name": _WORDS, "replicas": st.integers(-1, 60)},
    optional={"devices": _VALUES, "rename": _WORDS},
)
_LIKELY = st.fixed_dictionaries(
    {},
    optional={
        "version": st.sampled_from(["v1", "v2", 1, None]),
        "flags": st.fixed_dictionaries(
            {},
            optional={
                "migStrategy": st.sampled_from(["none", "single", "mixed"]),
                "mpsRoot": st.just("/m"),
                "plugin": st.dictionaries(_KEYS, _WORDS, max_size=3),
            },
        ),
        "sharing": st.dictionaries(
            st.sampled_from(["timeSlicing", "mps"]),
            st.fixed_dictionaries({"resources": st.lists(_RULE, max_size=3)}),
            max_size=2,
        ),
        "resources": st.dictionaries(
            st.sampled_from(["gpus", "mig"]),
            st.lists(st.fixed_dictionaries({"pattern": _WORDS, "name": _WORDS}), max_size=3),
        ),
        "gpus": st.dictionaries(
            st.sampled_from(["include", "exclude"]), st.lists(_WORDS, max_size=3)
        ),
        "health": st.dictionaries(_KEYS, _VALUES, max_size=3),
    },
)


def read(text: bytes) -> Config | tuple[str, ...]:
    """Return the configuration, or what is said; whatever else is raised fails the test."""
    return read_under(text, {}, [])


def read_under(text: bytes, env: dict[str, str], words: list[str]) -> Config | tuple[str, ...]:
    """Return the configuration under variables and flags, or what is said."""
    flags, _ = read_flags(words)
    problems: tuple[str, ...] = ()
    try:
        return read_config(text, "c.yaml", env, flags)
    except SettingsError as error:
        problems = error.problems
    assert problems
    assert all(problem.strip() for problem in problems)
    return problems


def use(config: Config) -> None:
    """Let a configuration decide on nodes of every kind."""
    mig = cut(0, "1g.5gb", "1c.3g.20gb") | cut(1)
    for inventory in (Inventory(), Inventory(machine(2)), Inventory(machine(3), {"g2": "x"}, mig)):
        stock = take_stock(inventory, config)
        ids = [one.id for each in stock.division.resources.values() for one in each.devices]
        assert len(set(ids)) == len(ids)
    xid_responses(config.health)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_bytes_are_no_configuration(data: bytes) -> None:
    """Bytes of any kind are read or refused."""
    read(data)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="{}[]:,-&*!#|>%@`'\"\n \t?~0a1.", max_size=60))
def test_broken_yaml_is_refused(text: str) -> None:
    """Texts of YAML's own marks are read or refused, anchors that go in circles included."""
    read(text.encode())


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(_KEYS, _VALUES, max_size=6) | _LIKELY)
def test_any_values_under_the_keys_are_taken_or_refused(values: dict[str, Any]) -> None:
    """What is taken divides every node without a device that stands twice."""
    found = read(msgspec.yaml.encode(values))
    if isinstance(found, Config):
        use(found)


@settings(max_examples=200, deadline=None)
@given(
    env=st.dictionaries(
        st.sampled_from([name for option in OPTIONS for name in option.variables]),
        _WORDS | st.text(max_size=8),
        max_size=4,
    ),
    words=st.lists(
        st.sampled_from([flag for option in OPTIONS for flag in option.flags])
        | _WORDS.map(lambda word: f"--mig-strategy={word}")
        | st.text(max_size=8),
        max_size=6,
    ),
)
def test_any_command_line_is_taken_or_refused(env: dict[str, str], words: list[str]) -> None:
    """Flags without values, twice, unknown; variables with anything in them."""
    found = read_under(b"", env, words)
    if isinstance(found, Config):
        use(found)


def test_a_bomb_of_references_is_refused_at_once() -> None:
    """Lines that refer to each other cannot make more values than a ConfigMap could hold."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert read("\n".join(lines).encode()) == ("c.yaml: more than 100000 values",)


def test_what_is_nested_too_deep_is_refused() -> None:
    """Ten thousand brackets are a mistake, not the process's end."""
    assert read(b"[" * 10_000) == ("c.yaml: nested too deep",)
    assert read(b"x: " + b"y" * (1 << 20)) == ("c.yaml: longer than 1 MiB",)
