"""Models by name and version: noise generators, denoisers, prompt banks, the registry and promotion.

Belongs here: loading, identifying, storing and promoting models. Does not: training or evaluating them.
"""
