"""Which domains are of free mail, and which of disposable addresses."""

import pytest

from n3r.identity.mail import is_disposable, is_free


@pytest.mark.parametrize(
    ("domain", "free", "disposable"),
    [
        ("gmail.com", True, False),
        ("yahoo.co.jp", True, False),
        ("mailinator.com", False, True),
        ("inbox.mailinator.com", False, True),  # below one that is listed
        ("mail.gmail.com", False, False),
        ("example.com", False, False),
        ("com", False, False),
        ("", False, False),
    ],
)
def test_kinds_of_domains(domain, free, disposable):
    assert (is_free(domain), is_disposable(domain)) == (free, disposable)
