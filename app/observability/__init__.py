"""Provide the log and the metrics."""
