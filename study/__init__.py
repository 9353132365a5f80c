"""Why does scANVI label transfer give different answers? A study that tells.

The README shows the modules in the order in which the data flows; a module imports only modules before it.
"""

import os

# MLflow and Ray would report their use over the network. Nothing leaves the machine unless the user says so.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

__version__ = "0.1.0"
