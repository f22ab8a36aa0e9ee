"""Beat's scheduler: Celery's own, which makes the folder of its file, and reads no file of another user."""

from __future__ import annotations

import os
from pathlib import Path

from celery.beat import PersistentScheduler


class FileScheduler(PersistentScheduler):  # type: ignore[misc] # Celery has no types
    """Remembers in a file what it sent last; the setting BEAT_SCHEDULE_FILE or the option ``--schedule`` names it.

    Celery keeps pickles there, and whoever writes a pickle runs code in whoever reads it. The default is in the folder
    for temporary files, where everybody may write: so only our own file is read.
    """

    def setup_schedule(self) -> None:
        """Open the file.

        Raises:
            OSError: its folder cannot be made, or written to.
            PermissionError: the file belongs to another user; says which.
        """
        name = Path(self.schedule_filename)
        name.parent.mkdir(parents=True, exist_ok=True)
        for suffix in self.known_suffixes:
            path = name.with_name(name.name + suffix)
            if path.exists() and path.stat().st_uid != os.geteuid():
                msg = f"{path} belongs to another user: delete it, or name another with BEAT_SCHEDULE_FILE"
                raise PermissionError(msg)
        super().setup_schedule()
