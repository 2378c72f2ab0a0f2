"""``make monitor``: what it prints."""

from pathlib import Path

import pytest

from commands import monitor as command
from commands.monitor import monitor
from trip_duration import registry
from trip_duration.errors import SettingsError

SERVED = registry.Served("7", Path("models"), "ab12", "green", "metered", ("2024-01", "2024-02"))
FOUND = {
    "month": "2024-04",
    "reference_months": ["2024-01", "2024-02"],
    "model_version": "7",
    "trips": 100,
    "share_drifted": 0.5,
    "columns": {
        "hour": {"method": "wasserstein", "value": 0.02, "threshold": 0.1, "drifted": False},
        "error": {"method": "wasserstein", "value": 0.7, "threshold": 0.1, "drifted": True},
    },
    "errors": {"reference_month": "2024-03", "reference_rmse": 4.0, "rmse": 6.0, "change": 0.5},
    "level": "much",
    "reasons": ["the RMSE is 6.00 minutes", "error moved by 0.70, and 0.5 is much"],
}


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> dict:
    """What the comparison gives; the test may change it."""
    given = {**FOUND, "errors": dict(FOUND["errors"])}
    monkeypatch.setattr(registry, "chosen", lambda root: SERVED)
    monkeypatch.setattr(command.drift, "compare", lambda root, month, served: given)
    return given


def test_the_level_the_columns_and_the_reasons_are_printed(
    found: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert monitor(tmp_path, "2024-04") == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "2024-04 against 2024-01 … 2024-02, green, model 7: drift is much" in lines
    assert "hour wasserstein 0.020 0.1" in lines
    assert "error wasserstein 0.700 * 0.1" in lines
    assert "RMSE 6.00 minutes, +50% on the 4.00 of 2024-03" in lines
    assert lines[-3:-1] == FOUND["reasons"]
    assert lines[-1] == "reports/drift-green-2024-04.html has the distributions"


def test_an_rmse_without_a_reference_is_said_to_be_alone(
    found: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found["errors"] |= {"reference_month": None, "reference_rmse": None, "change": None}
    assert monitor(tmp_path, "2024-04") == 0
    assert "RMSE 6.00 minutes; no month that the model has not seen" in capsys.readouterr().out


def test_without_a_month_it_asks_for_one(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="has no MONTH: expected"):
        monitor(tmp_path, "")
