"""The metadata service of a machine (IMDSv2), on loopback."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

TOKEN = "AQAAAexample=="  # noqa: S105  # what a real one looks like


class MetadataServer:
    """Answers as EC2's does; `interrupt` makes it give notice."""

    def __init__(self, instance: str) -> None:
        self.answers = {"/latest/meta-data/instance-id": instance}
        answers = self.answers

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                asked = self.path == "/latest/api/token" and self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
                self._give(200 if asked else 400, TOKEN)

            def do_GET(self) -> None:
                if self.headers["X-aws-ec2-metadata-token"] != TOKEN:
                    self._give(401, "")
                else:
                    self._give(200 if self.path in answers else 404, answers.get(self.path, ""))

            def _give(self, status: int, text: str) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def interrupt(self) -> None:
        """Give notice that the machine will be terminated."""
        action = {"action": "terminate", "time": "2026-01-31T12:02:00Z"}
        self.answers["/latest/meta-data/spot/instance-action"] = json.dumps(action)

    def __enter__(self) -> "MetadataServer":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
