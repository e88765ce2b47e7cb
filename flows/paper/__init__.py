"""The tables of `reproduce_paper`: each is created by a subflow that returns its page."""
