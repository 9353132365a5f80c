from .labels import TRUST as TRUST
from .labels import UNKNOWN as UNKNOWN
from .labels import Labels as Labels
from .labels import labels_of as labels_of
from .labels import trust_frame as trust_frame
from .trials import enough_trials as enough_trials
