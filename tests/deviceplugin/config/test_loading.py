"""The configuration file: who wins, what is taken, and every mistake with its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from deviceplugin.config.loading import load_config, read_config
from deviceplugin.config.model import (
    Config,
    IdStrategy,
    ListStrategy,
    MigStrategy,
    Replication,
    SharedPolicy,
)
from deviceplugin.config.options import OPTIONS, read_flags
from runtime.errors import SettingsError


def read(text: str, **env: str) -> Config:
    """Read a configuration's text under these variables."""
    return read_config(text.encode(), "c.yaml", env)


def problems_of(text: str, **env: str) -> tuple[str, ...]:
    """Return what is said of a text that is wrong."""
    with pytest.raises(SettingsError) as caught:
        read(text, **env)
    return caught.value.problems


def at(config: Config, key: tuple[str, ...]) -> Any:
    """Return the value of a key as the file writes it."""
    value: Any = config.model_dump(by_alias=True)
    for part in key:
        value = value[part]
    return value


EVERYTHING = """
version: v1
flags:
  migStrategy: mixed
  failOnInitError: true
  nvidiaDriverRoot: /run/nvidia/driver
  nvidiaDevRoot: /run/nvidia/dev
  gdrcopyEnabled: true
  gdsEnabled: true
  mofedEnabled: true
  deviceDiscoveryStrategy: nvml
  useNodeFeatureAPI: false
  gfd: {oneshot: true, noTimestamp: true, sleepInterval: 30s, outputFile: /f, machineTypeFile: /m}
  plugin:
    passDeviceSpecs: true
    deviceListStrategy: [envvar, cdi-cri]
    deviceIDStrategy: index
    cdiAnnotationPrefix: cdi.example.com/
    nvidiaCTKPath: /usr/bin/nvidia-cdi-hook
    containerDriverRoot: /host-driver
    sharedDevicesAllocationPolicy: packed
resources:
  gpus: [{pattern: "*A100*", name: a100}]
  mig: [{pattern: 1g.5gb, name: small}]
sharing:
  timeSlicing:
    renameByDefault: true
    failRequestsGreaterThanOne: true
    resources:
      - {name: nvidia.com/gpu, rename: shared-gpu, devices: all, replicas: 4}
imex: {channelIDs: [0], required: true}
"""


def test_every_key_of_the_reference_is_taken() -> None:
    """A file with all that the reference's file may have is read as it says."""
    config = read(EVERYTHING)
    assert config.flags.mig_strategy is MigStrategy.MIXED
    assert config.flags.dev_root == "/run/nvidia/dev"
    assert config.flags.plugin.device_list_strategy == (ListStrategy.ENVVAR, ListStrategy.CDI_CRI)
    assert config.flags.plugin.device_id_strategy is IdStrategy.INDEX
    assert config.flags.plugin.shared_devices_allocation_policy is SharedPolicy.PACKED
    assert [(rule.pattern, rule.name) for rule in config.resources.gpus] == [
        ("*A100*", "nvidia.com/a100")
    ]
    assert config.sharing.time_slicing is not None
    assert config.sharing.time_slicing.resources == (
        Replication(
            name="nvidia.com/gpu", rename="nvidia.com/shared-gpu", devices="all", replicas=4
        ),
    )
    assert config.imex.channel_ids == (0,)


def test_a_file_may_be_json() -> None:
    """The reference takes both, and so do we."""
    assert read(json.dumps(yaml.safe_load(EVERYTHING))) == read(EVERYTHING)


def test_no_file_is_the_default_of_everything() -> None:
    """Without a word the node offers whole GPUs by environment variable."""
    config = load_config(None)
    assert config == Config()
    assert config.flags.mig_strategy is MigStrategy.NONE
    assert config.flags.plugin.device_list_strategy == (ListStrategy.ENVVAR,)
    assert config.flags.dev_root == "/"


def test_a_flag_beats_a_variable_beats_the_file(tmp_path: Path) -> None:
    """The nearer to the command line, the stronger."""
    path = tmp_path / "c.yaml"
    path.write_text("flags: {migStrategy: single, gdsEnabled: true, nvidiaDriverRoot: /file}")
    env = {"MIG_STRATEGY": "mixed", "GDS_ENABLED": "false"}
    flags, rest = read_flags(["--mig-strategy=none"])
    config = load_config(path, env, flags)
    assert config.flags.mig_strategy is MigStrategy.NONE
    assert config.flags.gds_enabled is False
    assert config.flags.nvidia_driver_root == "/file"
    assert rest == []


