"""Say what can be configured, read it from the environment, refuse what cannot work."""

from .checks import COOKIE_MAX_AGE as COOKIE_MAX_AGE
from .checks import variable_names as variable_names
from .fields import Settings as Settings
from .overrides import Overrides as Overrides
from .overrides import OverridesBesideOutbox as OverridesBesideOutbox
from .parsing import PolicyVersion as PolicyVersion

__all__ = [
    "COOKIE_MAX_AGE",
    "Overrides",
    "OverridesBesideOutbox",
    "PolicyVersion",
    "Settings",
    "variable_names",
]
