"""`/openapi.json` agrees with the code and with the answers to random requests made from it."""

from __future__ import annotations

import os
from typing import Any

import falcon.inspect
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import CHECKS, load_all_checks

from app.api.fields import FIELDS
from app.config import Config
from app.engine.engine import Engine
from app.errors import ServiceError
from app.main import create_app
from tests.support.client import TRANSCRIPTIONS, TRANSLATIONS, Client
from tests.support.recordings import recording, wav
from tests.support.stack import Stack

# Over all operations; `make fuzz-api` asks for 2000.
CASES = int(os.environ.get("FUZZ_CASES", "160"))
# What the description promises. Not whether every wrong field is refused: unknown ones are
# ignored, and an empty one counts as absent, as OpenAI's clients expect.
PROMISES = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "unsupported_method",
)
NOT_FOR_CLIENTS = {"/metrics"}  # for the machine itself
FILES_OF_PAGES = {"/pages/{name}"}
OPERATIONS = 10
WORD = wav(recording("austen_0890.wav").waveform()[:24_000])


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    config = Config()
    return dict(Client.of(config, Engine(config)).get("/openapi.json").json)


def test_every_route_is_described(document):
    config = Config()
    app = create_app(config, Engine(config))
    routes = {
        route.path.replace(":path", ""): {
            method.method.lower() for method in route.methods if not method.internal
        }
        for route in falcon.inspect.inspect_app(app).routes
    }

    described = {path: set(methods) for path, methods in document["paths"].items()}

    expected = {
        path: methods - {"head", "options"}
        for path, methods in routes.items()
        if path not in NOT_FOR_CLIENTS | FILES_OF_PAGES
    }
    assert described == expected


def test_every_field_is_described_where_it_is_read(document):
    for route, path in (("transcriptions", TRANSCRIPTIONS), ("translations", TRANSLATIONS)):
        body = document["paths"][path]["post"]["requestBody"]["content"]["multipart/form-data"]
        names = {field.name for field in FIELDS if route in field.routes}
        assert set(body["schema"]["properties"]) == names
        assert body["schema"]["required"] == ["file", "model"]


def test_every_error_of_the_tree_is_described(document):
    statuses = set(document["paths"][TRANSCRIPTIONS]["post"]["responses"])

    def tree(kind: type[ServiceError]) -> set[int]:
        return {kind.status}.union(*(tree(one) for one in kind.__subclasses__()))

    # 405 is another method's; a client that has left gets no answer.
    assert {str(status) for status in tree(ServiceError)} - {"405", "499"} <= statuses


def test_references_lead_somewhere(document):
    schemas = document["components"]["schemas"]

    def references(part: Any) -> set[str]:
        if isinstance(part, dict):
            own = {part["$ref"]} if "$ref" in part else set()
            return own.union(*(references(one) for one in part.values()))
        return set().union(*(references(one) for one in part)) if isinstance(part, list) else set()

    used = {one.rpartition("/")[2] for one in references(document)}
    assert used == set(schemas)


@pytest.mark.parametrize("setting", ["api_token", "api_keys_file"])
def test_key_is_described_only_where_one_is_asked_for(document, setting, tmp_path):
    secret = tmp_path / "hidden"
    secret.write_text("{}")
    config = Config(**{setting: str(secret)})
    guarded = Client.of(config, Engine(config))

    found = guarded.get("/openapi.json")

    assert "security" not in document
    assert found.json["security"] == [{"bearer": []}, {"header": []}]
    assert "hidden" not in found.text
    assert guarded.get("/docs").status_code == 200


@pytest.fixture(scope="module")
def operations(stack: Stack) -> list[Any]:
    """What the running service describes, less the description itself."""
    load_all_checks()
    described = schemathesis.openapi.from_url(stack.url + "/openapi.json")
    return [one.ok() for one in described.get_all_operations()]


@pytest.mark.parametrize("number", range(OPERATIONS))
def test_no_request_meets_a_server_error_or_an_undocumented_answer(operations, number):
    """Through the whole stack. Every other upload is a recording, so that some succeed."""
    operation = operations[number]
    assert len(operations) == OPERATIONS
    checks = CHECKS.get_by_names(PROMISES)

    @settings(
        max_examples=cases_of(operation.label),
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def ask(case: Any) -> None:
        has_file = "audio" in operation.label and isinstance(case.body, dict)
        if has_file and len(str(case.body.get("model", ""))) % 2 == 0:
            case.body["file"] = WORD
        case.call_and_validate(checks=checks, timeout=60)

    ask()


def cases_of(label: str) -> int:
    """Most of them for the two routes that have fields; a page has nothing to vary."""
    share = 0.4 if "audio" in label else 0.04
    return max(1, round(CASES * share))
