"""The modules beside the tests, by their names: the long form runs them as a script, which finds them so, too."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
