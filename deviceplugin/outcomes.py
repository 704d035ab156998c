"""How things came out: the words that metrics are labelled with, and answers explained by."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

OK: Final = "ok"
FAILED: Final = "failed"
REFUSED: Final = "refused"


class Outcome(StrEnum):
    """How near the answer came to what was wanted."""

    EXACT = "exact"  # the set that the pod was bound with
    BEST = "best"  # nothing was wanted: the best set there is
    DRIFT = "drift"  # something was wanted, or must be assumed to have been, and was not met


class Drift(StrEnum):
    """Why a container does not get the set that its pod was bound with."""

    NO_POD = "no_pod"  # PodResources shows no pod that could be asking
    AMBIGUOUS_POD = "ambiguous_pod"  # more than one pod could be asking
    POD_RESOURCES = "pod_resources"  # kubelet's PodResources did not answer
    API_SERVER = "api_server"  # the asking pod is not in the watch yet, and the GET failed
    BROKEN_ANNOTATION = "broken_annotation"  # it does not decode, or names a GPU unknown here
    CONTAINER_MISSING = "container_missing"  # the annotation has no set for this container
    WRONG_SIZE = "wrong_size"  # the set has another size than kubelet asks for
    NOT_OFFERED = "not_offered"  # kubelet does not offer one of its GPUs, or another pod has it
    UNHEALTHY = "unhealthy"  # one of its GPUs has failed since the pod was bound
    MUST_INCLUDE = "must_include"  # kubelet insists on a GPU outside the set
    BAD_REQUEST = "bad_request"  # the question contradicts itself: kubelet is left to choose
    INTERNAL = "internal"  # a fault of ours: kubelet is left to choose
