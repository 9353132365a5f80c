"""What can be said of finished runs without training: what is in them, what is wrong, what they can tell together.

In the order of flow: pickled, saved, beside, asked, run, finding, steps, curves, findings, columns,
together, smallest, diagnosis.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
