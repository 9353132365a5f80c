from .labels import FEWEST_REPLICATES as FEWEST_REPLICATES
from .labels import UNKNOWN as UNKNOWN
from .labels import Labels as Labels
from .labels import labels_of as labels_of
from .labels import n_replicates as n_replicates
from .labels import trials_with_all as trials_with_all
from .labels import trust_frame as trust_frame
