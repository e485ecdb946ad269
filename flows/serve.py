"""A folder of finished pages over HTTP, for people on this machine, and nothing else of the disk.

    python -m flows.serve FOLDER --port 4210

Only files are given, to GET and HEAD; a folder is its index.html or nothing. What leads out of the folder by a link,
and what a browser asks for under another name than loopback's (a page elsewhere whose name points here), is refused.
"""

from __future__ import annotations

import argparse
import posixpath
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO
from urllib.parse import unquote

from flows.settings import LOOPBACK, REPORTS_PORT
from loupe.names import leads_out

TYPES = {  # the machine's own table may lack them, or say otherwise
    ".avif": "image/avif",
    ".css": "text/css; charset=utf-8",
    ".csv": "text/csv; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".md": "text/plain; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".webp": "image/webp",
    ".woff2": "font/woff2",
}
UNKNOWN = "application/octet-stream"  # saved, never shown
SECONDS = 30.0  # without a word from the browser


class Handler(SimpleHTTPRequestHandler):
    """Gives the files of one folder."""

    server_version = "loupe"
    sys_version = ""
    timeout = SECONDS
    extensions_map = TYPES

    def guess_type(self, path: str | object) -> str:
        """The type by our own table alone."""
        return TYPES.get(posixpath.splitext(str(path))[1].lower(), UNKNOWN)

    def send_head(self) -> IO[bytes] | None:  # type: ignore[override]  # typeshed promises more than copyfile needs
        """Answer, if a file of ours was asked for by our own name."""
        if self.headers.get("Host", "").partition(":")[0] not in (LOOPBACK, "localhost"):
            self.send_error(HTTPStatus.FORBIDDEN)
            return None
        if "\0" in unquote(self.path) or not self._ours(Path(self.translate_path(self.path))):
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        return super().send_head()

    def _ours(self, path: Path) -> bool:
        """Whether a path is a file or a folder with a page, and lies in our folder even when links are followed."""
        if path.is_dir():
            path /= "index.html"
        hidden = any(part.startswith(".") for part in path.relative_to(self.directory).parts)
        return not hidden and path.is_file() and not leads_out(path, Path(self.directory))

    def list_directory(self, path: str | object) -> None:
        """Folders are not listed: what there is, the pages link to."""
        self.send_error(HTTPStatus.NOT_FOUND)

    def end_headers(self) -> None:
        """With each answer, what keeps a browser from guessing and from keeping what may change."""
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-cache")
        self.send_header("Referrer-Policy", "no-referrer")
        super().end_headers()


def server(folder: Path, port: int) -> ThreadingHTTPServer:
    """A server of a folder on loopback, not yet running; call `serve_forever`, then `server_close`.

    Args:
        folder: what it gives; need not be there yet.
        port: 0 for a free one, which `server_port` of the result names.
    """
    return ThreadingHTTPServer((LOOPBACK, port), partial(Handler, directory=str(folder)))


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(prog="python -m flows.serve", description="Serve a folder of pages on loopback.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=REPORTS_PORT)
    arguments = parser.parse_args()
    with server(arguments.folder, arguments.port) as pages:
        pages.serve_forever()


if __name__ == "__main__":
    main()
