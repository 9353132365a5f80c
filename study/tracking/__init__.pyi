from .mirror import Projection as Projection
from .registry import register as register
from .runs import runs_of as runs_of
from .server import serve as serve
from .store import import_store as import_store
