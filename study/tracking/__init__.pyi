from .mirror import Projection as Projection
from .mirror import uri_of as uri_of
from .server import serve as serve
