"""The configuration: `conf/` and overrides in, one frozen and validated `StudyConfig` out.

In the order of flow: values, explain, data, extra, settings, engine, space, study, composition,
completion.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
