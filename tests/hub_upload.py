"""What the small Hub of `hub_server.py` takes in: an upload as huggingface_hub speaks it without hf-xet, and faults.

Its steps are those of `STEPS`, and a PUT of each large file that is not here yet. Only the commit makes files visible,
all at once; what it wrote is served as any repository.
"""

import base64
import contextlib
import hashlib
import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any
from uuid import uuid4

LARGE = (".safetensors", ".gguf", ".bin", ".pt", ".parquet")  # the Hub keeps these in LFS, whose ETag is a SHA-256
CHUNK = 1 << 20  # bytes
TOKEN = "hf_" + "t" * 34  # the only login


class Uploads:
    """The part of a Hub that keeps uploads on the disk. `bodies`: what came in with each request, but for PUTs."""

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


class TakesUploads:
    """The methods of a request handler that answer the steps; the rest of the handler is in `hub_server.py`."""

    def logged_in(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def take(self, path: str, body: bytes) -> bool:
        """Answer a step of an upload; False when the path is of no such step."""
        found = [(match, step) for pattern, step in STEPS.items() if (match := re.fullmatch(pattern, path))]
        for match, step in found:
            asked = [json.loads(line) for line in body.splitlines()]
            named = asked[0] if asked else {}
            name = match[1] if match.groups() else f"{named.get('organization')}/{named.get('name')}"
            if not self.logged_in():
                self.json({"error": "Invalid username or password."}, 401)
            elif name in self.server.hub.refused:
                message = f"You don't have the rights to write into {name}"
                self.json({"error": message}, 403, {"X-Error-Message": message})
            elif not match.groups():
                step(self, name, *asked)
            elif repository := self.repository("model", name, "main"):
                step(self, repository, *asked)
        return bool(found)

    def _who(self, _: str) -> None:
        self.json({"type": "user", "name": "learner", "orgs": [], "auth": {"accessToken": {"role": "write"}}})

    def _card(self, _: str, asked: dict) -> None:
        """Of all that the Hub wants of a card's head, that its base is a repository."""
        base = re.search("^base_model: (.*)", asked["content"], re.MULTILINE)
        wrong = [f'"base_model" with value "{base[1]}" is not valid.'] if base and base[1].count("/") != 1 else []
        self.json({"errors": [{"message": text} for text in wrong], "warnings": []}, 400 if wrong else 200)

    def _create(self, name: str, asked: dict) -> None:
        hub, here = self.server.hub, ("model", name) in self.server.hub.repositories
        if not here:
            hub.add_model(name, tempfile.mkdtemp(dir=hub.store))
            hub.repositories["model", name].private = asked.get("visibility") == "private"
        self.json({"url": f"{hub.endpoint}/{name}"}, 409 if here else 200)

    def _preupload(self, repository: Any, asked: dict) -> None:
        """Which files are large, and what is known of those that are there."""
        answer = [{"path": file["path"], "shouldIgnore": False} for file in asked["files"]]
        for file in answer:
            file["uploadMode"] = "lfs" if file["path"].endswith(LARGE) else "regular"
            file["oid"] = repository.etag(file["path"]) if file["path"] in repository.files() else None
        self.json({"files": answer})

    def _batch(self, repository: Any, asked: dict) -> None:
        """Where to put each object that is not here yet."""
        hub = self.server.hub
        for entry in asked["objects"]:
            if not (hub.store / entry["oid"]).exists():
                place, verify = f"/lfs/{uuid4().hex}", f"{hub.endpoint}/{repository.name}.git/info/lfs/objects/verify"
                hub.places[place] = entry["oid"], entry["size"]
                entry["actions"] = {"upload": {"href": hub.endpoint + place}, "verify": {"href": verify}}
        self.json({"transfer": "basic", "objects": asked["objects"]})

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
            self.record(0, 0)
        elif hub.places.get(self.path) != (digest.hexdigest(), size):
            self.json({"error": "Not the object that was announced"}, 400)
        else:
            part.rename(hub.store / digest.hexdigest())
            self.json({})

    def _verify(self, _: Any, asked: dict) -> None:
        self.json({}, 200 if (self.server.hub.store / asked["oid"]).exists() else 404)

    def _commit(self, repository: Any, _: dict, *entries: dict) -> None:
        hub, folder = self.server.hub, Path(tempfile.mkdtemp(dir=self.server.hub.store))
        shutil.copytree(repository.folder, folder, dirs_exist_ok=True)
        for value in (entry["value"] for entry in entries):
            content = base64.b64decode(value["content"]) if "content" in value else None
            path = folder / value["path"]
            path.write_bytes((hub.store / value["oid"]).read_bytes() if content is None else content)
        repository.folder = folder
        self.json({"commitOid": repository.commit, "commitUrl": f"{hub.endpoint}/{repository.name}/commit/main"})


STEPS = {  # the path of a request: who answers it; a group is the repository's name
    "/api/whoami-v2": TakesUploads._who,
    "/api/validate-yaml": TakesUploads._card,
    "/api/repos/create": TakesUploads._create,
    "/api/models/(.+)/preupload/main": TakesUploads._preupload,
    r"/(.+)\.git/info/lfs/objects/batch": TakesUploads._batch,
    r"/(.+)\.git/info/lfs/objects/verify": TakesUploads._verify,
    "/api/models/(.+)/commit/main": TakesUploads._commit,
}
