"""What is finished, explained: tables, the HTML page, and pictures for notebooks.

In the order of flow: finished, analysis, onward, charts, described, embedding, sections, page, diagnosed, checked,
output, plots.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
