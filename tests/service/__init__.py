"""The whole pool as `make run` starts it, other people's clients, and the pages."""
