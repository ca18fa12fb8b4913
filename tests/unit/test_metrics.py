"""Metrics: names that users have in their dashboards."""

from __future__ import annotations

from prometheus_client import REGISTRY

from app.observability import metrics


def test_former_name_has_the_count_of_the_present_one():
    for former, counter in metrics.FORMER_NAMES.items():
        (described,) = counter.describe()
        counter.inc()

        present = REGISTRY.get_sample_value(f"{described.name}_total")

        assert present
        assert REGISTRY.get_sample_value(f"{former}_total") == present
