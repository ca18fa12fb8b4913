"""Print the progress of a start and of a stop in a few lines, of which the last may grow."""

from __future__ import annotations

import sys


class Terminal:
    """Standard output of a command. All methods run on the main thread."""

    def __init__(self) -> None:
        self._is_growing = False

    def say(self, text: str) -> None:
        """Print a line."""
        self.end_line()
        print(text, flush=True)

    def grow(self, text: str) -> None:
        """Append to a line of its own, which the next line ends."""
        self._is_growing = True
        print(text, end="", flush=True)

    def fail(self, text: str) -> None:
        """Print the reason of a failure on standard error."""
        self.end_line()
        print(text, file=sys.stderr, flush=True)

    def end_line(self) -> None:
        """End a line that has grown."""
        if self._is_growing:
            self._is_growing = False
            print(flush=True)
