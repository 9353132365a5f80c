"""What a study says, in words, and what stands beside it: controls, flips, matched queries, the schedule as recorded.

In the order of flow: words, power, precision, assurance, sentences, settled, stopping, yardsticks, arms, controls,
flips, siblings, matching, collapses, drift, afterwards.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
