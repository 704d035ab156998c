"""The API under schemathesis: whatever its document allows, or forbids, is answered as it says.

No answer is a 500, each has the document's shape, and what breaks its rules is refused.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import Case, GenerationMode

from scheduler.explain.openapi import document
from tests.cli.explained import Explained, explained

pytestmark = pytest.mark.hypothesis

EXAMPLES = 500 if settings.get_current_profile_name() == "fuzz" else 20
"""For each operation and mode."""

OPERATIONS = [(path, method) for path, found in document()["paths"].items() for method in found]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Explained]:
    """Run an extender for all of this file."""
    with explained(tmp_path_factory.mktemp("explained")) as found:
        yield found


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: str(mode.value))
@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_whatever_is_asked_is_answered_by_the_document(
    served: Explained, path: str, method: str, mode: GenerationMode
) -> None:
    """Status, content type and body are what the document says of the operation."""
    operation = schemathesis.openapi.from_url(f"{served.url}/openapi.json")[path][method.upper()]
    if mode is GenerationMode.NEGATIVE and not (operation.query or operation.body):
        return  # there is nothing that could be wrong: any text may be a name

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: Case) -> None:
        case.call_and_validate()

    check()


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Explained]:
    """Run an extender that wants a token."""
    folder = tmp_path_factory.mktemp("closed")
    (folder / "token").write_text("secret")
    option = ("--explain-token-file", str(folder / "token"))
    with explained(folder, *option, token=(folder / "token").read_text()) as found:
        yield found


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_every_operation_wants_the_token(closed: Explained, path: str, method: str) -> None:
    """Without it and with another one the answer is the document's 401; with it all is as ever."""
    schema = schemathesis.openapi.from_dict(document())
    schema.config.update(base_url=closed.url)
    operation = schema[path][method.upper()]

    @settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(case=operation.as_strategy(generation_mode=GenerationMode.POSITIVE))
    def check(case: Case) -> None:
        case.headers.pop("Authorization", None)
        case.cookies.clear()
        for header in (None, "Bearer other", f"Basic {closed.token}"):
            headers = {} if header is None else {"Authorization": header}
            answer = case.call(headers=headers)
            assert answer.status_code == 401
            case.validate_response(answer)
        case.call_and_validate(headers={"Authorization": f"Bearer {closed.token}"})

    check()
