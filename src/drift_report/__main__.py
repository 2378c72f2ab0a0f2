"""Compare two tables column by column: ``python src/drift_report SPEC``, in an environment apart.

SPEC is a file of JSON with ``reference`` and ``current``, two Parquet files; ``columns``, for each
name its ``kind`` (numerical or categorical) and the ``threshold`` from which it counts as drifted;
``share``, of the columns, from which the page says that the whole has; and ``html`` and ``json``,
the files to write. What the columns mean, it does not know.

How far a numerical column has moved is its Wasserstein distance in standard deviations of the
reference; of a categorical one it is the Jensen-Shannon distance, from 0 to 1. Both measure how
large a change is, not how sure: with enough rows every change is certain.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

METHODS = {"numerical": "wasserstein", "categorical": "jensenshannon"}


def main(spec: str) -> None:
    """Write the report and the figures that the specification asks for."""
    os.environ["DO_NOT_TRACK"] = "1"  # which Evidently asks for before it sends anything
    asked = json.loads(Path(spec).read_text(encoding="utf-8"))
    columns = asked["columns"]
    found = compare(asked["reference"], asked["current"], columns, asked["share"])
    found.save_html(asked["html"])
    drift = {
        metric["config"]["column"]: float(metric["value"])
        for metric in found.dict()["metrics"]
        if metric["config"]["type"].endswith(":ValueDrift")
    }
    said = {
        name: {
            "method": METHODS[column["kind"]],
            "value": drift[name],
            "threshold": column["threshold"],
            "drifted": drift[name] >= column["threshold"],
        }
        for name, column in columns.items()
    }
    Path(asked["json"]).write_text(json.dumps(said), encoding="utf-8")


def compare(reference: str, current: str, columns: dict[str, dict[str, Any]], share: float) -> Any:
    """Evidently's snapshot of the two files."""
    import pandas as pd
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    kinds = {
        kind: [name for name, column in columns.items() if column["kind"] == kind]
        for kind in METHODS
    }
    definition = DataDefinition(
        numerical_columns=kinds["numerical"], categorical_columns=kinds["categorical"]
    )
    sides = [
        Dataset.from_pandas(pd.read_parquet(path)[list(columns)], data_definition=definition)
        for path in (reference, current)
    ]
    preset = DataDriftPreset(
        columns=list(columns),
        drift_share=share,
        per_column_method={name: METHODS[column["kind"]] for name, column in columns.items()},
        per_column_threshold={name: column["threshold"] for name, column in columns.items()},
    )
    return Report([preset]).run(reference_data=sides[0], current_data=sides[1])


if __name__ == "__main__":
    main(sys.argv[1])
