"""One simulated class for the tests of attribution."""

import pandas as pd
import pytest

from tests.simulated_tables import SMALL, Planted, layout_for, simulated


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """A class with everything in it: causes of all groups, chance at every stratum."""
    causes = {"data": 0.1, "parameter": 0.1, "data x parameter": 0.05}
    return simulated(Planted((0.15, 0.15, 0.05), causes, cells=400), layout_for(SMALL))[0]
