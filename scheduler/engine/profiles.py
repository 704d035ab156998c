"""The built-in profiles: how nodes are weighed, and how a set is chosen on the node.

Weights are of scores on the scale 0 to 1 and count by their ratios. `gputopo`, the default, leaves
little GPU unusable and hands out fast sets: docs/simulation.md shows both on a trace. `training`
takes the fastest machine and then the one that loses least; `inference` and `pack` protect what is
left; `spread` keeps nodes empty.
"""

from __future__ import annotations

from typing import Final

import msgspec

from topology.profiles import INFERENCE, PACK, SPREAD, TRAINING
from topology.profiles import Profile as Policy


class Profile(msgspec.Struct, frozen=True):
    """A named way to weigh nodes.

    `weights` are (score plugin, weight); `tolerance` is how far below the best total (0 to 1) a
    node may lie and still stand in the shortlist; `policy` chooses the set within a node.
    """

    name: str
    weights: tuple[tuple[str, float], ...]
    tolerance: float
    policy: Policy


_WEIGHTS: Final = {
    "gputopo": (
        (
            ("fragmentation", 1.0),
            ("balance", 1.0),
            ("model_fit", 1.0),
            ("link_quality", 1.0),
            ("link_loss", 0.2),
        ),
        TRAINING,
    ),
    "training": (
        (("link_quality", 6.0), ("link_loss", 3.0), ("packing", 1.0)),
        TRAINING,
    ),
    "inference": (
        (("link_loss", 6.0), ("packing", 3.0), ("link_quality", 1.0)),
        INFERENCE,
    ),
    "pack": ((("link_loss", 5.0), ("packing", 5.0)), PACK),
    "spread": ((("spreading", 8.0), ("link_loss", 2.0)), SPREAD),
}

DEFAULT_PROFILE: Final = "gputopo"
"""What pods get that name no profile."""

# Nodes whose totals differ by no more than rounding are equals, and kube-scheduler may decide
# between them. More would let its random tie-breaks undo the packing, and the default's scores
# tell thousandths of a GPU apart.
BUILT_IN: Final = {
    name: Profile(
        name=name,
        weights=weights,
        tolerance=0.0 if name == DEFAULT_PROFILE else 0.001,
        policy=policy,
    )
    for name, (weights, policy) in _WEIGHTS.items()
}
