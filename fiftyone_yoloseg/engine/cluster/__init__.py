"""engine=ray: the same work on the machines of a Ray cluster. Ray is an extra; it is loaded when it is asked for and not before."""
