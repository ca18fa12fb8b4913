"""A short run of every target of `make fuzz`, and what whole fuzz runs have found."""

from __future__ import annotations

import io
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from app.api.form import Form
from tests.measure import fuzz
from tests.measure.fuzz import TYPE, Finding, Run, Torn, fuzzed
from tests.support.client import form

# About two seconds each; the worker takes some more to start.
SHORT_RUNS = {"parser": 3000, "fields": 5000, "wav": 10_000, "headers": 1000, "media": 100}


@pytest.mark.parametrize("name", [*SHORT_RUNS, "http"])
def test_no_input_does_harm(name):
    run = fuzzed(name, SHORT_RUNS.get(name, 30), seconds=60)

    assert run.findings == []
    assert run.outcomes.total() == SHORT_RUNS.get(name, 30)
    assert len(run.outcomes) > 1, "some are taken and some refused"


def test_case_is_made_from_its_number_alone():
    for number in range(20):
        one, other = (fuzz.parser(random.Random(f"parser {number}"))[0] for _ in range(2))
        assert one == other


def test_broken_promises_are_found(tmp_path, monkeypatch):
    """The runner is no test of anything if it cannot fail."""
    monkeypatch.setattr(fuzz, "KEPT", tmp_path)

    def case(dice):
        def run():
            if dice.random() < 0.5:
                raise KeyError("a bug")
            raise Finding("status 500")

        return b"the input", run

    run = Run("broken", case)
    for number in range(10):
        run.one(number)

    assert len(run.findings) == 10
    assert any("KeyError" in told for _, told in run.findings)
    assert (tmp_path / "broken-3").read_bytes() == b"the input"


# Of what clients escape in a name (control characters, quotes) there is no one way.
letters = some.characters(categories=["L", "N", "P", "S", "Zs"], exclude_characters='"\\')
names = some.text(letters, min_size=1, max_size=30).filter(lambda name: name != "file")
values = some.text(max_size=200)


@settings(max_examples=100, deadline=None)
@given(
    fields=some.dictionaries(names, some.lists(values, min_size=1, max_size=3), max_size=5),
    file=some.binary(max_size=2000),
    seed=some.integers(0, 1 << 32),
)
def test_every_form_arrives_as_it_was_sent(fields, file, seed):
    """Whatever its names and values, and wherever its stream is torn."""
    sent = form(file, fields)

    with Form() as found:
        body = Torn(io.BytesIO(sent.read()), random.Random(seed))
        found.read(body, sent.headers["Content-Type"], fuzz.LIMITS)
        found.file.seek(0)

        assert found.file.read() == file
        assert found.fields == fields


def test_parser_target_takes_sound_bodies():
    """Its seeds are forms, so that damage is done to something."""
    for body in fuzz.BODIES[:3]:
        with Form() as found:
            found.read(io.BytesIO(body), TYPE, fuzz.LIMITS)
            assert found.fields
