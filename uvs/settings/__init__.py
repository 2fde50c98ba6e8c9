"""Every option: its default, unit and reason (`options`), and how they are read (`loading`)."""

from __future__ import annotations

from uvs.settings.loading import Loaded, Mistakes, load
from uvs.settings.options import CONFIG_FILE, PREFIX, SECRETS, OwnHomeserver, Settings

__all__ = ["CONFIG_FILE", "PREFIX", "SECRETS", "Loaded", "Mistakes", "OwnHomeserver", "Settings", "load"]
