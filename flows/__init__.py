"""Flows: what happens when, and the command line."""
