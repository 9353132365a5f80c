"""The experiment: a search space in, trials out, merged into a tree of stages that are trained once and shared.

In the order of flow: factors, trials, split, condition, order, audit, stages, tree.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
