"""What is finished, explained: tables, the HTML page, and pictures for notebooks.

<<<<<<< HEAD
In the order of flow: finished, analysis, charts, described, embedding, sections, page, diagnosed, checked, output,
plots.
=======
In the order of flow: finished, analysis, onward, charts, embedding, sections, page, diagnosed, output, plots.
>>>>>>> main
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
