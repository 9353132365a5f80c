from .check import DataReport as DataReport
from .check import check_data as check_data
from .prepared import UNLABELLED as UNLABELLED
from .prepared import Cells as Cells
from .prepared import class_names as class_names
from .sources import own_queries as own_queries
from .sources import query_names as query_names
from .twins import prepare as prepare
