"""A reverse proxy on loopback that asks for a user and a password (HTTP Basic), as one does in front of a rented server."""

import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class PasswordProxy:
    """`refused` counts the requests that came without the right user and password."""

    port: int
    refused: int = 0
    passed: list[str] = field(default_factory=list)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"


@contextmanager
def password_proxy(user: str, password: str, target_port: int | None = None) -> Iterator[PasswordProxy]:
    """Pass on to `target_port` what bears the password, /health without one, as MLflow itself does; refuse the rest with 401.

    Without a target it answers an empty JSON object itself.
    """
    expected = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one_request(self) -> None:
            self.raw_requestline = self.rfile.readline(65537)
            if not self.raw_requestline or not self.parse_request():
                self.close_connection = True
                return
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.path != "/health" and self.headers.get("Authorization") != expected:
                proxy.refused += 1
                self._answer(401, {"WWW-Authenticate": 'Basic realm="mlflow"'}, b"You are not authenticated.")
                return
            proxy.passed.append(self.path)
            if target_port is None:
                self._answer(200, {"Content-Type": "application/json"}, b"{}")
                return
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _OWN_HEADERS}
            connection = HTTPConnection("127.0.0.1", target_port, timeout=60)
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            kept = {name: value for name, value in answer.getheaders() if name.lower() not in _OWN_HEADERS}
            self._answer(answer.status, kept, answer.read())
            connection.close()

        def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        proxy = PasswordProxy(server.server_port)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield proxy
        finally:
            server.shutdown()


_OWN_HEADERS = {"host", "connection", "transfer-encoding", "content-length", "authorization", "server", "date"}
