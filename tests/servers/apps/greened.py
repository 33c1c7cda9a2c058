"""Serve the WSGI app with eventlet on the socket that the first argument numbers.

What comes first patches the threads that everything else is made of.
"""

import os

# Its own resolver imports dnspython, and with it trio, which cannot be patched.
os.environ["EVENTLET_NO_GREENDNS"] = "yes"

import eventlet

eventlet.monkey_patch()

import socket  # noqa: E402
import sys  # noqa: E402

import eventlet.wsgi  # noqa: E402

from tests.servers.apps.wsgi import app  # noqa: E402

if __name__ == "__main__":
    eventlet.wsgi.server(socket.socket(fileno=int(sys.argv[1])), app)
