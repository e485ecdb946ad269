"""Shared by the tests of what comes from outside: a server, pictures as bytes, archives, and processes to kill."""

import io
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from PIL import Image
from tests.conftest import picture
from tests.file_server import Serving, serve

SOURCE = Path(__file__).parents[2] / "src"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serving]:
    """A file server of the test's own; a proxy of the environment must not see loopback."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serve() as serving:
        yield serving


def png(seed: int, height: int = 72, width: int = 88) -> bytes:
    """A picture as the bytes of a PNG file."""
    stream = io.BytesIO()
    Image.fromarray(picture(seed, height, width)).save(stream, "PNG")
    return stream.getvalue()


def zip_of(members: Mapping[str, bytes]) -> bytes:
    """A zip archive, members stored as they are: what is in it counts byte by byte."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as pack:
        for name, content in members.items():
            pack.writestr(name, content)
    return stream.getvalue()


def wait_for_bytes(path: Path, size: int) -> None:
    """Returns when a file has grown to `size`; fails after 20 seconds."""
    deadline = time.monotonic() + 20
    while not path.exists() or path.stat().st_size < size:
        assert time.monotonic() < deadline, f"{path} did not grow to {size} bytes"
        time.sleep(0.01)


def python(code: str, *arguments: str, cwd: Path, **environment: str) -> subprocess.Popen[str]:
    """A Python process of its own that runs `code`."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(SOURCE), "PYTHONUNBUFFERED": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
