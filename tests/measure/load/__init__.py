"""Load tests: what this service does on this machine, in figures. LOAD_TESTING.md explains them."""
