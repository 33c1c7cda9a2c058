"""Make `python -m mp_asgi` the same as `mp-asgi`."""

import sys

from .cli import main

sys.exit(main())
