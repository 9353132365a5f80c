"""Results on disk, projected into MLflow. The only room that imports mlflow.

In the order of flow: slug, matrices, database, store, queue, values, mirror, registry, runs, views, server.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
