"""Schemathesis tries to break the service by its own OpenAPI, over the wire."""

import subprocess
import sys
from pathlib import Path

import pytest
from tests.service.conftest import Server

pytest.importorskip("schemathesis", reason="needs schemathesis: `make setup EXTRAS=webtest`")


def test_nothing_breaks_it(server: Server, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"),
            *("run", f"http://127.0.0.1:{server.port}/openapi.json", "--checks", "all"),
            *("--max-examples", "40", "--seed", "1", "--no-color", "--max-response-time", "5"),
        ],
        cwd=tmp_path,  # where it keeps what it finds
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout
    assert "Tested: 5" in done.stdout