SAMPLES = {
    "flags.migStrategy": "single",
    "flags.nvidiaDriverRoot": "/d",
    "flags.nvidiaDevRoot": "/e",
    "flags.mpsRoot": "/mps",
    "flags.deviceDiscoveryStrategy": "nvml",
    "flags.kubeletSocket": "/k.sock",
    "flags.plugin.deviceListStrategy": "volume-mounts",
    "flags.plugin.deviceIDStrategy": "index",
    "flags.plugin.cdiAnnotationPrefix": "x/",
    "flags.plugin.nvidiaCTKPath": "/ctk",
    "flags.plugin.containerDriverRoot": "/r",
    "flags.plugin.sharedDevicesAllocationPolicy": "packed",
    "flags.plugin.cdiFeatureFlags": "a",
    "flags.plugin.cdiDisableHooks": "all",
    "imex.channelIDs": "0",
    "health.disable": "all",
    "health.enable": "79",
}


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: ".".join(option.key))
def test_each_flag_and_each_variable_reaches_its_key(option: Any) -> None:
    """Every name that the reference knows an option by sets the same key of the file."""
    text = SAMPLES.get(".".join(option.key), "true")
    by_variable = {at(read("", **{name: text}), option.key) for name in option.variables}
    by_flag = set()
    for flag in option.flags:
        given, rest = read_flags([f"{flag}={text}"])
        assert rest == []
        by_flag.add(at(read_config(b"", "c", {}, given), option.key))
    assert len(by_variable) == 1
    assert by_flag in (by_variable, set())
    assert by_variable != {at(Config(), option.key)}


def test_switches_and_lists_are_given_as_go_programs_take_them() -> None:
    """A switch stands alone or with =, a list is repeated or joined by commas."""
    given, rest = read_flags(
        [
            "--pass-device-specs",
            "--gds-enabled=false",
            "--device-list-strategy",
            "envvar",
            "--device-list-strategy=cdi-cri,envvar",
            "--other",
            "x",
        ]
    )
    config = read_config(b"", "c", {}, given)
    assert config.flags.plugin.pass_device_specs is True
    assert config.flags.gds_enabled is False
    assert config.flags.plugin.device_list_strategy == (ListStrategy.ENVVAR, ListStrategy.CDI_CRI)
    assert rest == ["--other", "x"]


def test_an_empty_variable_says_nothing_but_for_the_kubelet_socket() -> None:
    """A manifest may set variables to nothing; only the socket's absence is a choice."""
    config = read("", MIG_STRATEGY="", KUBELET_SOCKET="", DEVICE_LIST_STRATEGY="")
    assert config.flags.mig_strategy is MigStrategy.NONE
    assert config.flags.kubelet_socket == ""
    assert Config().flags.kubelet_socket is None


def test_another_version_is_refused_and_a_missing_one_is_v1() -> None:
    """Keys of an unknown version may mean anything, so nothing else is said."""
    assert read("flags: {}").version == "v1"
    assert read("version:").version == "v1"
    assert problems_of("flagz: {}\nversion: v2") == (
        "c.yaml:2: version: version 'v2' is not known, v1 is",
    )


def test_a_strategy_is_a_text_or_a_list_and_nothing_unknown() -> None:
    """`deviceListStrategy` takes one word or several; a word that is none is refused."""
    key = "flags: {plugin: {deviceListStrategy: %s}}"
    assert read(key % "cdi-cri").flags.plugin.device_list_strategy == (ListStrategy.CDI_CRI,)
    assert read(key % "[envvar, envvar]").flags.plugin.device_list_strategy == (
        ListStrategy.ENVVAR,
    )
    assert "volume-mounts" in problems_of(key % "mounts")[0]
    assert "empty" in problems_of(key % "[]")[0]


SHARING = "sharing: {timeSlicing: {resources: [%s]}}"


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("{name: gpu, replicas: 1}", "replicas: Input should be greater than or equal to 2"),
        ("{replicas: 2}", "name: is needed"),
        ("{name: gpu}", "replicas: is needed"),
        ("{name: GPU, replicas: 2}", "lower-case"),
        ("{name: gpu, replicas: 2, devices: 0}", "at least 1"),
        ("{name: gpu, replicas: 2, devices: -1}", "at least 1"),
        ("{name: gpu, replicas: 2, devices: some}", "want all"),
        ("{name: gpu, replicas: 2, devices: true}", "want all"),
        ("{name: gpu, replicas: 2, devices: []}", "names no device"),
        ("{name: gpu, replicas: 2, devices: [x]}", "a device is an index"),
        ("{name: gpu, replicas: 2, devices: [-1]}", "a device is an index"),
        ("{name: gpu, replicas: 2, devices: [GPU-1]}", "a device is an index"),
    ],
)
def test_what_cannot_be_shared_is_refused(rule: str, said: str) -> None:
    """Replicas below two, missing keys and words that name no devices are mistakes."""
    problems = problems_of(SHARING % rule)
    assert any(said in problem for problem in problems), problems
    assert all(problem.startswith("c.yaml:1: ") for problem in problems)


