"""Real pairs and clean images: find, verify, catalogue, cut into patches, read as references.

Belongs here: everything between the files that a dataset's owners ship and a patch store. Dataset layouts are in
``adapters``, container formats in ``formats``. Does not: noise models, corpora.
"""
