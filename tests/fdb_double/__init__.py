"""The double of the package ``fdb``, for use beside the real one in this process."""

from __future__ import annotations

import importlib
import sys
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


@cache
def load_double() -> Any:
    """The double as a module, API version selected. ``import fdb`` gives what it gave before."""
    real = take_out()
    sys.path.insert(0, str(FOLDER))
    try:
        double = importlib.import_module("fdb")
        double.api_version(730)
    finally:
        sys.path.remove(str(FOLDER))
        take_out()
        sys.modules.update(real)
    return double


def take_out() -> dict[str, Any]:
    """Take ``fdb`` out of the imported modules; what was there."""
    names = [name for name in sys.modules if name == "fdb" or name.startswith("fdb.")]
    return {name: sys.modules.pop(name) for name in names}
