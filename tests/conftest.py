"""What all tests share: the real TLC files, where they are."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's folder."""
    return ROOT


@pytest.fixture(scope="session")
def tlc() -> Path:
    """Real TLC months, in ``shared/tlc`` beside the repository; else the test is skipped."""
    folder = ROOT.parent / "shared" / "tlc"
    if not folder.is_dir():
        pytest.skip("needs real TLC files in ../shared/tlc")
    return folder
