"""Configuration files, requirements and playbooks, as files."""
