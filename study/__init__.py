"""Why does scANVI label transfer give different answers? A study that tells.

The modules, in the order in which the data flows: config, design, data, twins, simulate, plan, train, evaluate,
results, sweep, tracking, attribution, report, export, transfer, cli. A module imports only modules before it.
"""

__version__ = "0.1.0"
