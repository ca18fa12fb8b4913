"""One Gunicorn worker with a real model: its lifetime and its sandbox."""
