"""Settings: what a person may set, and from where it is gathered."""

from cloister.immune.settings import ImmuneSettings
from cloister.immune.settings_file import environment_name, get, known_names, load_immune_settings

__all__ = ["ImmuneSettings", "environment_name", "get", "known_names", "load_immune_settings"]
