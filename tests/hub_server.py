"""A small Hub on the loopback: enough of the protocol for huggingface_hub and datasets, and the faults a learner meets.

Serves the files of real folders under Hub names. Point a client at it with `HF_ENDPOINT` (read when huggingface_hub is
imported, so set it before) and switch hf-xet off with `HF_HUB_DISABLE_XET=1`. Needs the standard library only.

    with HubServer() as hub:
        hub.add_model("HuggingFaceTB/SmolLM2-135M-Instruct", folder)
        hub.add_dataset("yahma/alpaca-cleaned", other_folder)
        subprocess.run([...], env={**os.environ, **hub.environment(cache)})

Files are streamed from the disk. It takes uploads, too (`hub_upload.py`).
"""

import contextlib
import hashlib
import json
import re
import shutil
import socket
import threading
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from hub_upload import CHUNK, LARGE, TakesUploads, Uploads


class Request(NamedTuple):
    """One answered request: method, path with query, HTTP status (0: cut before), and the bytes of the body sent."""

    method: str
    path: str
    status: int
    sent: int


@lru_cache
def _digest(path: Path, algorithm: str, size: int, modified: int) -> str:
    """Hex digest of a file as git (`sha1`, of a blob) or LFS (`sha256`) names it; cached until the file changes."""
    digest = hashlib.new(algorithm)
    if algorithm == "sha1":
        digest.update(f"blob {size}\0".encode())
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


