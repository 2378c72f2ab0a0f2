"""One small script for each stage of dvc.yaml: a Prefect flow over tasks."""
