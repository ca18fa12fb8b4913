"""The workers' log: JSON for machines, text for people, nothing of what was said."""

from __future__ import annotations

import io
import json
import logging
import sys

import pytest

from app.observability import log

RECORD = {
    "name": "app.api", "levelno": logging.INFO, "levelname": "INFO", "msg": "POST %s",
    "args": ("/x",), "request_id": "abc", "fields": {"tier": "realtime", "audio_s": 2.5},
}  # fmt: skip


def test_json_line_has_all_of_an_event():
    line = json.loads(log.JsonFormatter(3).format(logging.makeLogRecord(RECORD)))

    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "INFO", "worker": 3, "request": "abc", "logger": "app.api",
        "message": "POST /x", "tier": "realtime", "audio_s": 2.5,
    }  # fmt: skip


def test_exception_stays_in_its_line():
    try:
        raise ValueError("two\nlines")
    except ValueError:
        record = logging.makeLogRecord(RECORD | {"exc_info": sys.exc_info()})

    told = log.JsonFormatter(1).format(record)

    assert "\n" not in told
    assert "two\nlines" in json.loads(told)["exception"]


def test_text_line_for_people():
    told = log.TextFormatter(3).format(logging.makeLogRecord(RECORD))

    assert told.endswith(
        "INFO worker=3 request=abc app.api: POST /x tier=realtime audio_s=2.5"
    )  # fmt: skip


@pytest.mark.parametrize(("form", "is_json"), [("json", True), ("text", False), ("auto", True)])
def test_form_is_chosen(monkeypatch, form, is_json):
    """`auto` is JSON without a terminal."""
    root, written = logging.getLogger(), io.StringIO()
    before = root.handlers, root.level
    monkeypatch.setattr(sys, "stdout", written)
    try:
        log.configure(1, "info", form)
        logging.getLogger("app.test").info("hello", extra=log.with_fields({"status": 200}))
    finally:
        root.handlers, root.level = before

    assert written.getvalue().startswith("{") == is_json
    assert "hello" in written.getvalue()


@pytest.mark.parametrize(
    ("said", "logged"),
    [
        ("Invalid request from ip=::1: Invalid header: 'X-API Key: sk-1'", "ip=::1"),
        ("Error handling request GET /v1/models?api_key=sk-1&x", "GET /v1/models"),
        ("Worker exiting (pid: 7)", "(pid: 7)"),
    ],
)
def test_gunicorns_words_quote_no_query_and_no_header(said, logged):
    """Either may hold a key."""
    record = logging.makeLogRecord({"msg": said, "levelno": logging.WARNING})

    assert log.RequestsUnquoted().filter(record)

    assert "sk-1" not in record.getMessage()
    assert record.getMessage().endswith(logged)
