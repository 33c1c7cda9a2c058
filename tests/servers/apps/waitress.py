"""Serve a WSGI app with waitress on the socket that the first argument numbers.

Waitress's own command takes no socket.
"""

import importlib
import socket
import sys

from waitress.server import create_server

if __name__ == "__main__":
    number, module, name = sys.argv[1:]
    app = getattr(importlib.import_module(module), name)
    create_server(app, sockets=[socket.socket(fileno=int(number))]).run()
