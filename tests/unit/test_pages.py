"""The pages for people: served by the worker, with nothing from anywhere else."""

from __future__ import annotations

import re

import pytest

from app.api.pages import FOLDER, POLICY, TYPES
from app.config import Config
from app.engine.engine import Engine
from tests.support.client import Client, assert_error

OF_THE_BALANCER = {"/status"}
FILES = sorted(path.name for path in FOLDER.iterdir() if path.suffix in TYPES)


@pytest.fixture(scope="module")
def visitor() -> Client:
    config = Config()
    return Client.of(config, Engine(config))


@pytest.mark.parametrize("name", FILES)
def test_every_file_has_its_type_and_names_no_other_host(visitor, name):
    answer = visitor.get("/pages/" + name)

    assert answer.headers["content-type"] == TYPES["." + name.rpartition(".")[2]]
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    addresses = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+", answer.text))
    assert addresses <= {"http://www.w3.org"}, "the name of SVG's language, which is not fetched"


def test_browser_is_led_to_the_playground_and_a_program_gets_json(visitor):
    browser = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}

    led = visitor.get("/", headers=browser)

    assert (led.status_code, led.headers["location"]) == (302, "/playground")
    assert led.headers["vary"] == "Accept"
    for accept in ("*/*", "application/json"):
        assert visitor.get("/", headers={"Accept": accept}).json["service"]


@pytest.mark.parametrize("path", ["/docs", "/playground", "/status"])
def test_every_page_leads_to_the_others(path):
    page = (FOLDER / f"{path.strip('/')}.html").read_text()
    pages = re.search(r'<nav aria-label="Pages">(.*?)</nav>', page, re.DOTALL)

    assert pages
    assert re.findall(r'href="(.*?)"', pages[1]) == ["/playground", "/docs", "/status"]
    assert f'href="{path}" aria-current="page"' in pages[1]


@pytest.mark.parametrize("path", ["/docs", "/playground"])
def test_page_is_one_whose_parts_are_there(visitor, path):
    page = visitor.get(path)

    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-security-policy"] == POLICY
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["referrer-policy"] == "no-referrer"
    parts = set(re.findall(r'(?:src|href)="(/[^"]+)"', page.text)) - OF_THE_BALANCER
    assert len(parts) >= 5
    for part in parts:
        assert visitor.get(part).status_code == 200


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".js")])
def test_modules_that_a_module_names_are_there(name):
    named = set(re.findall(r'from "\./([^"]+)"', (FOLDER / name).read_text()))

    assert named <= set(FILES)
    assert "innerHTML" not in (FOLDER / name).read_text(), "text that comes in is never markup"


@pytest.mark.parametrize("name", ["__init__.py", "nothing.html", "..%2fform.py"])
def test_nothing_else_is_served(visitor, name):
    assert_error(visitor.get("/pages/" + name), 404)


def test_pages_need_no_key():
    config = Config(api_token="secret")
    guarded = Client.of(config, Engine(config))

    for path in ("/docs", "/playground", "/openapi.json", "/pages/docs.js"):
        assert guarded.get(path).status_code == 200
