"""``python -m matyan_celery.reference``: write the pages; with ``--check``, say which are not as the code is."""

from __future__ import annotations

import sys
from pathlib import Path

from matyan_celery.reference.pages import find_outdated, write_pages

FOLDER = Path("docs/reference")


def main() -> int:
    """The exit code."""
    if "--check" not in sys.argv[1:]:
        write_pages(FOLDER)
        return 0
    outdated = find_outdated(FOLDER)
    for name in outdated:
        print(f"{FOLDER / name} is not as the code is: run `make docs`", file=sys.stderr)
    return 1 if outdated else 0


if __name__ == "__main__":
    sys.exit(main())
