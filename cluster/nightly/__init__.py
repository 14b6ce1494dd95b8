"""The pod of the nightly CronJob: it starts an audit as a RayJob, waits, and ends with the audit's exit code.

Kubernetes decides on retries by the exit code of this pod (podFailurePolicy in cluster/kubernetes/base/nightly.yaml).
"""
