"""Published weights by name: from a cache folder, or from a web server on this machine."""

import io
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from support.commands import run_command
from support.documents import SMALL
from support.paths import ROOT

import video_mvit
from video_mvit.data.preparation.demo import write_demo_dataset
from video_mvit.errors import UserError
from video_mvit.weights.published_files import (
    CACHE_VARIABLE,
    PUBLISHED,
    fetch_published,
    is_published,
    published_name_at,
)

NAME = "mvitv2_s_k400"


class Server(ThreadingHTTPServer):
    """One file at every path; `announced` bytes are promised, None: as many as are sent."""

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.announced, self.num_requests = content, None, 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.server.num_requests += 1
        if "missing" in self.path:
            return self.send_error(404)
        self.send_response(200)
        length = self.server.announced or len(self.server.content)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(self.server.content)
        return None


@pytest.fixture(scope="module")
def content() -> bytes:
    """The file of a tiny video network, as SlowFast writes it."""
    model = video_mvit.create_model("mvitv2_demo", num_classes=5)
    file = io.BytesIO()
    torch.save({"model_state": model.state_dict()}, file)
    return file.getvalue()


@pytest.fixture
def server(content: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that has the file of `NAME`."""
    with Server(content) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        publish(monkeypatch, f"{server.address}/MViTv2_S.pyth")
        yield server
        server.shutdown()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache" / "weights"


def publish(monkeypatch: pytest.MonkeyPatch, address: str, sha256: str | None = None) -> None:
    file = replace(PUBLISHED[NAME], address=address, sha256=sha256)
    monkeypatch.setattr("video_mvit.weights.published_files.PUBLISHED", {**PUBLISHED, NAME: file})


def test_table_has_one_file_for_each_name_and_each_architecture_of_a_name() -> None:
    names = [file.file_name for file in PUBLISHED.values()]
    assert len(set(names)) == len(names)
    assert all(file.address.startswith("https://") for file in PUBLISHED.values())
    assert all(file.license in ("Apache-2.0", "BSD-3-Clause") for file in PUBLISHED.values())


def test_recipes_list_the_names_with_their_addresses_data_and_accuracies() -> None:
    page = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    lines = [line for line in page.splitlines() if "[download](" in line]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    listed = {row[0].strip("`"): row[-3:] for row in rows}
    classifiers = {name for name, file in PUBLISHED.items() if "box_ap" not in file.numbers}
    assert set(listed) == classifiers - {"mvitv2_s_k400_torchvision"}
    for name, row in listed.items():
        file = PUBLISHED[name]
        accuracy = f"{100 * file.numbers['top1']:.1f}" if file.numbers else ""
        assert row == [file.data, accuracy, f"[download]({file.address})"]


def test_name_is_fetched_once_told_with_its_licence_and_read_from_the_cache(
    server: Server, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        model = video_mvit.load_model(NAME)
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        f"{NAME}: fetching {server.address}/MViTv2_S.pyth into {cache}",
        f"{NAME}: licence of the publishing repository: Apache-2.0",
    ]
    assert model.config.num_classes == 5
    card = model.card
    assert card is not None
    assert (card.license, card.origin, card.frame_stride) == ("Apache-2.0", NAME, 4)
    assert card.mean == (0.45, 0.45, 0.45)
    again = video_mvit.load_model(str(cache / "MViTv2_S.pyth"))
    assert again.card == card
    assert video_mvit.load_model(NAME).card == card
    assert server.num_requests == 1


def test_processes_that_need_the_same_file_fetch_it_once(server: Server, cache: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(fetch_published, [NAME] * 4))
    assert set(paths) == {cache / "MViTv2_S.pyth"}
    assert server.num_requests == 1


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("nothing listens", "Connection refused"),
        ("status", "status 404"),
        ("cut off", "no whole weight file"),
        ("a page", "no whole weight file"),
        ("hash", "invalid hash value"),
    ],
)
def test_file_that_cannot_be_had_is_told_with_its_address_and_leaves_nothing(
    fault: str, reason: str, server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"{server.address}/MViTv2_S.pyth"
    if fault == "nothing listens":
        server.shutdown()
        server.server_close()
    elif fault == "status":
        address = f"{server.address}/missing/MViTv2_S.pyth"
        publish(monkeypatch, address)
    elif fault == "cut off":
        server.content, server.announced = server.content[:20_000], len(server.content)
    elif fault == "a page":
        server.content = b"<!doctype html><title>Please accept our terms</title>"
    else:
        publish(monkeypatch, address, sha256="0123abcd")
    with pytest.raises(UserError, match=reason) as caught:
        video_mvit.load_model(NAME)
    sentence = str(caught.value)
    assert f"get {address} in another way and put it there as MViTv2_S.pyth" in sentence
    assert f"{NAME} is not in {cache}" in sentence
    assert [path.name for path in cache.iterdir() if path.suffix != ".lock"] == []


def test_file_of_that_name_here_comes_first(
    tmp_path: Path, content: bytes, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(NAME).write_bytes(content)
    assert not is_published(NAME)
    assert video_mvit.load_model(NAME).card is None
    assert published_name_at(NAME) is None
    assert not cache.exists()


@pytest.mark.slow
def test_checkpoints_and_files_made_from_published_weights_keep_the_licence(
    tmp_path: Path, content: bytes
) -> None:
    cache = tmp_path / "cache" / "weights"
    cache.mkdir(parents=True)
    (cache / PUBLISHED[NAME].file_name).write_bytes(content)
    write_demo_dataset(tmp_path / "data", {"train": 8, "val": 2, "test": 2}, 0, lambda _: None)
    environment = {CACHE_VARIABLE: str(tmp_path / "cache")}
    words = ["experiment=demo", "data.root=data", *SMALL, "run_dir=run", "init=weights"]
    words += [f"init.source={NAME}", "init.reset=[head]"]
    trained = run_command("train", *words, cwd=tmp_path, environment=environment)
    assert trained.returncode == 0, trained.stderr
    again = run_command(
        "train",
        *words,
        "resume_from=last",
        "optim.num_epochs=2",
        "allow_config_changes=true",
        cwd=tmp_path,
        environment=environment,
    )
    assert again.returncode == 0, again.stderr
    target = "target=new.safetensors"
    converted = run_command(
        "convert", "source=run/checkpoints/last.ckpt", target, cwd=tmp_path, environment=environment
    )
    assert converted.returncode == 0, converted.stderr
    card = video_mvit.load_model(str(tmp_path / "new.safetensors")).card
    assert card is not None
    assert (card.license, card.origin) == ("Apache-2.0", NAME)
