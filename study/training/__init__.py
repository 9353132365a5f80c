"""A stage of training, or like ones together, read at epoch levels. The only room that trains with scvi-tools.

In the order of flow: hardware, arguments, private, batches, likelihood, fast, exact, counts, draws, dense, noise,
layers, stacked, group, fused, halted, snapshot, building, members, models.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
