"""A Google Cloud Storage server on loopback, in this process, for all gs:// URIs in tests.

It is gcp-storage-emulator, with three features added that gcsfs needs: requests are accepted in threads, `moveTo`
renames an object, and uploads and deletions honour `ifGenerationMatch` (without it, exclusive creation overwrites). Objects
may be called `../x`, as in a real bucket. It can also refuse all requests, as a bucket without permission does.
"""

# ruff: noqa: N802  (the handler names are those of http.server)

import io
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote, urlsplit

from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers.buckets import create_bucket
from gcp_storage_emulator.handlers.objects import _make_object_resource
from gcp_storage_emulator.server import Request, RequestHandler
from gcp_storage_emulator.storage import Storage

_MOVE = re.compile(r"(?:/storage/v1)?/b/(?P<bucket>[^/]+)/o/(?P<source>[^/]+)/moveTo/o/(?P<target>[^/]+)")


class StorageEmulator:
    """The running server: `url` for STORAGE_EMULATOR_HOST, `make_bucket` for a new empty bucket, `refusing` for an
    outage.
    """

    def __init__(self) -> None:
        self._storage = _Storage(use_memory_fs=True)
        self._server = _Server(("127.0.0.1", 0), partial(_Handler, self._storage))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def make_bucket(self, name: str) -> str:
        """Create a bucket and return its URI."""
        with self._server.lock:
            create_bucket(name, self._storage)
        return f"gs://{name}"

    @contextmanager
    def refusing(self, object_part: str = "") -> Iterator[None]:
        """Respond "forbidden", inside the block, to requests for objects with `object_part` in their names.

        gcsfs then fails at once, whereas it retries an unreachable server for half a minute.
        """
        self._server.refused = object_part
        try:
            yield
        finally:
            self._server.refused = None


@contextmanager
def storage_emulator() -> Iterator[StorageEmulator]:
    """Serve until the block ends."""
    emulator = StorageEmulator()
    thread = threading.Thread(target=emulator._server.serve_forever, name="storage-emulator", daemon=True)
    thread.start()
    try:
        yield emulator
    finally:
        emulator._server.shutdown()
        emulator._server.server_close()
        thread.join()


class _Storage(Storage):
    def _object_path(self, bucket_name: str, file_name: str) -> str:
        """Where the contents are kept: one level below the bucket, so that no part of a name is taken for a path."""
        return f"{bucket_name}/{quote(file_name, safe='')}"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self.lock = threading.Lock()  # the emulator's storage is not thread-safe
        self.refused: str | None = None


class _Handler(RequestHandler):
    def parse_request(self) -> bool:
        """Read the request's head; False if a response was sent already."""
        if not super().parse_request():
            return False
        if self.server.refused is None or self.server.refused not in unquote(self.path):
            return True
        self._answer(403, {"error": {"code": 403, "message": "forbidden for a while"}})
        return False

    def do_GET(self) -> None:
        with self.server.lock:
            super().do_GET()

    def do_PUT(self) -> None:
        with self.server.lock:
            super().do_PUT()

    def do_DELETE(self) -> None:
        _, _, name = urlsplit(self.path).path.partition("/o/")
        with self.server.lock:
            if self._precondition_fails(unquote(name)):
                self._answer(412, {"error": {"code": 412, "message": "conditionNotMet"}})
            else:
                super().do_DELETE()

    def do_PATCH(self) -> None:
        with self.server.lock:
            super().do_PATCH()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.server.lock:
            if move := _MOVE.fullmatch(urlsplit(self.path).path):
                self._move(*(unquote(part) for part in move.groups()))
            elif self._precondition_fails(self._uploaded_name(body)):
                self._answer(412, {"error": {"code": 412, "message": "conditionNotMet"}})
            else:
                self.rfile = io.BytesIO(body)
                super().do_POST()

    def _move(self, bucket: str, source: str, target: str) -> None:
        try:
            data, old = self.storage.get_file(bucket, source), self.storage.get_file_obj(bucket, source)
        except NotFound:
            self._answer(404, {"error": {"code": 404, "message": "notFound"}})
            return
        moved = _make_object_resource("", bucket, target, old["contentType"], old["size"], old)
        self.storage.create_file(bucket, target, data, moved)
        self.storage.delete_file(bucket, source)
        self._answer(200, moved)

    def _uploaded_name(self, body: bytes) -> str:
        query = parse_qs(urlsplit(self.path).query)
        if "name" in query:
            return query["name"][0]
        self.rfile = io.BytesIO(body)
        data = Request(self, "POST").data or {}
        name: str = data.get("meta", data).get("name", "")
        return name

    def _precondition_fails(self, name: str) -> bool:
        address = urlsplit(self.path)
        query = parse_qs(address.query)
        wanted = query.get("ifGenerationMatch")
        if wanted is None or "upload_id" in query:
            return False
        bucket = re.search(r"/b/([^/]+)/o(/|$)", address.path)
        assert bucket is not None
        try:
            have = self.storage.get_file_obj(bucket[1], name)["generation"]
        except NotFound:
            have = "0"
        return bool(have != wanted[0])

    def _answer(self, status: int, value: object) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
