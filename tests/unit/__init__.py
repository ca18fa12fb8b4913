"""One module of app/ at a time, in this process and without a model."""
