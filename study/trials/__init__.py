"""What trials gave: a stage performed, its predictions measured, results written safely and read as tables.

In the order of flow: metrics, record, fixed, evidence, store, tables, timing, probes, neighbours,
reading, together, perform, logistic.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
