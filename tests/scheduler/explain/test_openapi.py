"""The OpenAPI document is what is served, what is committed, and what is answered."""

from __future__ import annotations

import json
from pathlib import Path

from scheduler.explain import app
from scheduler.explain.openapi import document
from tests.scheduler.explain.conftest import Asker

COMMITTED = Path(__file__).parents[3] / "docs/reference/openapi.json"


async def test_the_committed_document_is_the_served_one(ask: Asker) -> None:
    """`python -m scheduler.explain.openapi > docs/reference/openapi.json` makes it anew."""
    assert json.loads(COMMITTED.read_text()) == await ask.get("/openapi.json")


async def test_every_route_is_in_the_document(ask: Asker) -> None:
    """And nothing else is."""
    routes = {route.path for route in app.build(ask.town.extender.desk).routes}
    assert routes == set(document()["paths"])
