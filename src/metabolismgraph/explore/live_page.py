"""The page of an exploration for a browser of this computer, made again from the journal at every request.

The server listens on the loopback address only. Addresses begin with a random token, so that other users of the
computer and pages of other servers cannot read them. It serves the page and the figures of runs, and nothing else.
"""

from __future__ import annotations

import hmac
import secrets
import urllib.parse
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from metabolismgraph.errors import InputError
from metabolismgraph.explore.journal import JOURNAL, Journal
from metabolismgraph.explore.report import render_report
from metabolismgraph.runs.folder import REPORT

_ADDRESS = "127.0.0.1"
_FIGURES = "runs"


class LivePage(ThreadingHTTPServer):
    """A server for the page of an exploration; `serve_forever` runs it.

    Args:
        folder: of the exploration.
        port: 0: a free one.

    Raises:
        InputError: the port cannot be used.
    """

    daemon_threads = True

    def __init__(self, folder: Path, port: int = 0):
        self.folder, self.token = folder, secrets.token_urlsafe(16)
        try:
            super().__init__((_ADDRESS, port), _Handler)
        except (OSError, OverflowError) as error:
            raise InputError(f"port {port} cannot be used ({error}); give another one, or none, with --port") from None

    @property
    def address(self) -> str:
        """Where a browser finds the page."""
        return f"http://{_ADDRESS}:{self.server_address[1]}/{self.token}/{REPORT}"

    def content(self, path: str) -> tuple[str, bytes] | None:
        """The type and the content of what is behind a path; None if nothing is."""
        token, _, name = urllib.parse.unquote(path.partition("?")[0]).lstrip("/").partition("/")
        if not hmac.compare_digest(token.encode(errors="replace"), self.token.encode()):
            return None
        if name == REPORT:
            journal = Journal(self.folder / JOURNAL)
            text = render_report(self.folder, journal.read(), live=journal.is_held)
            return "text/html; charset=utf-8", text.encode(errors="replace")
        try:
            figure = (self.folder / name).resolve()
            if figure.suffix == ".png" and (self.folder / _FIGURES).resolve() in figure.parents:
                return "image/png", figure.read_bytes()
        except (OSError, ValueError):
            pass
        return None


class _Handler(BaseHTTPRequestHandler):
    server: LivePage

    def do_GET(self) -> None:
        # A name that another server gave this address to (DNS rebinding) is not the address itself.
        if self.headers.get("Host") != f"{_ADDRESS}:{self.server.server_address[1]}":
            self.send_error(HTTPStatus.FORBIDDEN)
            return
        try:
            found = self.server.content(self.path)
        except InputError as error:
            found = "text/plain; charset=utf-8", str(error).encode(errors="replace")
        if found is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        kind, content = found
        self.send_response(HTTPStatus.OK)
        for name, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(content))),
            ("Cache-Control", "no-store"),
            ("Referrer-Policy", "no-referrer"),
            ("X-Content-Type-Options", "nosniff"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not logged."""
