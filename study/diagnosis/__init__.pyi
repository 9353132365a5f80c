from .columns import is_outcome as is_outcome
from .diagnosis import Diagnosis as Diagnosis
from .diagnosis import diagnose_models as diagnose_models
from .diagnosis import diagnose_table as diagnose_table
from .diagnosis import matches as matches
