"""How the service is set up: one frozen struct, read once from the environment and `.env`."""

from chat_sse.settings.fields import Settings, variable
from chat_sse.settings.load import SettingsError, load_settings
from chat_sse.settings.show import shown

__all__ = ["Settings", "SettingsError", "load_settings", "shown", "variable"]
