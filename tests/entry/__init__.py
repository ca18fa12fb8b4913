"""The real HAProxy in front of stub workers."""
