"""Stores on any fsspec URL: patches, corpora, and the file system below them."""
