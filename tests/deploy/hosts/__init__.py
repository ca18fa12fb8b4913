"""The playbooks on hosts with a real systemd: `make test-hosts`."""
