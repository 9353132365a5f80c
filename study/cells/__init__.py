"""From files to checked, aligned cells: which are reference and query, on which genes, with which labels and batches.

In the order of flow: simulation, chunks, counts, names, sheet, findings, genes, unreadable, h5ad, counted, kept,
sources, prepared, components, points, fingerprint, roles, joining, alignment, twins, check, places.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
