"""Makes `xml_equal` importable: tests are imported by path (--import-mode=importlib)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
