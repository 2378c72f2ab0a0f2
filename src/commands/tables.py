"""What the commands print on, and their tables."""

from rich import box
from rich.console import Console
from rich.table import Table

__all__ = ["plain_console", "plain_table"]


def plain_console() -> Console:
    """A console that prints text as it is, 120 characters wide where it is no terminal."""
    return Console(
        width=None if Console().is_terminal else 120, highlight=False, markup=False, emoji=False
    )


def plain_table(title: str = "") -> Table:
    """A table with a line below its head; its columns are still to be added."""
    return Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False)
