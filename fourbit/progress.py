"""What a learner has done so far: verdicts and predictions, in one small JSON file of their own.

The file lies in the user's data folder (`FOURBIT_HOME` moves it) and never leaves the machine.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from platformdirs import user_data_path

from fourbit.data.cache import write_atomically


def home() -> Path:
    """The folder of this learner's files: `FOURBIT_HOME`, or the platform's user data folder."""
    return Path(os.environ.get("FOURBIT_HOME") or user_data_path("fourbit"))


def read() -> dict[str, Any]:
    """Everything recorded; empty when nothing is, or when the file is damaged (it is then kept as `.damaged`)."""
    path = home() / "progress.json"
    try:
        recorded = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        if path.is_file():
            path.replace(path.with_suffix(".damaged"))
        return {}
    return recorded if isinstance(recorded, dict) else {}


def record(section: str, key: str, value: dict[str, Any]) -> bool:
    """Set `recorded[section][key] = value` by atomic rename; False when the folder cannot be written."""
    recorded = read()
    recorded.setdefault(section, {})[key] = value
    path = home() / "progress.json"
    try:
        write_atomically(path, json.dumps(recorded, indent=1).encode())
    except OSError:
        return False
    return True
