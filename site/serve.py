"""Serve the built site on this machine: python site/serve.py [PORT]. Ctrl-C ends it.

Where nobody can press Ctrl-C (no terminal, as in continuous integration), it says the command and returns.
"""

from __future__ import annotations

import functools
import http.server
import sys
from pathlib import Path

BUILT = Path(__file__).resolve().parent.parent / "build" / "site"
PORT = 8000
HOST = "127.0.0.1"


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Files of the site, without a line for each request."""

    def log_message(self, format: str, *args: object) -> None:
        pass


def open_server(port: int) -> http.server.ThreadingHTTPServer:
    """A server of the site on `port`, or on any free one where that is taken."""
    handler = functools.partial(Quiet, directory=str(BUILT))
    try:
        return http.server.ThreadingHTTPServer((HOST, port), handler)
    except OSError:
        return http.server.ThreadingHTTPServer((HOST, 0), handler)


def main() -> None:
    if not (BUILT / "index.html").is_file():
        sys.exit("There is no built site in build/site. Run `make site`.")
    if not sys.stdin.isatty() or not sys.stdout.isatty():
        print(f"The site is in {BUILT}. Serve it with: {sys.executable} site/serve.py")
        return
    with open_server(int(sys.argv[1]) if len(sys.argv) > 1 else PORT) as server:
        print(f"The site: http://{HOST}:{server.server_port}/   (Ctrl-C ends it)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    main()
