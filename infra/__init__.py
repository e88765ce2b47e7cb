"""Operation: deployments, the local stack, containers, Kubernetes, lock files."""
