"""Personal data and keys in a text, found by their form, offline: what `--secrets auto` counts.

Telephone numbers are found by Google's libphonenumber (`phonenumberslite`); card numbers, IBANs and social security numbers are
what passes `python-stdnum`'s check digits; access keys are the patterns of `detect-secrets`; e-mail and IP addresses are told by
their form, the latter by Python's `ipaddress`. Together 10 MB. Not Presidio (2.2.366): 390 MB with the spaCy it must have, it finds
no keys, its telephone numbers are libphonenumber's too, and its e-mail recognizer asks the network for a list of domains.
`detect-secrets`' entropy detectors are left out: in prose nearly every word is one of theirs. Names and street addresses have no
form of their own and aren't found.
"""

import ipaddress
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any

from palimpsest.errors import InputError

KEY_BLOCK = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.+?-----END [A-Z ]*PRIVATE KEY-----", re.DOTALL)
EMAIL = re.compile(r"[\w.!#$%&'*+/=?^`{|}~-]{0,63}[\w+-]@(?:[\w-]{1,63}\.){1,9}[^\W\d_]{2,63}")
DIGITS = re.compile(r"(?<![\w.-])\d(?:[ -]?\d){12,18}(?![\w-])")  # of a card
IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}\b")
SSN = re.compile(r"(?<![\w-])\d{3}-\d{2}-\d{4}(?![\w-])")
IP = re.compile(r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7})(?![\w:]|\.\d)")
INSTALL = "--secrets auto needs recognizers that are not installed ({}): pip install 'palimpsest[secrets]'"


def find_secrets(texts: Sequence[str], regions: Sequence[str] = ()) -> list[list[dict[str, Any]]]:
    """The secrets of each text, in their order, none over another.

    Args:
        regions: countries (`US`, `DE`) whose telephone numbers are also found without the country's code.

    Returns:
        For each text `[{start, end, kind}]`, in characters; `kind` is "access key", "IBAN", "card number", "social security
        number", "e-mail address", "telephone number" or "IP address".

    Raises:
        InputError: the recognizers are not installed; an unknown region.
    """
    try:
        import phonenumbers
        from stdnum import iban, luhn
        from stdnum.us import ssn

        keys = _key_patterns()
    except ImportError as error:
        raise InputError(INSTALL.format(error.name)) from None
    if unknown := [region for region in regions if region not in phonenumbers.SUPPORTED_REGIONS]:
        raise InputError(f"no telephone numbers are known for {unknown[0]!r}; wanted a country such as US, GB or DE")

    def found(text: str) -> Iterator[tuple[int, int, str]]:  # the surer first
        for pattern in (KEY_BLOCK, *keys):
            yield from ((*match.span(), "access key") for match in pattern.finditer(text))
        if "@" in text:
            yield from ((*match.span(), "e-mail address") for match in EMAIL.finditer(text))
        if not any(map(str.isdigit, text)):
            return
        for match in IBAN.finditer(text):
            ends = [match.start() + end.end() for end in re.finditer(r"\w+", match[0])]  # words may follow it
            whole = next((end for end in reversed(ends) if iban.is_valid(text[match.start() : end])), None)
            if whole:
                yield match.start(), whole, "IBAN"
        yield from (
            (*m.span(), "card number") for m in DIGITS.finditer(text) if luhn.is_valid(re.sub(r"\D", "", m[0]))
        )
        yield from ((*m.span(), "social security number") for m in SSN.finditer(text) if ssn.is_valid(m[0]))
        yield from ((*m.span(), "IP address") for m in IP.finditer(text) if _is_ip(m[0]))
        for region in (None, *regions):
            matches = phonenumbers.PhoneNumberMatcher(text, region)
            yield from ((match.start, match.end, "telephone number") for match in matches)

    return [apart({"start": a, "end": z, "kind": kind} for a, z, kind in found(text)) for text in texts]


def apart(spans: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The spans in the order of their text, without those that lie over one given before them."""
    kept: list[dict[str, Any]] = []
    for span in spans:
        if all(span["end"] <= other["start"] or span["start"] >= other["end"] for other in kept):
            kept.append(span)
    return sorted(kept, key=lambda span: span["start"])


def _is_ip(text: str) -> bool:
    try:
        return bool(ipaddress.ip_address(text)) and any(map(str.isdigit, text))  # names in program code read a::b
    except ValueError:
        return False


@cache
def _key_patterns() -> list[re.Pattern]:
    """The patterns of every plugin of detect-secrets that has some, but those of addresses, found here."""
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
    from detect_secrets.plugins.base import RegexBasedDetector

    plugins = get_mapping_from_secret_type_to_class().values()
    own = [one for one in plugins if issubclass(one, RegexBasedDetector) and one.__name__ != "IPPublicDetector"]
    return [pattern for one in own for pattern in one().denylist]