class _Repository:
    """The files of one folder, as the Hub would list them."""

    def __init__(self, kind: str, name: str, folder: Path) -> None:
        self.kind, self.name, self.folder = kind, name, Path(folder)
        self.private = False

    def files(self) -> dict[str, Path]:
        found = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return {path.relative_to(self.folder).as_posix(): path for path in found}

    @property
    def commit(self) -> str:
        """A hash that changes when a file of the folder is added, removed or written."""
        stats = [(name, path.stat().st_size, path.stat().st_mtime_ns) for name, path in self.files().items()]
        return hashlib.sha1(json.dumps([self.name, stats]).encode()).hexdigest()

    def entry(self, name: str) -> dict:
        """What `/tree` says of one file."""
        path = self.files()[name]
        entry = {"type": "file", "path": name, "size": path.stat().st_size, "oid": self.etag(name)}
        if path.suffix in LARGE:
            entry["lfs"] = {"oid": entry["oid"], "size": entry["size"], "pointerSize": 134}
        return entry

    def etag(self, name: str) -> str:
        path = self.files()[name]
        stat = path.stat()
        return _digest(path, "sha256" if path.suffix in LARGE else "sha1", stat.st_size, stat.st_mtime_ns)

    def info(self, gated: bool, with_sizes: bool) -> dict:
        files = self.files().items()
        siblings = [{"rfilename": n} | ({"size": path.stat().st_size} if with_sizes else {}) for n, path in files]
        info = {"_id": self.commit[:24], "id": self.name, "sha": self.commit, "siblings": siblings, "tags": []}
        info |= {"private": self.private, "gated": "manual" if gated else False, "disabled": False}
        return info | ({"modelId": self.name} if self.kind == "model" else {})


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    hub: "HubServer"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is part of the tests, not something to print a traceback for."""


class HubServer(Uploads):
    """A Hub on 127.0.0.1 with faults on demand. Use as a context manager.

    Attributes:
        endpoint: what to put into `HF_ENDPOINT`.
        requests: every request answered so far, as `Request`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.port = 0  # takes a free one
        self.requests: list[Request] = []
        self.connections: set[socket.socket] = set()
        self.repositories: dict[tuple[str, str], _Repository] = {}
        self.gates: dict[str, int] = {}
        self.cuts: dict[tuple[str, str], int] = {}
        self.broken_status = 0
        self._server: _Server | None = None

    def __enter__(self) -> "HubServer":
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        shutil.rmtree(self.store)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environment(self, cache: Path) -> dict[str, str]:
        """Variables for a client process: this endpoint, a cache of its own in the folder `cache`, plain HTTP."""
        names = {"HF_ENDPOINT": self.endpoint, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1", "no_proxy": "*"}
        return names | {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}

    def add_model(self, name: str, folder: Path) -> None:
        self.repositories["model", name] = _Repository("model", name, folder)

    def add_dataset(self, name: str, folder: Path) -> None:
        self.repositories["dataset", name] = _Repository("dataset", name, folder)

    def down(self, status: int = 0) -> None:
        """Refuse every connection; or, given an HTTP status such as 503, answer everything with it."""
        self.broken_status = status
        if not status:
            self._stop()

    def gate(self, name: str, status: int = 401) -> None:
        """Withhold the files of a repository as the Hub does: 401 without a login, 403 with one that lacks access.

        The list of files stays public, as on the Hub.
        """
        self.gates[name] = status

    def cut(self, name: str, filename: str, after_bytes: int) -> None:
        """Close the connection when `filename` has been sent up to this offset; a resumed download gets no further."""
        self.cuts[name, filename] = after_bytes

    def heal(self) -> None:
        """Take every fault back; the endpoint stays the same."""
        self.gates.clear()
        self.cuts.clear()
        self.refused.clear()
        self.cut_after = None
        self.broken_status = 0
        if self._server is None:
            self._start()

    def _start(self) -> None:
        self._server = _Server(("127.0.0.1", self.port), _Handler)
        self._server.hub = self
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def _stop(self) -> None:
        if self._server is None:
            return
        self._server.shutdown()
        self._server.server_close()
        self._server = None
        for connection in list(self.connections):  # connections kept alive would go on being served
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(TakesUploads, BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.hub.connections.add(self.connection)

    def finish(self) -> None:
        self.server.hub.connections.discard(self.connection)
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, *_: object) -> None:
        """Requests are kept in `HubServer.requests`, not printed."""

    def do_GET(self) -> None:
        hub = self.server.hub
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if hub.broken_status:
            return self.json({"error": "The Hub is out of order"}, hub.broken_status)
        hub.bodies.append(body)
        path = unquote(urlsplit(self.path).path)
        if self.take(path, body):
            return None
        if match := re.fullmatch(r"/api/(model|dataset)s/(.+?)(?:/(revision|tree|paths-info)/(.+))?", path):
            kind, name, question, rest = match.groups()
            return self._api(kind, name, question or "revision", rest or "main", body)
        if match := re.fullmatch(r"/(datasets/)?(.+?)/resolve/([^/]+)/(.+)", path):
            prefix, name, revision, filename = match.groups()
            return self._resolve("dataset" if prefix else "model", name, revision, filename)
        return self.json({"error": "Not served here"}, 404)

    do_HEAD = do_POST = do_GET

    def _api(self, kind: str, name: str, question: str, rest: str, body: bytes) -> None:
        revision, _, folder = rest.partition("/")
        repository = self.repository(kind, name, revision)
        if repository is None:
            return None
        query = parse_qs(urlsplit(self.path).query)
        if question == "revision":
            return self.json(repository.info(name in self.server.hub.gates, "blobs" in query))
        if question == "tree":
            return self._tree(repository, folder, recursive=query.get("recursive", [""])[0].lower() in ("true", "1"))
        wanted = parse_qs(body.decode()).get("paths", [])
        return self.json([repository.entry(path) for path in repository.files() if path in wanted])

    def _tree(self, repository: _Repository, folder: str, recursive: bool) -> None:
        prefix = folder.rstrip("/") + "/" if folder else ""
        inside = [name for name in repository.files() if name.startswith(prefix)]
        if prefix and not inside:
            return self._missing("EntryNotFound", f"{folder} does not exist", repository.commit)
        files = [name for name in inside if recursive or "/" not in name.removeprefix(prefix)]
        parents = {name[: name.index("/", len(prefix))] for name in inside if "/" in name.removeprefix(prefix)}
        folders = [{"type": "directory", "path": parent, "oid": "0" * 40, "size": 0} for parent in sorted(parents)]
        return self.json(folders + [repository.entry(name) for name in files])

    def _resolve(self, kind: str, name: str, revision: str, filename: str) -> None:
        repository = self.repository(kind, name, revision)
        if repository is None:
            return None
        if status := self.server.hub.gates.get(name):
            message = f"Access to {kind} {name} is restricted."
            return self.json({"error": message}, status, {"X-Error-Code": "GatedRepo", "X-Error-Message": message})
        if filename not in repository.files():
            return self._missing("EntryNotFound", "Entry not found", repository.commit)
        return self._file(repository, filename)

    def _file(self, repository: _Repository, filename: str) -> None:
        path = repository.files()[filename]
        size = path.stat().st_size
        start, status = 0, 200
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, status = int(match[1]), 206
            if start >= size:
                return self.json({"error": "Range not satisfiable"}, 416, {"Content-Range": f"bytes */{size}"})
        stop = min(int(match[2]) + 1, size) if match and match[2] else size
        headers = {"ETag": f'"{repository.etag(filename)}"', "X-Repo-Commit": repository.commit}
        headers |= {"Accept-Ranges": "bytes", "X-Linked-Size": size, "X-Linked-ETag": headers["ETag"]}
        headers |= {"Content-Type": "application/octet-stream", "Content-Length": stop - start}
        if status == 206:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        self._head(status, headers)
        sent = 0 if self.command == "HEAD" else self._send(path, start, stop, (repository.name, filename))
        self.record(status, sent)

    def _send(self, path: Path, start: int, stop: int, key: tuple[str, str]) -> int:
        """Stream a range of a file; returns the bytes sent, fewer than asked for where the file is cut."""
        end = min(stop, max(start, self.server.hub.cuts.get(key, stop)))
        position = start
        with path.open("rb") as file:
            file.seek(start)
            while position < end and (chunk := file.read(min(CHUNK, end - position))):
                self.wfile.write(chunk)
                position += len(chunk)
        if end < stop:
            self.wfile.flush()
            self.close_connection = True
        return position - start

    def repository(self, kind: str, name: str, revision: str) -> _Repository | None:
        repository = self.server.hub.repositories.get((kind, name))
        if repository is None or (repository.private and not self.logged_in()):
            self._missing("RepoNotFound", "Repository not found")
        elif revision not in ("main", repository.commit):
            self._missing("RevisionNotFound", f"Invalid rev id: {revision}")
        else:
            return repository
        return None

    def _missing(self, code: str, message: str, commit: str = "") -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": message} | ({"X-Repo-Commit": commit} if commit else {})
        self.json({"error": message}, 404, headers)

    def json(self, answer: object, status: int = 200, headers: dict | None = None) -> None:
        body = json.dumps(answer).encode()
        self._head(status, {"Content-Type": "application/json", "Content-Length": len(body)} | (headers or {}))
        if self.command != "HEAD":
            self.wfile.write(body)
        self.record(status, len(body))

    def record(self, status: int, sent: int) -> None:
        self.server.hub.requests.append(Request(self.command, self.path, status, sent))

    def _head(self, status: int, headers: dict) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()
