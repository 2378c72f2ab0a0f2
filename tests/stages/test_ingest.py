"""What the stage adds to the library: the words once retries are used up."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trip_duration.errors import SourceError


def failing(status: int) -> Any:
    def fetch(*_: object) -> Path:
        raise SourceError("refused", transient=True, status=status)

    return fetch


@pytest.mark.parametrize(
    ("source", "status", "said"),
    [
        ("tlc", 403, "two months late"),
        ("tlc", 500, "refused"),
        ("https://example.org/{year}-{month}.parquet", 403, "refused"),
    ],
)
def test_tlcs_403_is_explained(
    monkeypatch: pytest.MonkeyPatch, source: str, status: int, said: str
) -> None:
    from stages import ingest

    monkeypatch.setattr(ingest, "fetch_month", failing(status))
    params = SimpleNamespace(data=SimpleNamespace(source=source, taxi="green"))
    with pytest.raises(SourceError, match=said) as caught:
        ingest.bring(params, "2021-01")
    assert ("2021-01" in str(caught.value)) == (said == "two months late")
