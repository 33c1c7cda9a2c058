"""Stand in for Mixpanel on a developer's machine. Nothing here is imported by the product."""

from .faults import Fault as Fault
from .server import run_in_thread as run_in_thread
from .standin import StandIn as StandIn

__all__ = ["Fault", "StandIn", "run_in_thread"]
