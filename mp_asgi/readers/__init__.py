"""Read the cookies of consent managers. Every reader answers; what follows, the policy decides."""

from .app_reader import AppReader as AppReader
from .base import DENIED as DENIED
from .base import GRANTED as GRANTED
from .base import NOTHING as NOTHING
from .base import STALE as STALE
from .base import UNREADABLE as UNREADABLE
from .base import Reader as Reader
from .base import Reading as Reading
from .base import Said as Said
from .combine import NO_MANAGERS as NO_MANAGERS
from .combine import Heard as Heard
from .combine import ManagersSaid as ManagersSaid
from .combine import read_managers as read_managers
from .cookie_equals import CookieEquals as CookieEquals
from .registry import READERS as READERS
from .registry import make_reader as make_reader
from .registry import make_readers as make_readers
from .registry import parse_readers as parse_readers
from .registry import with_token as with_token
