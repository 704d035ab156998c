"""Names of resources, patterns that match products and profiles, and words for single devices."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import AfterValidator

DOMAIN: Final = "nvidia.com"
LONGEST: Final = 63
"""Characters of a resource's name, its domain included; the reference's own limit."""

GPU_UUID: Final = re.compile(r"GPU(-[0-9a-f]+){5}")
MIG_UUID: Final = re.compile(r"MIG(-[0-9a-f]+){5}")
LEGACY_MIG_UUID: Final = re.compile(r"MIG-(GPU(?:-[0-9a-f]+){5})/([0-9]+)/([0-9]+)")
"""Before driver 470: the GPU's uuid, the GPU instance, the compute instance."""

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_INDEX = re.compile(r"[0-9]+(:[0-9]+)?")
_PCI = re.compile(r"([0-9a-fA-F]{4,8}:)?[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7]")


def full_name(text: str) -> str:
    """Return a resource's name with its domain; raises ValueError.

    >>> full_name("gpu"), full_name("example.com/a100")
    ('nvidia.com/gpu', 'example.com/a100')
    """
    domain, slash, name = text.rpartition("/")
    if not slash:
        domain = DOMAIN
    whole = f"{domain}/{name}"
    if not _SUBDOMAIN.fullmatch(name) or not _SUBDOMAIN.fullmatch(domain):
        raise ValueError("a resource is named like nvidia.com/gpu: lower-case words, - and .")
    if "." not in domain or domain.endswith("kubernetes.io"):
        raise ValueError(f"kubelet takes no resource of the domain {domain!r} from a plugin")
    if len(whole) > LONGEST:
        raise ValueError(f"{whole!r} has {len(whole)} characters, at most {LONGEST} are allowed")
    return whole


ResourceName = Annotated[str, AfterValidator(full_name)]


def matches(pattern: str, text: str) -> bool:
    """Return whether a pattern matches all of a text; ``*`` stands for anything.

    >>> matches("1g.5gb", "1g.5gb+me"), matches("*A100*", "NVIDIA A100-SXM4-40GB")
    (False, True)
    """
    parts = (re.escape(part) for part in pattern.split("*"))
    return re.fullmatch(".*".join(parts), text, re.DOTALL) is not None


def check_device(word: object) -> str:
    """Return a word that names devices: an index, ``gpu:mig``, or a uuid; raises ValueError."""
    if isinstance(word, int) and not isinstance(word, bool) and word >= 0:
        return str(word)
    if isinstance(word, str) and any(
        form.fullmatch(word) for form in (_INDEX, GPU_UUID, MIG_UUID, LEGACY_MIG_UUID)
    ):
        return word
    raise ValueError("a device is an index, gpu:mig, or a uuid")


def check_gpu(word: object) -> str:
    """Return a word that names GPUs: index, uuid, PCI address, or a pattern of the model."""
    if isinstance(word, int) and not isinstance(word, bool) and word >= 0:
        return str(word)
    if isinstance(word, str) and (
        "*" in word or word.isdecimal() or GPU_UUID.fullmatch(word) or _PCI.fullmatch(word)
    ):
        return word
    raise ValueError("a GPU is an index, a uuid, a PCI address, or a pattern with * of its model")


def normalise_mig_name(profile: str) -> str:
    """Return the resource of a MIG profile under the mixed strategy, without its domain.

    >>> normalise_mig_name("1g.5gb+me")
    'mig-1g.5gb.me'
    """
    return "mig-" + profile.replace("+", ".").lower()
