"""File access for local paths and ``s3://`` URLs: whole objects, listings, byte ranges, tables.

Belongs here: one function per storage operation, with retries and clear errors. Does not: any store's format.
"""
