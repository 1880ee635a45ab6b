"""A small hub on this machine: the calls that reading a model and pushing one make."""

import base64
import hashlib
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def forget_hub_library() -> None:
    """Let its next import read the environment anew."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "huggingface_hub"]:
        del sys.modules[name]


def commit_of(files: dict[str, bytes]) -> str:
    return hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()


class Hub(ThreadingHTTPServer):
    """Repositories as name -> file -> content; `requests` lists what was asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[str, dict[str, bytes]] = {}
        self.tags: dict[str, dict[str, dict[str, bytes]]] = {}  # older versions of repositories
        self.uploads: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.commits: list[list[str]] = []
        self.gated: set[str] = set()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.resolve()

    def do_GET(self) -> None:
        self.resolve()

    def resolve(self) -> None:
        """/{owner}/{name}/resolve/{revision}/{file}"""
        self.server.requests.append(f"{self.command} {self.path}")
        if "/resolve/" not in self.path:
            return self.answer(404, code="RepoNotFound")
        _, owner, name, _, revision, file = self.path.split("/", 5)
        repo = f"{owner}/{name}"
        if repo not in self.server.repos:
            return self.answer(404, code="RepoNotFound")
        if repo in self.server.gated:
            return self.answer(403, code="GatedRepo")
        versions = {"main": self.server.repos[repo], **self.server.tags.get(repo, {})}
        versions |= {commit_of(files): files for files in versions.values()}
        if revision not in versions:
            return self.answer(404, code="RevisionNotFound")
        files = versions[revision]
        commit = commit_of(files)
        if file not in files:
            return self.answer(404, code="EntryNotFound", commit=commit)
        self.answer(200, files[file], commit=commit)

    def do_PUT(self) -> None:
        self.server.uploads[self.path.rpartition("/")[2]] = self.body()
        self.answer(200)

    def do_POST(self) -> None:
        self.server.requests.append(f"POST {self.path}")
        body = self.body()
        if self.path == "/api/repos/create":
            wanted = json.loads(body)
            repo = f"{wanted.get('organization', 'me')}/{wanted['name']}"
            if self.headers["Authorization"] != "Bearer secret":
                return self.answer(401, b'{"error": "who are you"}')
            self.server.repos.setdefault(repo, {})
            self.answer_json({"url": f"{self.server.address}/{repo}"})
        elif self.path == "/api/validate-yaml":
            self.answer_json({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            files = [file["path"] for file in json.loads(body)["files"]]
            modes = {path: "lfs" if path.endswith(".safetensors") else "regular" for path in files}
            answer = [
                {"path": path, "uploadMode": mode, "shouldIgnore": False}
                for path, mode in modes.items()
            ]
            self.answer_json({"files": answer})
        elif self.path.endswith("/info/lfs/objects/batch"):
            objects = [
                {
                    **entry,
                    "actions": {"upload": {"href": f"{self.server.address}/lfs/{entry['oid']}"}},
                }
                for entry in json.loads(body)["objects"]
            ]
            self.answer_json({"transfer": "basic", "objects": objects})
        else:
            self.commit(body)

    def commit(self, body: bytes) -> None:
        """/api/models/{owner}/{name}/commit/{revision}: one JSON object a line"""
        repo = "/".join(self.path.split("/")[3:5])
        names = []
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                self.server.repos[repo][value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                self.server.repos[repo][value["path"]] = self.server.uploads[value["oid"]]
            else:
                continue
            names.append(value["path"])
        self.server.commits.append(names)
        address = f"{self.server.address}/{repo}/commit/{'0' * 40}"
        self.answer_json({"success": True, "commitOid": "0" * 40, "commitUrl": address})

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def answer_json(self, content: Any) -> None:
        self.answer(200, json.dumps(content).encode())

    def answer(
        self, status: int, content: bytes = b"", *, code: str = "", commit: str = ""
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        if code:
            self.send_header("X-Error-Code", code)
        if commit:
            self.send_header("X-Repo-Commit", commit)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@contextmanager
def running_hub() -> Iterator[Hub]:
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
