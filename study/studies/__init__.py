"""A study as designed, a search for the best settings, the choice, and the final transfer with them.

In the order of flow: candidates, search, records, growth, looks, study, recorded, pair, choice, export, confusion,
predicted, labelled, agreed, transfer.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
