"""Run Supervisor, which stops all programs of the same priority at once.

On its own it stops one program after another, so that a pool of busy workers would take
DRAIN_TIMEOUT_S for each of them. Programs in one `[group]` are stopped together, but a change of a
group, such as one worker more, restarts all of them.
"""

from __future__ import annotations

from typing import Any

from supervisor import supervisord


class Supervisor(supervisord.Supervisor):  # type: ignore[misc]  # it has no types
    """Supervisor with another order of stopping. The main loop calls both methods repeatedly."""

    stop_groups: list[Any] | None  # in ascending order of priority; None: it does not stop

    def ordered_stop_groups_phase_1(self) -> None:
        """Stop every program of the highest priority that is left."""
        groups = self.stop_groups or []
        for group in groups:
            if group.config.priority == groups[-1].config.priority:
                group.stop_all()

    def ordered_stop_groups_phase_2(self) -> None:
        """Forget the programs that have ended."""
        groups = self.stop_groups or []
        self.stop_groups = [group for group in groups if group.get_unstopped_processes()]


if __name__ == "__main__":
    supervisord.Supervisor = Supervisor  # its main program makes one
    supervisord.main()