def test_sharing_nothing_is_a_mistake() -> None:
    """A list of resources that is empty or missing is refused."""
    assert "the list is empty" in problems_of(SHARING % "")[0]
    assert "is needed" in problems_of("sharing: {timeSlicing: {}}")[0]


@pytest.mark.parametrize(
    ("text", "devices"),
    [
        ("all", "all"),
        ("2", 2),
        ("[0, 3]", ("0", "3")),
        ("[0:1, 1:2]", ("0:1", "1:2")),
        ('["0:1"]', ("0:1",)),
        ("[GPU-0-a-b-c-d]", ("GPU-0-a-b-c-d",)),
        ("[MIG-0-a-b-c-d, MIG-GPU-0-a-b-c-d/1/0]", ("MIG-0-a-b-c-d", "MIG-GPU-0-a-b-c-d/1/0")),
    ],
)
def test_devices_are_named_in_every_way_of_the_reference(text: str, devices: object) -> None:
    """All, a count, indexes, MIG indexes (never read as numbers of base 60) and uuids."""
    config = read(SHARING % f"{{name: gpu, replicas: 2, devices: {text}}}")
    assert config.sharing.time_slicing is not None
    assert config.sharing.time_slicing.resources[0].devices == devices


@pytest.mark.parametrize("channels", ["[1]", "[0, 1]", "[0, 0]", "0"])
def test_there_is_one_imex_channel(channels: str) -> None:
    """Only [] and [0] are taken."""
    assert problems_of(f"imex: {{channelIDs: {channels}}}")
    assert read("imex: {channelIDs: []}").imex.channel_ids == ()
    assert read("", IMEX_CHANNEL_IDS="0").imex.channel_ids == (0,)


@pytest.mark.parametrize("strategy", ["tegra", "vfio", "vgpu", "wsl"])
def test_what_is_not_supported_is_refused_by_name(strategy: str) -> None:
    """Tegra, GPUs for virtual machines and WSL are told apart from a slip of the pen."""
    (problem,) = problems_of("", DEVICE_DISCOVERY_STRATEGY=strategy)
    assert problem.startswith("DEVICE_DISCOVERY_STRATEGY: flags.deviceDiscoveryStrategy: ")
    assert "is not supported" in problem


def test_mps_has_its_conditions() -> None:
    """MPS needs its folder, does not go with the mixed strategy, and shares no MIG instance."""
    mps = "sharing: {mps: {resources: [{name: %s, replicas: 2}]}}\nflags: {%s}"
    assert "mpsRoot" in problems_of(mps % ("gpu", ""))[0]
    assert "mixed" in problems_of(mps % ("gpu", "mpsRoot: /m, migStrategy: mixed"))[0]
    assert "MIG instances" in problems_of(mps % ("mig-1g.5gb", "mpsRoot: /m"))[0]
    assert read(mps % ("gpu", "mpsRoot: /m")).sharing.mps is not None


def test_all_mistakes_are_told_at_once_each_with_its_line() -> None:
    """Unknown keys, wrong words in file, variable and flag: one reading tells them all."""
    text = "flags:\n  migStrategi: x\n  gdsEnabled: perhaps\nimex:\n  channelIDs: [7]\n"
    given, _ = read_flags(["--device-id-strategy=name"])
    with pytest.raises(SettingsError) as caught:
        read_config(text.encode(), "c.yaml", {"MIG_STRATEGY": "all"}, given)
    told = caught.value.problems
    assert "c.yaml:2: flags.migStrategi: there is no such key; migStrategy is meant?" in told
    assert any(line.startswith("c.yaml:3: flags.gdsEnabled: ") for line in told)
    assert any(line.startswith("c.yaml:4: imex: channelIDs") for line in told)
    assert any(line.startswith("MIG_STRATEGY: flags.migStrategy: ") for line in told)
    assert any(
        line.startswith("--device-id-strategy: flags.plugin.deviceIDStrategy: ") for line in told
    )
    assert len(told) == 5


def test_a_resource_has_a_name_that_kubelet_takes() -> None:
    """Names get the reference's domain; others' domains stand, kubernetes.io's do not."""
    rules = "resources: {gpus: [{pattern: '*', name: %s}]}"
    assert read(rules % "a100").resources.gpus[0].name == "nvidia.com/a100"
    assert read(rules % "example.com/gpu").resources.gpus[0].name == "example.com/gpu"
    assert "kubelet takes no" in problems_of(rules % "kubernetes.io/gpu")[0]
    assert "at most 63" in problems_of(rules % ("x" * 60))[0]


def test_a_key_without_a_value_is_absent() -> None:
    """Templates leave keys behind; they say nothing."""
    assert read("flags:\n  migStrategy:\n  plugin:\nsharing:\nresources: {gpus: }\n") == Config()
