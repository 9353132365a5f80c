"""Labels to trust: what all trainings of a study say of a cell, how sure that is, and what it depends on.

In the order of flow: consensus, wavering, calibration, replicates, conformal, novelty, trials, labels.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
