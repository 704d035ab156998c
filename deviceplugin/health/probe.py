"""Asks every GPU whether it answers, how it fares and how it is cut."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from deviceplugin.errors import NvmlError
from deviceplugin.health.record import Fault, fault_of_loss, fault_of_probe
from deviceplugin.nvml.interface import Code, Nvml, Vitals

LOST: Final = (Code.GPU_IS_LOST, Code.GPU_NOT_FOUND, Code.NOT_FOUND, Code.RESET_REQUIRED)
"""What a GPU answers, or NVML in its place, that is not there any more."""

Cut = tuple[str, ...] | None
"""The uuids of a GPU's MIG devices, None for a GPU that is not in MIG mode."""


class Answer(msgspec.Struct, frozen=True):
    """What a GPU said."""

    vitals: Vitals
    cut: Cut


class Round(msgspec.Struct, frozen=True):
    """What all GPUs said, by uuid: answers, and what is wrong with those that gave none.

    `failed` counts the calls that failed, also of GPUs that did not even tell their uuid.
    """

    answers: dict[str, Answer]
    sick: dict[str, Fault]
    failed: int = 0


def ask_all(nvml: Nvml, beat: Callable[[str, str], None]) -> Round:
    """Ask every GPU; `beat` is told before each, so that a hanging call can be named.

    Raises NvmlError if NVML as a whole does not answer.
    """
    answers: dict[str, Answer] = {}
    sick: dict[str, Fault] = {}
    failed = 0
    for index in range(nvml.count()):
        uuid = ""
        beat(f"asking GPU {index} who it is", "")
        try:
            device = nvml.device(index)
            uuid = nvml.uuid(device)
            beat(f"asking GPU {index} how it fares", uuid)
            nvml.memory_mib(device)
            answers[uuid] = Answer(
                vitals=nvml.vitals(device),
                cut=tuple(one.uuid for one in nvml.mig_devices(device))
                if nvml.mig_mode(device)
                else None,
            )
        except NvmlError as error:
            failed += 1
            if uuid:
                lost = error.code in LOST
                sick[uuid] = fault_of_loss(str(error)) if lost else fault_of_probe(str(error))
            elif error.code not in LOST:
                # Not one GPU's affair: the driver was unloaded, or loaded anew.
                _raise_if_dead(nvml, error)
    beat("probe done", "")
    return Round(answers, sick, failed)


def _raise_if_dead(nvml: Nvml, error: NvmlError) -> None:
    """Raise the error if NVML cannot even tell its driver any more."""
    if error.code == Code.UNINITIALIZED:
        raise error
    nvml.driver_version()
