"""Runs an unmodified server of Python's own with SO_REUSEPORT: the first argument is its script.

Several of these share a port, with nobody supervising.
"""

import json
import os
import runpy
import socketserver
import sys


class Listening:
    """Tells when the server listens."""

    def server_activate(self, activate=socketserver.TCPServer.server_activate):
        activate(self)
        print(json.dumps({"event": "ready", "worker": {"pid": os.getpid()}}), flush=True)


socketserver.TCPServer.allow_reuse_port = True
socketserver.TCPServer.server_activate = Listening.server_activate
runpy.run_path(sys.argv[1], run_name="__main__")
