"""What the stage adds to the library: the words once retries are used up."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from trip_duration.errors import SourceError


def test_a_month_that_cannot_be_fetched_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from stages import ingest

    def fetch(*_: object) -> Path:
        raise SourceError("refused", status=500)

    monkeypatch.setattr(ingest.months, "fetch", fetch)
    params = SimpleNamespace(data=None)
    with pytest.raises(SourceError, match="refused") as caught:
        ingest.write_month.fn(params, "2021-01", None, None)
    assert caught.value.month == "2021-01"


@pytest.mark.parametrize(
    ("source", "status", "said"),
    [
        ("tlc", 403, "two months late"),
        ("tlc", 500, "refused"),
        ("https://example.org/{year}-{month}.parquet", 403, "refused"),
    ],
)
def test_tlcs_403_is_explained(source: str, status: int, said: str) -> None:
    from stages import ingest

    error = SourceError("refused", transient=True, status=status)
    error.month = "2021-01"
    params = SimpleNamespace(data=SimpleNamespace(source=source, taxi="green"))
    found = str(ingest.explained(params, error))
    assert said in found
    assert ("2021-01" in found) == (said == "two months late")
