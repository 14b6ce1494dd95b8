"""What a run tells of itself while it runs, and of an output's nights afterwards: Prometheus metrics and JSON logs."""
