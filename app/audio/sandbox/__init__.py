"""Decode each upload in its own process without privileges."""
