"""From the table of trials to what explains its differences: shares, chance by stratum, effects in points.

In the order of flow: layout, moderation, intervals, effects, correction, looks, findings, tables, mixed, balanced,
paired, points, drawn, attribute.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
