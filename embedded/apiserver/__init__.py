"""An in-memory API server over real HTTP: as much of Kubernetes as scheduling GPUs needs.

Decision and limits: docs/adr/0005-embedded-api-server.md.
"""

from embedded.apiserver.server import ApiServer

__all__ = ["ApiServer"]
