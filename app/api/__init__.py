"""Serve HTTP: OpenAI's audio API and the worker's own pages."""
