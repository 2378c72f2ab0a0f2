"""Flows that are no stage of the pipeline: retrain runs it each month, backfill for past months."""
