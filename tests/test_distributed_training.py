"""Which trips each worker trains on; test_dask.py trains."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from trip_duration import distributed_training as distributed
from trip_duration import files, params
from trip_duration.features import FeatureBuilder
from trip_duration.splits import Rows, divide_by, weigher


@pytest.mark.parametrize("every", [1, 3])
def test_shares_hold_each_trip_of_a_role_once(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    """The parts that workers train on, against `divide_by` over whole months."""
    monkeypatch.setattr(files, "ROW_GROUP", 250)
    settings = params.override(
        (root / "params.yaml").read_text(), {"train.refit": True, "data.train": ["2024-02"]}
    )[1]
    generator = np.random.default_rng(3)

    def month(start: str, days: int) -> pa.Table:
        seconds = np.sort(generator.integers(0, days * 86_400, 400))
        return pa.table(
            {
                "pickup": np.datetime64(start, "s") + seconds.astype("timedelta64[s]"),
                "pickup_zone": generator.integers(1, 260, 400).astype("int16"),
                "dropoff_zone": generator.integers(1, 260, 400).astype("int16"),
                "distance": generator.uniform(0.5, 9, 400).astype("float32"),
                "duration": generator.uniform(2, 40, 400).astype("float32"),
            }
        )

    months = {"train": month("2024-02-01", 29), "validation": month("2024-03-01", 31)}
    builder = FeatureBuilder.fit([months["train"]], preset="booking", places=None)
    rows = {}
    for split, table in months.items():
        path = tmp_path / f"{split}.parquet"
        files.write_parquet(builder.transform_month(table), path, builder.schema)
        rows[split] = Rows.read([path], builder, every=every)
    counts = {split: (each.days, each.trips) for split, each in rows.items()}
    roles = divide_by(settings, rows["train"], rows["validation"])
    for role in ("fit", "stop", "final"):
        parts = [
            distributed.share(settings, builder, counts, role, split, path, group, piece, every)
            for split in ("train", "validation")
            for path in [str(tmp_path / f"{split}.parquet")]
            for group in (0, 1)
            for piece in ((0, 3), (1, 3), (2, 3))
        ]
        whole = getattr(roles, role).whole
        weigh = weigher(getattr(roles, role), settings.train.half_life)
        assert weigh is not None
        got = np.column_stack(
            [np.concatenate([part[place] for part in parts]) for place in range(3)]
        )
        expected = np.column_stack([whole.X, whole.minutes, weigh(whole.day)])
        order = [np.lexsort(each.T[::-1]) for each in (got, expected)]
        np.testing.assert_array_equal(got[order[0]], expected[order[1]])
