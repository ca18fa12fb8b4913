"""One Gunicorn process with one model."""
