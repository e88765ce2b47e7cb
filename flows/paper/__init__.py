"""The tables of `reproduce_paper`: one subflow each, which returns its page."""
