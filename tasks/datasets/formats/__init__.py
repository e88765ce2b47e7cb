"""Container formats, one per module: image files, TIFF pages, MATLAB files, Zarr arrays, archives.

Belongs here: reading pixels and shapes, and the limits that protect against hostile files. Does not: which files make a
pair (see ``adapters``).
"""
