from .compare import Comparison as Comparison
from .compare import make_comparison as make_comparison
from .diagnose import Asked as Asked
from .diagnose import make_diagnosis as make_diagnosis
from .entry import main as main
from .notebook import StudyResults as StudyResults
from .notebook import load_results as load_results
from .notebook import run_results as run_results
