"""What may go wrong in the embedded cluster.

EmbeddedError
├── WorkloadError   (ValueError)  a pod list that cannot be read
├── FaultError      (ValueError)  a fault that cannot be understood
└── ClusterError    (RuntimeError) a part of the cluster that did not come up
"""

from __future__ import annotations


class EmbeddedError(Exception):
    """The root of this package's errors."""


class WorkloadError(EmbeddedError, ValueError):
    """A pod list is unusable; the text names the file, the line and the column."""


class FaultError(EmbeddedError, ValueError):
    """A ``--fault`` is not understood; the text names it."""


class ClusterError(EmbeddedError, RuntimeError):
    """A part of the cluster did not come up in time; the text carries the tail of its log."""
