"""Synthetic corpora: plan, generate, check, publish, maintain, export.

Belongs here: everything about a corpus from its parameters to its files for other tools. Does not: storage formats
(``tasks.stores``), noise models (``tasks.models``).
"""
