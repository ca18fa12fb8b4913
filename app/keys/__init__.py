"""Manage API keys: the key file, limits, and the command that edits them."""
