"""Every option: its default, unit and reason (`options`), and how they are read (`loading`)."""

from __future__ import annotations

from uvs.settings.loading import Loaded, Mistakes, load
from uvs.settings.options import OwnHomeserver, Settings

__all__ = ["Loaded", "Mistakes", "OwnHomeserver", "Settings", "load"]
