"""Decode each upload in a process of its own that has no rights."""
