"""Real pairs and clean images: find, verify, catalogue, extract patches, read as references.

Belongs here: everything between the files of a published dataset and a patch store. Dataset layouts are in
``adapters``, container formats in ``formats``. Does not: noise models, corpora.
"""
