"""Tokens that prove nothing: forged, malformed, or signed with the right key and claims that make no sense."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time

from tests.control.access import SECRET

VALID = 86400
"""Seconds: these tokens are made when the tests are collected, and must outlast the longest run."""


def part(data: bytes) -> str:
    """A part of a token."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(claims: str, header: str = '{"alg":"HS256","typ":"JWT"}') -> str:
    """A token with a right signature, of texts that need not be JSON."""
    content = f"{part(header.encode('utf-8', 'surrogatepass'))}.{part(claims.encode('utf-8', 'surrogatepass'))}"
    return f"{content}.{part(hmac.digest(SECRET, content.encode(), hashlib.sha256))}"


def claims(**texts: str) -> str:
    """JSON of good claims, but for some whose JSON text is given."""
    good = {"sub": '"mallory"', "roles": '["admin"]', "exp": str(int(time.time()) + VALID), "jti": '"x"'}
    return "{" + ",".join(f'"{name}":{text}' for name, text in {**good, **texts}.items() if text) + "}"


GOOD = signed(claims())
_HEAD, _BODY, _SIGNATURE = GOOD.split(".")
_LAST = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

EXPIRY = {
    f"exp {text[:24]} of {len(text)}": signed(claims(exp=text))
    for text in (
        *("1e400", "1" + "0" * 400, "1e300", "-1e400", "99999999999", "9007199254740993", "4102444800"),
        *('"1e300"', f'"{"9" * 300}"', f'"{"9" * 5000}"', '"4102444800"', '"inf"'),
        *("true", "null", "[]", "{}", '""', "NaN", "Infinity", "-1", "0", "[4102444800]", '"0x7fffffff"'),
        "",
    )
}
# Its name must not change from one second to the next: every process of a run collects the same tests.
EXPIRY["exp text of a time that is right"] = signed(claims(exp=f'"{int(time.time()) + VALID}"'))
SPELLINGS = {
    "padded": GOOD + "=",
    "padded twice": GOOD + "==",
    "padded head": f"{_HEAD}=.{_BODY}.{_SIGNATURE}",
    "padded body": f"{_HEAD}.{_BODY}==.{_SIGNATURE}",
    "unused bits": GOOD[:-1] + _LAST[(_LAST.index(GOOD[-1]) // 4) * 4 + (_LAST.index(GOOD[-1]) + 1) % 4],
    "plus and slash": GOOD.replace("-", "+").replace("_", "/") + "+",
    "a blank": f"{_HEAD}.{_BODY}. {_SIGNATURE}",
    "a tab": f"{_HEAD}.{_BODY}.\t{_SIGNATURE}",
    "four parts": GOOD + ".",
    "two parts": f"{_HEAD}.{_BODY}",
    "no signature": f"{_HEAD}.{_BODY}.",
    "dots": "..",
    "percent": GOOD + "%00",
    "quoted": f'"{GOOD}"',
    "very long": GOOD + "A" * 9000,
    "non-ASCII": GOOD + "é",
}
ROLES = {
    f"roles {text}": signed(claims(roles=text))
    for text in (
        *('["admın"]', '["ADMIN"]', '["Admin"]', '["admin "]', '[" admin"]', '["vıewer"]', '["operatoꞃ"]'),
        *('["adm\\u0131n"]', '["viewer\\u0000"]', '["ＡＤＭＩＮ"]', '["admin,viewer"]', '["VİEWER"]', '["аdmin"]'),
        *("[]", "{}", "null", "true", "3", '[["admin"]]', '[{"admin":1}]', '{"admin":true}', '""', "[null]", "[3]", ""),
    )
}
SUBJECTS = {
    f"sub {text[:20]!r}": signed(claims(sub=text))
    for text in (
        *('""', '" "', "null", "7", "[]", '"a\\nb"', '"a\\u001b[2J"', '"\\ud800"', '"a\\u202eb"', '"\\u0000"'),
        *(f'"{"a" * 256}"', '"a\\u2028b"', '"\\u200b"', "true", ""),
    )
}
HEADERS = {
    f"header {text[:50]}": signed(claims(), header=text)
    for text in (
        *('{"alg":"none"}', '{"alg":"None"}', '{"alg":""}', '{"alg":null}', '{"alg":["HS256"]}', '{"alg":"HS512"}'),
        *('{"alg":"hs256"}', '{"alg":"RS256"}', '{"alg":"ES256"}', '{"typ":"JWT"}', "{}", "[]", "null", '"HS256"', ""),
        *('{"alg":"HS256","crit":["exp"]}', '{"alg":"HS256","crit":["b64"],"b64":false}', '{"alg":"HS256"', "\x00"),
        *('{"alg":"HS256","crit":[]}', '{"alg":"HS256","b64":false}', '{"alg":"HS256","kid":7}', '{"alg":"HS384"}'),
        '{"alg":"none","alg":"HS256","crit":null}',
    )
}
CLAIMS = {
    f"claims {text[:40]!r}": signed(text)
    for text in (
        *("", "null", "[]", "7", '"admin"', "{", "{}", "\ufeff{}", "[" * 3000, '{"a":' * 3000, '{"exp":1e999999}'),
        claims(nbf="1e400"),
        claims(nbf='"tomorrow"'),
        claims(nbf="4102444800"),
        claims(iat="1e400"),
        claims(iat='"x"'),
    )
}
REFUSED = {**EXPIRY, **SPELLINGS, **ROLES, **SUBJECTS, **HEADERS, **CLAIMS}
"""All of them by what is wrong."""

IDS = [
    *('"\\ud800"', '"\\udfff\\ud800"', '"a\\nb"', '"a\\u001b[2J"', '"\\u0000"', '"\\u202e"', '"\\u2028"', '""'),
    *(f'"{"j" * 5000}"', ""),
]
"""Ids of tokens that are signed and of which an id cannot be used: a digest takes its place."""
