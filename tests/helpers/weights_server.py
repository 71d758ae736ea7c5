"""A real web server on loopback that gives one file of published weights, and misbehaves on request."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from dmma_core.storage import download, weights

DATA = np.random.default_rng(0).bytes((3 << 20) + 17)
SHA256 = hashlib.sha256(DATA).hexdigest()
NAME = "mmaudio_small_16k"


class Server(ThreadingHTTPServer):
    """Serves DATA at every path. `break_after` bytes of each answer the connection is closed, `breaks` times.

    `version` is the header that names the version of the data, if any; If-Range is compared with it, if it is heeded.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.data, self.break_after, self.breaks, self.knows_ranges, self.status = DATA, 0, 0, True, 200
        self.version: tuple[str, str] | None = ("ETag", '"1"')
        self.heeds_if_range = True
        self.ranges: list[str | None] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers.get("Range")
        server.ranges.append(wanted)
        fits = not server.heeds_if_range or (server.version and self.headers.get("If-Range") == server.version[1])
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and server.knows_ranges and fits else 0
        if server.status != 200 or start >= len(server.data):
            self.send_response(416 if server.status == 200 else server.status)
            self.send_header("Content-Range", f"bytes */{len(server.data)}")
            self.end_headers()
            return
        body = server.data[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        if server.version:
            self.send_header(*server.version)
        self.end_headers()
        if server.breaks:
            server.breaks -= 1
            body = body[: server.break_after]
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def weights_server() -> Iterator[Server]:
    """A server that runs within the block."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def use_empty_cache(folder: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a registry whose file NAME lies on the test's server."""
    entry = replace(weights.REGISTRY[NAME], url=f"{server.url}/x.pth", size_bytes=len(DATA), sha256=SHA256)
    monkeypatch.setattr(weights, "REGISTRY", {**weights.REGISTRY, NAME: entry})
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
    monkeypatch.setenv("DMMA_CACHE", str(folder))
    return folder
