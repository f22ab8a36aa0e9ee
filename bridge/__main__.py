"""``python -m bridge``: the bridge with the settings of the environment; `matyan-celery bridge` is the same."""

from __future__ import annotations

import sys

from bridge.main import run
from tasks.settings import WrongSettingError, load_settings


def main() -> int:
    """Run the bridge; the exit code."""
    try:
        return run(load_settings())
    except WrongSettingError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
