"""What the small Hub of `hub_server.py` takes in: an upload as huggingface_hub speaks it without hf-xet, and faults.

The steps are create, preupload (which files are LFS objects), batch (which objects are not here yet), PUT of each of
these, verify, and commit. Only the commit makes files visible, all at once; what it wrote is served as any repository.
"""

import base64
import contextlib
import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

LARGE = (".safetensors", ".gguf", ".bin", ".pt", ".parquet")  # the Hub keeps these in LFS, whose ETag is a SHA-256
CHUNK = 1 << 20  # bytes
USER, TOKEN = "learner", "hf_" + "t" * 34  # the only login


class Uploads:
    """The part of a Hub that keeps uploads, on the disk, in a folder of its own until `forget`.

    Attributes:
        bodies: what came in with each request so far, but for the large files.
    """

    def __init__(self) -> None:
        self.store = Path(tempfile.mkdtemp(prefix="hub"))
        self.bodies: list[bytes] = []
        self.places: dict[str, tuple[str, int]] = {}  # the path to PUT an object to: its SHA-256 and bytes
        self.refused: set[str] = set()
        self.cut_after: int | None = None

    def refuse(self, name: str) -> None:
        """Answer 403 to whoever creates the repository `name` or writes into it."""
        self.refused.add(name)

    def cut_upload(self, after_bytes: int) -> None:
        """Close the connection in the midst of every PUT that is longer than this."""
        self.cut_after = after_bytes

    def forget(self) -> None:
        shutil.rmtree(self.store, ignore_errors=True)


class TakesUploads:
    """The methods of a request handler that answer the steps; the rest of the handler is in `hub_server.py`."""

    def logged_in(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def take(self, path: str, body: bytes) -> bool:
        """Answer a step of an upload; False when the path is of no such step."""
        for pattern, step in STEPS.items():
            if match := re.fullmatch(pattern, path):
                if not self.logged_in():
                    self.json({"error": "Invalid username or password."}, 401)
                elif match.groups():
                    self._write(step, match[1], body)
                else:
                    step(self, body)
                return True
        return False

    def _write(self, step: Callable, name: str, body: bytes) -> None:
        if name in self.server.hub.refused:
            self._refuse(name)
        elif repository := self.repository("model", name, "main"):
            step(self, repository, body)

    def _refuse(self, name: str) -> None:
        message = f"You don't have the rights to write into {name}"
        self.json({"error": message}, 403, {"X-Error-Message": message})

    def _who(self, _: bytes) -> None:
        login = {"type": "access_token", "accessToken": {"displayName": "course", "role": "write"}}
        self.json({"type": "user", "name": USER, "orgs": [], "auth": login})

    def _valid(self, body: bytes) -> None:
        """Of all that the Hub wants of a card's head, that its base is a repository."""
        base = re.search("^base_model: (.*)", json.loads(body)["content"], re.MULTILINE)
        wrong = [f'"base_model" with value "{base[1]}" is not valid.'] if base and base[1].count("/") != 1 else []
        self.json({"errors": [{"message": text} for text in wrong], "warnings": []}, 400 if wrong else 200)

    def _create(self, body: bytes) -> None:
        hub, asked = self.server.hub, json.loads(body)
        name = f"{asked['organization'] or USER}/{asked['name']}"
        if name in hub.refused:
            return self._refuse(name)
        here = ("model", name) in hub.repositories
        if not here:
            hub.add_model(name, tempfile.mkdtemp(dir=hub.store))
            hub.repositories["model", name].private = asked.get("visibility") == "private"
        url = {"url": f"{hub.endpoint}/{name}", "name": name}
        return self.json(url | {"error": "You already created this model repo"}, 409) if here else self.json(url)

    def _preupload(self, repository: Any, body: bytes) -> None:
        """Which files are large, and what is known of those that are there."""
        answer = [{"path": file["path"], "shouldIgnore": False} for file in json.loads(body)["files"]]
        for file in answer:
            file["uploadMode"] = "lfs" if file["path"].endswith(LARGE) else "regular"
            file["oid"] = repository.etag(file["path"]) if file["path"] in repository.files() else None
        self.json({"files": answer})

    def _batch(self, repository: Any, body: bytes) -> None:
        """Where to put each object that is not here yet."""
        hub = self.server.hub
        answer = [{"oid": entry["oid"], "size": entry["size"]} for entry in json.loads(body)["objects"]]
        for entry in answer:
            if not (hub.store / entry["oid"]).exists():
                place, verify = f"/lfs/{uuid4().hex}", f"{hub.endpoint}/{repository.name}.git/info/lfs/objects/verify"
                hub.places[place] = entry["oid"], entry["size"]
                entry["actions"] = {"upload": {"href": hub.endpoint + place}, "verify": {"href": verify}}
        self.json({"transfer": "basic", "objects": answer})

    def do_PUT(self) -> None:
        """One object in one part; kept when size and SHA-256 are the batch's. Needs no login, as on S3."""
        hub, size, received = self.server.hub, int(self.headers["Content-Length"]), 0
        end = size if hub.cut_after is None else min(size, hub.cut_after)
        digest, part = hashlib.sha256(), hub.store / f"{uuid4().hex}.part"
        with part.open("wb") as file, contextlib.suppress(ConnectionError):
            while received < end and (chunk := self.rfile.read(min(CHUNK, end - received))):
                file.write(chunk)
                digest.update(chunk)
                received += len(chunk)
        if received < size:
            self.close_connection = True
            return self.record(0, 0)
        if hub.places.get(self.path) != (digest.hexdigest(), size):
            return self.json({"error": "Not the object that was announced"}, 400)
        part.rename(hub.store / digest.hexdigest())
        return self.json({})

    def _verify(self, _: Any, body: bytes) -> None:
        asked = json.loads(body)
        path = self.server.hub.store / asked["oid"]
        self.json({}, 200 if path.exists() and path.stat().st_size == asked["size"] else 404)

    def _commit(self, repository: Any, body: bytes) -> None:
        hub, folder = self.server.hub, Path(tempfile.mkdtemp(dir=self.server.hub.store))
        shutil.copytree(repository.folder, folder, dirs_exist_ok=True)
        for line in body.splitlines()[1:]:  # the first is a title
            entry = json.loads(line)
            path = folder / entry["value"]["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            if entry["key"] == "file":
                path.write_bytes(base64.b64decode(entry["value"]["content"]))
            elif entry["key"] == "deletedFile":
                path.unlink()
            elif (here := hub.store / entry["value"]["oid"]).exists():
                shutil.copyfile(here, path)
            else:
                return self.json({"error": f"{path.name} is a pointer to an object that is not here"}, 400)
        repository.folder = folder
        url = f"{hub.endpoint}/{repository.name}/commit/{repository.commit}"
        return self.json({"success": True, "commitOid": repository.commit, "commitUrl": url})


STEPS = {  # the path of a request: who answers it; a group is the repository's name
    "/api/whoami-v2": TakesUploads._who,
    "/api/validate-yaml": TakesUploads._valid,
    "/api/repos/create": TakesUploads._create,
    "/api/models/(.+)/preupload/main": TakesUploads._preupload,
    r"/(.+)\.git/info/lfs/objects/batch": TakesUploads._batch,
    r"/(.+)\.git/info/lfs/objects/verify": TakesUploads._verify,
    "/api/models/(.+)/commit/main": TakesUploads._commit,
}
