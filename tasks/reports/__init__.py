"""Rendering only: HTML pages, plots, tables and markdown from values that other packages computed.

Belongs here: templates, plots, table layouts, escaping. Does not: reading stores, computing metrics, publishing files.
"""
