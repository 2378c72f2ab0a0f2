"""``make push`` and ``make pull``: what is said of a remote; tests/pipeline/ runs them."""

import logging
from types import SimpleNamespace

import pytest

from commands.remote import _Remote, without_credentials
from trip_duration.errors import TripDurationError


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


@pytest.fixture
def remote() -> _Remote:
    """A remote on S3, the default."""
    known = {"store": {"url": "s3://bucket/folder"}}
    return _Remote(SimpleNamespace(config={"remote": known, "core": {"remote": "store"}}), "")


class NoCredentialsError(Exception):
    """As a store's client raises it."""


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (NoCredentialsError("Unable to locate credentials"), "gives no access"),
        (PermissionError(13, "Access Denied"), "gives no access"),
        (OSError(28, "No space left on device"), "this disk is full"),
        (TimeoutError(), "can't be used (TimeoutError): check its address"),
        (ConnectionError("s3://me:secret@bucket/folder is away.\nmore"), "(s3://bucket/folder is"),
    ],
)
def test_what_goes_wrong_on_the_way_is_one_sentence(
    remote: _Remote, error: Exception, words: str
) -> None:
    with pytest.raises(TripDurationError) as caught, remote.explained():
        raise error
    said = str(caught.value)
    assert said.startswith("The remote store (s3://bucket/folder) ")
    assert words in said
    assert "\n" not in said


def test_the_reason_of_a_file_counts_for_more_than_dvcs_own_words(
    remote: _Remote, capsys: pytest.CaptureFixture[str]
) -> None:
    from dvc.exceptions import UploadError

    log = logging.getLogger("dvc_objects")
    before = log.handlers, log.propagate

    def send() -> None:
        try:
            raise OSError("the host is away")
        except OSError:
            log.exception("failed to transfer")
        raise UploadError(1)

    with pytest.raises(TripDurationError, match=r"\(the host is away\)"), remote.explained():
        send()
    assert (log.handlers, log.propagate) == before
    assert capsys.readouterr().err == ""


def test_what_is_dvcs_own_failure_stays_so(remote: _Remote) -> None:
    from dvc.exceptions import CyclicGraphError, DvcException

    with pytest.raises(DvcException), remote.explained():
        raise CyclicGraphError([])
