"""Run one Gunicorn process with one model."""
