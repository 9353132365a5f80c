"""The stage tree on Ray Tune, what it will cost, and how far it is. The only room that imports ray.

In the order of flow: capacity, overtime, ledger, cluster, worker, tune, cost, status.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
