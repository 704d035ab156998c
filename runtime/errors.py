"""What can go wrong around the daemons' work.

RuntimeFault(Exception)
├── KubeError
│   ├── ApiError            the API server answered with an error: status, reason, message
│   │   ├── NotFoundError   404
│   │   ├── ConflictError   409: exists already, stale version, already bound
│   │   └── GoneError       410: the version or the continue token is too old
│   ├── UnreachableError    no answer: refused, reset, cut, silent for too long
│   └── AccessError         no usable kubeconfig or service account
├── SettingsError           also ValueError: every wrong setting with its place
├── TracingError            spans are to be sent, and what sends them is not installed
├── QuantityError           also ValueError: not a Kubernetes quantity
└── WorkerEndedError        a thread or task that must run for ever has ended
"""

from __future__ import annotations

from collections.abc import Sequence

MESSAGE_LIMIT = 300
"""Characters of a server's message that are kept: a log line must not carry whole objects."""


class RuntimeFault(Exception):  # noqa: N818 -- the root is never raised itself
    """The root of this package's errors."""


class KubeError(RuntimeFault):
    """Talking to the API server failed."""


class ApiError(KubeError):
    """The API server answered with an error.

    `status` is the HTTP code, `reason` the one-word reason of the Status object (``Forbidden``),
    `message` its text, cut to 300 characters and empty when the body was not a Status object.
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        text = message if len(message) <= MESSAGE_LIMIT else message[:MESSAGE_LIMIT] + "..."
        super().__init__(f"{status} {reason}: {text}" if text else f"{status} {reason}")
        self.status = status
        self.reason = reason
        self.message = text


class NotFoundError(ApiError):
    """404: there is no such object."""


class ConflictError(ApiError):
    """409: the object exists, has changed meanwhile, or is bound already."""


class GoneError(ApiError):
    """410: the resource version or the continue token has been compacted away. List again."""


class UnreachableError(KubeError):
    """No answer: refused, reset, cut off, or silent for longer than the timeout."""


class AccessError(KubeError):
    """Neither a usable kubeconfig nor a service account was found."""


class SettingsError(RuntimeFault, ValueError):
    """Settings that cannot be used; `problems` has one line each, with file and line or source."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class TracingError(RuntimeFault):
    """Spans are to be sent somewhere, and what sends them is not installed."""


class QuantityError(RuntimeFault, ValueError):
    """A text that is not a Kubernetes quantity. `text` is what was given."""

    def __init__(self, text: object, problem: str) -> None:
        super().__init__(f"{text!r} is not a quantity: {problem}")
        self.text = text


class WorkerEndedError(RuntimeFault):
    """A thread or task that must run until it is stopped has ended by itself. `name` says which."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} ended by itself")
        self.name = name


_BY_STATUS: dict[int, type[ApiError]] = {404: NotFoundError, 409: ConflictError, 410: GoneError}


def api_error(status: int, reason: str, message: str) -> ApiError:
    """Make the error class that stands for an HTTP status."""
    return _BY_STATUS.get(status, ApiError)(status, reason, message)
