"""Serve the WSGI app with waitress on the socket that the first argument numbers.

Waitress's own command takes no socket.
"""

import socket
import sys

from waitress.server import create_server

from tests.servers.apps.wsgi import app

if __name__ == "__main__":
    create_server(app, sockets=[socket.socket(fileno=int(sys.argv[1]))]).run()
