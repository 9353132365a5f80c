from .mirror import Projection as Projection
from .registry import register as register
from .server import serve as serve
