"""How the product is run: deployments, the stack of one machine, containers, Kubernetes."""
