"""What pages for people share: safe text, readable values, and a policy that lets nothing run."""

import base64
import hashlib
import re
from html import escape

from app.columns import Value

MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"


def policy_of(style: str) -> str:
    """The content security policy of a page with this style sheet, and nothing else, of its own."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def headers_of(policy: str) -> dict[str, str]:
    return {
        "content-security-policy": f"{policy}; frame-ancestors 'none'",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
    }


def safe(words: str) -> str:
    """Text of the data, made safe; what would turn the direction of the page's own text is taken out."""
    return escape(re.sub("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]", "", words))


def shortened(name: str, length: int = 20) -> str:
    return safe(name if len(name) <= length else f"{name[: length - 1]}…")


def bar(share: float, kind: str = "bar") -> str:
    return (
        f'<svg class="{kind}" viewBox="0 0 100 1" preserveAspectRatio="none">'
        f'<rect width="{100 * share:.2f}" height="1"/></svg>'
    )


def labelled(value: Value) -> str:
    if value == "":
        return '<span class="quiet">(empty)</span>'
    if isinstance(value, str) and not value.strip():
        return f'<span class="quiet">({len(value)} spaces)</span>'
    return readable(value)


def readable(value: Value | None) -> str:
    """A value for people to read: numbers in four digits, whole ones exactly, times without their T."""
    match value:
        case None:
            return DASH
        case bool():
            return str(value).lower()
        case int():
            return with_commas(value)
        case float():
            if value.is_integer() and abs(value) < 1e9:
                return with_commas(int(value))
            return f"{value:,.4g}" if not 1e4 <= abs(value) < 1e9 else f"{value:,.1f}"
    if moment := re.fullmatch(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d)(:\d\d)?(\.\d+)?Z", value):
        seconds = moment[3] or ""
        return f"{moment[1]} {moment[2]}{'' if seconds == ':00' else seconds}"
    return safe(value)


def with_commas(number: int) -> str:
    return f"{number:,}"


def percent(part: int, whole: int) -> str:
    if not whole or not part:
        return "0 %"
    share = 100 * part / whole
    if share < 0.1:
        return "<0.1 %".replace("<", "&lt;")
    return f"{share:.0f} %" if share >= 99.95 or share.is_integer() else f"{share:.1f} %"
