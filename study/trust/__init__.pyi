from .labels import UNKNOWN as UNKNOWN
from .labels import Labels as Labels
from .labels import labels_of as labels_of
