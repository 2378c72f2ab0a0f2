"""``make push`` and ``make pull``: what is said of a remote; tests/pipeline/ runs them."""

import pytest

from commands.remote import without_credentials


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("s3://bucket/folder", "s3://bucket/folder"),
        ("ssh://me:secret@host:22/x", "ssh://host:22/x"),
        ("https://host/x?token=secret", "https://host/x"),
        ("no https://a:b@host/x?k=secret here", "no https://host/x here"),
        ("/a folder/with@sign", "/a folder/with@sign"),
    ],
)
def test_users_passwords_and_queries_are_left_out(text: str, said: str) -> None:
    assert without_credentials(text) == said
