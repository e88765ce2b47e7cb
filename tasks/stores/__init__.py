"""Bytes and formats: stores of patches, prompts, corpora and models, on local disk or object storage.

Belongs here: layouts, records, readers, writers, the commit and resume mechanism. Does not: where pixels come from, or
what they are used for.
"""
