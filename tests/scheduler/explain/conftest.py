"""A town whose decisions are asked about over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from scheduler.explain import app
from tests.scheduler.conftest import Town


class Asker:
    """Asks the explain API of a town."""

    def __init__(self, town: Town) -> None:
        self.town = town
        self.http = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app.build(town.extender.desk)),
            base_url="http://explain",
        )

    async def get(self, path: str, status: int = 200) -> Any:
        """Ask, and decode the answer of this status."""
        answer = await self.http.get(path)
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/json"
        return answer.json()

    async def place(self, name: str, count: int, *nodes: str, **given: Any) -> dict[str, Any]:
        """Create a pod, filter it over these nodes and bind it to the first that is answered."""
        pod = await self.town.pod(name, count, **given)
        accepted = (await self.town.filter(pod, *nodes))["NodeNames"]
        assert await self.town.bind(pod, accepted[0]) == ""
        return pod


@pytest.fixture
async def ask(town: Town) -> AsyncIterator[Asker]:
    """Ask the town's API."""
    asker = Asker(town)
    yield asker
    await asker.http.aclose()
