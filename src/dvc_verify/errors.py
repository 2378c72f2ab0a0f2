"""What is said to a person, in one sentence."""

__all__ = ["VerifyError"]


class VerifyError(Exception):
    """Why the pipeline could not be rerun or compared, and what to do."""
