"""What can go wrong when somebody asks why.

ExplainError(Exception)             `status` is the HTTP status of the answer
├── UnknownPodError                 404: no decision about such a pod is known
├── UnaskedError                    404: it waits, and kube-scheduler has not asked us about it
├── UnknownNodeError                404: no such node
├── ExpiredError                    410: there was a record; it is too old
├── BadRequestError(ValueError)     400: the question does not read: where, and why
│   └── NotThereError               404: it reads, and names something that does not exist
├── TokenError                      401: no token, or not ours
├── ForbiddenError                  403: a token of somebody who may not read decisions
├── StrangerError                   421: asked for over the loopback by a name that is not its own
├── ReviewError                     503: the API server does not say whose token it is
└── LeaderError                     503: this replica does not decide, and the one that does is
                                    not to be had
"""

from __future__ import annotations


class ExplainError(Exception):
    """The root of this package's errors; `status` is the HTTP status of the answer."""

    status = 500


class UnknownPodError(ExplainError):
    """No decision about such a pod is known."""

    status = 404

    def __init__(self, namespace: str, name: str) -> None:
        super().__init__(
            f"pod {namespace}/{name}: no decision about it is known; gputopo was not asked about "
            "such a pod since it started"
        )


class UnaskedError(ExplainError):
    """The pod waits, and no decision is known: kube-scheduler's own filters may have refused it."""

    status = 404

    def __init__(self, namespace: str, name: str, reason: str) -> None:
        super().__init__(
            f"pod {namespace}/{name}: waits, and gputopo was not asked about it: {reason}"
        )


class UnknownNodeError(ExplainError):
    """There is no such node in the inventory."""

    status = 404

    def __init__(self, node: str) -> None:
        super().__init__(f"node {node}: is not in the inventory")


class ExpiredError(ExplainError):
    """There was a record of the pod. Ages are in seconds."""

    status = 410

    def __init__(self, namespace: str, name: str, age: float, kept: float) -> None:
        super().__init__(
            f"pod {namespace}/{name}: its last decision is {age:.0f} s old, and records are kept "
            f"for {kept:.0f} s at most"
        )


class BadRequestError(ExplainError, ValueError):
    """The question cannot be read; `place` names the parameter or field."""

    status = 400

    def __init__(self, place: str, problem: str) -> None:
        super().__init__(f"{place}: {problem}")
        self.place = place
        self.problem = problem


class NotThereError(BadRequestError):
    """The question reads, and names something that does not exist; `place` says where."""

    status = 404


class TokenError(ExplainError):
    """A bearer token is wanted."""

    status = 401

    def __init__(self, problem: str) -> None:
        super().__init__(f"{problem}; wanted: Authorization: Bearer <token>")
        self.problem = problem


class ForbiddenError(ExplainError):
    """The token's owner may not read decisions."""

    status = 403

    def __init__(self, user: str) -> None:
        super().__init__(
            f"{user} may not get decisions.gputopo.dev; the ClusterRole gputopo-explain-reader "
            "gives the right"
        )


class StrangerError(ExplainError):
    """Who needs no token and asks for a foreign name may be the tool of a foreign page."""

    status = 421

    def __init__(self, host: str) -> None:
        super().__init__(
            f"host {host[:100]!r}: without a token it is to be asked for by localhost or 127.0.0.1"
        )


class ReviewError(ExplainError):
    """The API server does not say whose token it is, or what he may."""

    status = 503

    def __init__(self, problem: str) -> None:
        super().__init__(f"the API server cannot be asked about the token: {problem}")


class LeaderError(ExplainError):
    """This replica does not decide, and the one that does cannot be asked."""

    status = 503
