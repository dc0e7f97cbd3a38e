"""Personal data found by its form, each once, with its place; what only looks like it is left."""

import sys

import pytest

from palimpsest.data.recognizers import find_secrets
from palimpsest.errors import InputError


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Write to ann.lee@example.co.uk, or bob+x@münchen.de.", ["e-mail address ann.lee@example.co.uk", "e-mail address bob+x@münchen.de"]),
        ("ring +44 20 7946 0958 or (415) 555-0132.", ["telephone number +44 20 7946 0958", "telephone number (415) 555-0132"]),
        ("card 4111 1111 1111 1111, not 4111 1111 1111 1112", ["card number 4111 1111 1111 1111"]),
        ("pay DE89 3704 0044 0532 0130 00 AND go", ["IBAN DE89 3704 0044 0532 0130 00"]),
        ("GB82WEST12345698765432 is right, GB82WEST12345698765431 not", ["IBAN GB82WEST12345698765432"]),
        ("SSN 536-90-4399, not 000-12-3456", ["social security number 536-90-4399"]),
        ("from 10.0.0.12 to fe80::1ff:fe23:4567:890a", ["IP address 10.0.0.12", "IP address fe80::1ff:fe23:4567:890a"]),
        ("at 12:30, part 1.2.3.999, a::b? no :: so", []),
        ("key AKIAIOSFODNN7EXAMPLE here", ["access key AKIAIOSFODNN7EXAMPLE"]),
        ("ghp_16C7e42F292c6912E7710c838347Ae178B4a", ["access key ghp_16C7e42F292c6912E7710c838347Ae178B4a"]),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----", ["access key -----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----"]),
        ("a@b, @home, x@y.1, room 12, code 4521, in 1998-2003", []),
        ("", []),
    ],
)  # fmt: skip
def test_secrets_are_found_by_their_form(text, wanted):
    (found,) = find_secrets([text], ["US"])
    assert [f"{s['kind']} {text[s['start'] : s['end']]}" for s in found] == wanted


def test_a_national_number_needs_its_country():
    text = ["call 030 901820 now"]
    assert find_secrets(text) == [[]] and find_secrets(text, ["DE"])[0][0]["kind"] == "telephone number"
    with pytest.raises(
        InputError, match="no telephone numbers are known for 'XX'; wanted a country such as US, GB or DE"
    ):
        find_secrets(text, ["XX"])


@pytest.mark.parametrize("name", ["phonenumbers", "stdnum", "detect_secrets.core.plugins.util"])
def test_without_the_recognizers_it_is_said_how_to_install_them(monkeypatch, name):
    from palimpsest.data import recognizers

    monkeypatch.setitem(sys.modules, name, None)
    recognizers._key_patterns.cache_clear()
    with pytest.raises(
        InputError, match=r"needs recognizers that are not installed .*: pip install 'palimpsest\[secrets\]'"
    ):
        find_secrets(["a"])
