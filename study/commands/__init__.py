"""The commands, and a study in Python.

In the order of flow: options, folder, refusal, recalls, rounds, pipeline, registering, foresight, facts,
progress, terminal, checking, detach, explained, notebook, diagnose, compare, cli, entry.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
