"""What a running pool prints: a few lines on the terminal, the rest in a log file."""

from __future__ import annotations

from io import BytesIO

from app.pool import log_file
from app.pool.terminal import Terminal


def test_failure_has_a_line_of_its_own(capsys):
    terminal = Terminal()
    terminal.say("Starting")
    terminal.grow("Workers ready: 1/2")
    terminal.grow(" 2/2")
    terminal.fail("The model could not be loaded.")
    terminal.say("Stopped.")

    printed = capsys.readouterr()
    assert printed.out == "Starting\nWorkers ready: 1/2 2/2\nStopped.\n"
    assert printed.err == "The model could not be loaded.\n"


def test_log_file_is_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(log_file, "FILE_BYTES", 1000)
    lines = [b"line %d\n" % number for number in range(5000)]
    log = log_file.log_file(tmp_path / "service.log")

    log_file.copy_lines(BytesIO(b"".join([*lines, b"not \xff UTF-8\n"])), log)
    log.close()

    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert len(sizes) == log_file.FORMER_FILES + 1
    assert max(sizes) <= 1000
    assert (tmp_path / "service.log").read_text().endswith("line 4999\nnot \ufffd UTF-8\n")


def test_later_start_keeps_what_the_log_held(tmp_path):
    for word in (b"first\n", b"second\n"):
        log = log_file.log_file(tmp_path / "service.log")
        log_file.copy_lines(BytesIO(word), log)
        log.close()

    assert (tmp_path / "service.log").read_text() == "first\nsecond\n"
