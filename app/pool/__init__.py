"""The workers and the balancer of one machine."""
