"""What the embedded API server refuses, as metav1.Status speaks of it.

ApiRefusal(Exception)       code, reason, message: one Status object
"""

from __future__ import annotations

from typing import Any


class ApiRefusal(Exception):  # noqa: N818 -- a refusal is an answer, not a fault of the server
    """A request that is answered with a Status object of this code and reason."""

    def __init__(
        self, code: int, reason: str, message: str, details: dict[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details

    def status(self) -> dict[str, Any]:
        """Return the metav1.Status."""
        body: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }
        if self.details:
            body["details"] = self.details
        return body


def bad_request(message: str) -> ApiRefusal:
    """400: the request makes no sense."""
    return ApiRefusal(400, "BadRequest", message)


def forbidden(plural: str, name: str, why: str) -> ApiRefusal:
    """403: an admission rule is broken."""
    return ApiRefusal(
        403,
        "Forbidden",
        f'{plural} "{name}" is forbidden: {why}',
        {"name": name, "kind": plural},
    )


def not_found(plural: str, name: str) -> ApiRefusal:
    """404: no such object."""
    return ApiRefusal(
        404, "NotFound", f'{plural} "{name}" not found', {"name": name, "kind": plural}
    )


def already_exists(plural: str, name: str) -> ApiRefusal:
    """409 on create."""
    return ApiRefusal(
        409, "AlreadyExists", f'{plural} "{name}" already exists', {"name": name, "kind": plural}
    )


def conflict(plural: str, name: str, why: str) -> ApiRefusal:
    """409 on a stale version, a failed precondition, a second binding."""
    return ApiRefusal(
        409,
        "Conflict",
        f'Operation cannot be fulfilled on {plural} "{name}": {why}',
        {"name": name, "kind": plural},
    )


def expired(message: str) -> ApiRefusal:
    """410: the version is older than what is kept."""
    return ApiRefusal(410, "Expired", message)


def invalid(kind: str, name: str, why: str) -> ApiRefusal:
    """422: the object breaks a rule."""
    return ApiRefusal(
        422, "Invalid", f'{kind} "{name}" is invalid: {why}', {"name": name, "kind": kind}
    )
