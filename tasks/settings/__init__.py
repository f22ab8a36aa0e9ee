"""The settings: one frozen object, read from the environment and ``.env``, built where a program starts.

Which settings there are, a module a subject: `store`, `kafka`, `bridge`, `blobs`, `jobs`, `operations`; where they come
from: `sources`; what production refuses: `production`. The list for people: docs/reference/settings.md.
"""

from __future__ import annotations

from tasks.errors import WrongSettingError
from tasks.settings.loading import Settings, load_settings
from tasks.settings.sources import setting_names

__all__ = ["Settings", "WrongSettingError", "load_settings", "setting_names"]
