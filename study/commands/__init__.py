"""The commands, and a study in Python.

<<<<<<< HEAD
In the order of flow: options, folder, refusal, checking, recalls, pipeline, registering, detach, foresight, facts,
progress, terminal, explained, notebook, diagnose, cli, entry.
=======
In the order of flow: options, folder, refusal, recalls, rounds, pipeline, registering, foresight, facts,
progress, terminal, detach, explained, notebook, diagnose, compare, cli, entry.
>>>>>>> main
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
