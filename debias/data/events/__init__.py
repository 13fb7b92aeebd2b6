"""Converts event logs, with one row per impression or action, to click logs."""

from debias.data.events.importing import COUNTED, Imported, import_events
from debias.data.events.roles import PRESETS, EventColumns

__all__ = ["COUNTED", "PRESETS", "EventColumns", "Imported", "import_events"]
