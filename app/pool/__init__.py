"""Run the workers and the balancer of one machine."""
