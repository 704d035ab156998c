"""What can go wrong in the scheduler.

SchedulerError(Exception)
├── NotReadyError               nothing can be decided yet: a retry will be answered
├── DemandError(ValueError)     a pod asks for something that cannot be read: key and problem
├── ProfileError(ValueError)    a profile names what does not exist, or a number out of range
├── ExtensionError(ValueError)  plugins that the user brought cannot be used: all mistakes
├── PluginError                 a plugin broke its contract: which one, and how
├── ReservationError            a set cannot be claimed: who wants it, and what stands against it
└── BindError                   a bind that did not happen: the text is the extender's answer
"""

from __future__ import annotations

from collections.abc import Sequence


class SchedulerError(Exception):
    """The root of this package's errors."""


class NotReadyError(SchedulerError):
    """Nothing can be decided yet; kube-scheduler tries again by the clock."""


class DemandError(SchedulerError, ValueError):
    """What a pod asks for cannot be read or cannot be given by anybody.

    `key` names the annotation or field, `problem` says what is wrong with its value. The text
    depends on the pod alone: kube-scheduler spins on a refusal whose text changes.
    """

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"{key}: {problem}")
        self.key = key
        self.problem = problem


class ProfileError(SchedulerError, ValueError):
    """A profile cannot be used as it is written."""

    def __init__(self, profile: str, problem: str) -> None:
        super().__init__(f"profile {profile!r}: {problem}")
        self.profile = profile
        self.problem = problem


class ExtensionError(SchedulerError, ValueError):
    """Plugins that the user brought cannot be used; `problems` holds every mistake found."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


class PluginError(SchedulerError):
    """A plugin broke its contract."""

    def __init__(self, plugin: str, problem: str) -> None:
        super().__init__(f"plugin {plugin!r}: {problem}")
        self.plugin = plugin
        self.problem = problem


class ReservationError(SchedulerError):
    """A GPU set cannot be claimed for a pod; nothing was changed."""

    def __init__(self, uid: str, node: str, problem: str) -> None:
        super().__init__(f"pod {uid} on node {node}: {problem}")
        self.uid = uid
        self.node = node
        self.problem = problem


class BindError(SchedulerError):
    """A pod was not bound, or it is not known that it was. `outcome` is the metric's label."""

    def __init__(self, problem: str, outcome: str = "error") -> None:
        super().__init__(problem)
        self.outcome = outcome
