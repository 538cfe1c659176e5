"""Results as they are kept: JSON that is there whole or not at all, whoever is killed in writing it.

>>> write({"speedup": 7.1}, Path("benchmarks/results/end_to_end.json"))
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def write(results: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)
