"""README.md and docs/: their size, and that what they name exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client import Counter, Gauge, Histogram

from app import errors
from app.config import ROOT, settings
from app.live import metrics as live_metrics
from app.observability import metrics

README = ROOT / "README.md"
PAGES = (README, *sorted((ROOT / "docs").glob("*.md")))
PATHS = [*PAGES, ROOT / "tests" / "measure" / "load" / "LOAD_TESTING.md"]
LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```$", re.M | re.S)
MADE = re.compile(r"\bmake((?: [a-z][a-z|\\-]*)+)")
CAPITALS = re.compile(r"`([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+|[A-Z]{4,})(?:=[^`]*)?`")
# In capitals and no settings: variables of commands, other programs' variables, constants.
NO_SETTINGS = {
    "ARGS", "NAME", "KEEP_OLD", "OLD", "REQUESTS_PER_MINUTE", "CONCURRENT_REQUESTS", "RECORDINGS",
    "CUDA_VISIBLE_DEVICES", "CUDA_CACHE_PATH", "CUDA_MODULE_LOADING", "CT2_CUDA_ALLOCATOR",
    "CUBLAS", "PYTHON_VERSION", "O_TMPFILE", "SHA256SUMS", "FILE", "DEFERRED_SHARE", "LOAD_KEY",
}  # fmt: skip

pages = pytest.mark.parametrize("page", PATHS, ids=lambda page: page.name)


def prose(page: Path) -> str:
    """Return a page without its blocks of code."""
    return FENCE.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def table_names(page: str, pattern: str) -> set[str]:
    """Return what matches in a page's table rows, in backticks."""
    rows = [line for line in (ROOT / page).read_text().splitlines() if line.startswith("|")]
    return {name for row in rows for name in re.findall(rf"`({pattern})`", row)}


def test_the_readme_is_short():
    lines = README.read_text().splitlines()

    assert len(lines) <= 250
    assert [line for line in lines if len(line) > 100] == []


@pages
def test_links_lead_somewhere(page):
    for target in LINK.findall(prose(page)):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page

        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


def test_every_page_is_linked_from_the_readme():
    linked = {target.partition("#")[0] for target in LINK.findall(README.read_text())}

    assert {f"docs/{page.name}" for page in PAGES[1:]} <= linked


@pages
def test_make_commands_exist(page):
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.M))
    targets |= {"single", "scaling", "overload", "meetings", "soak", "web"}  # the modes of `load`
    code = re.findall(r"`([^`\n]+)`", prose(page)) + FENCE.findall(page.read_text())

    for named in MADE.findall("\n".join(code)):
        for target in re.split(r"[ |\\]+", named.strip()):
            assert target in targets, f"make{named}"


def test_make_help_lists_every_command():
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*?[^\\])$", makefile, re.M | re.S)
    assert phony
    modes_and_steps = {"single", "scaling", "overload", "meetings", "web", "setup-test"}
    listed = set(re.findall(r"^([a-z-]+):.*## ", makefile, re.M))

    assert listed == set(phony[1].replace("\\", "").split()) - modes_and_steps


@pages
def test_settings_exist(page):
    known = {setting.name.upper() for setting in settings()} | NO_SETTINGS

    assert set(CAPITALS.findall(prose(page))) <= known


def test_operations_lists_every_metric_of_workers_and_gateways():
    described = [
        family.name + ("_total" if family.type == "counter" else "")
        for metric in (*vars(metrics).values(), *vars(live_metrics).values())
        if isinstance(metric, Counter | Gauge | Histogram)
        for family in metric.describe()
    ]
    listed = table_names("docs/operations.md", "transcription_[a-z_]+")

    assert described
    assert set(described) <= listed
    others = listed - set(described)
    balancer = (ROOT / "deploy" / "haproxy" / "status.lua").read_text()
    assert all(name in balancer for name in others), others


def test_operations_lists_every_alert():
    text = (ROOT / "deploy" / "monitoring" / "alerts.yml").read_text()

    alerts = set(re.findall(r"alert: (\w+)", text))

    assert alerts == table_names("docs/operations.md", "Transcription[A-Z][A-Za-z]+")


def test_operations_lists_every_reason_of_a_refusal():
    lua = (ROOT / "deploy" / "haproxy" / "refusals.lua").read_text()
    reasons = re.search(r"REASONS = \{(.*?)\}", lua, re.S)
    assert reasons

    assert set(re.findall(r'"(\w+)"', reasons[1])) <= table_names("docs/operations.md", r"\w+")


def test_architecture_lists_the_internal_headers():
    head = (ROOT / "deploy" / "haproxy.cfg").read_text().split("\nglobal\n")[0]

    headers = set(re.findall(r"X-[A-Z][A-Za-z-]+", head))

    assert headers == table_names("docs/architecture.md", r"X-[A-Z][A-Za-z-]+")


def test_api_lists_every_error_code():
    def below(kind: type[errors.ServiceError]) -> set[type[errors.ServiceError]]:
        return {kind}.union(*map(below, kind.__subclasses__()))

    codes = {kind.code for kind in below(errors.ServiceError)} - {
        None,
        errors.ClientDisconnected.code,
    }

    assert codes <= table_names("docs/api.md", r"\w+")


@pages
def test_files_exist(page):
    for name in re.findall(r"`((?:app|deploy|tests)/[\w./-]+)`", prose(page)):
        assert (ROOT / name).exists(), name
