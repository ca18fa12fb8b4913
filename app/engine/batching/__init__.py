"""Batch the device calls of concurrent requests."""
