"""Tokens: the keys that verify them, and the claims they must have. The settings pin the algorithm, never the token."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, NoReturn

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from celerymeter.control.keys import check_strength
from celerymeter.control.settings import MIN_SECRET_BYTES, JwtSettings
from celerymeter.errors import InvalidToken, SettingsError

log = logging.getLogger(__name__)

ALGORITHMS = ("HS256", "RS256", "ES256")
MAX_TOKEN_BYTES = 8192
MAX_DENIED_BYTES = 4 * 1024 * 1024
_BASE64URL = re.compile(r"[A-Za-z0-9_-]*")
MAX_SUBJECT = 255
MIN_RSA_BITS = 2048

_REASONS: tuple[tuple[type[jwt.PyJWTError], str, str], ...] = (
    (jwt.ExpiredSignatureError, "expired", "the token has expired"),
    (jwt.ImmatureSignatureError, "immature", "the token is not valid yet"),
    (jwt.InvalidIssuerError, "issuer", "the token comes from another issuer"),
    (jwt.InvalidAudienceError, "audience", "the token is for another audience"),
    (jwt.MissingRequiredClaimError, "claims", "the token lacks a claim that is required"),
    (jwt.InvalidSignatureError, "signature", "the token is not signed by a key that is accepted"),
    (jwt.InvalidAlgorithmError, "algorithm", "the token is not signed by the algorithm that is accepted"),
    (jwt.DecodeError, "malformed", "the token cannot be read"),
)
LEEWAY = 30.0
"""Seconds by which clocks may differ when a token begins and expires."""
REASONS = (
    "missing",
    "claims",
    "role",
    "webhook",
    "lifetime",
    "denied",
    *(reason for _, reason, _ in _REASONS if reason != "claims"),
)


class Role(IntEnum):
    """A role; a higher one may do everything that a lower one may."""

    VIEWER = 1
    OPERATOR = 2
    ADMIN = 3

    @classmethod
    def named(cls, name: str) -> Role | None:
        """Return the role of this name as a token spells it (lower case), or None."""
        # Not by upper case: the upper case of a dotless i, and of a long s, is that of the usual letter.
        return next((role for role in cls if role.label == name), None)

    @property
    def label(self) -> str:
        """The name as a token spells it."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Identity:
    """The subject of a valid token. ``exp`` is UTC seconds; ``jti`` is the token's id, or a digest of its claims."""

    sub: str
    role: Role
    jti: str
    exp: float


@dataclass(frozen=True, slots=True)
class _Key:
    """A verification key; ``kid`` is None where its file has none."""

    material: Any
    kid: str | None = None


class DenyList:
    """The ids of withdrawn tokens, of a file that is read again within a second of a change.

    While the file cannot be read, the ids of the last time hold.
    """

    CHECK_INTERVAL = 1.0

    def __init__(self, path: Path, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Read the file; raises `SettingsError` when that is impossible."""
        self._path = path
        self._monotonic = monotonic
        self._read_version: object = None
        self._check_at = 0.0
        self._ids: frozenset[str] = frozenset()
        try:
            self._refresh()
        except (OSError, ValueError) as error:
            raise SettingsError(f"--jwt-denied-file: cannot read {path}: {error}") from error

    def __contains__(self, token_id: str) -> bool:
        if self._monotonic() >= self._check_at:
            try:
                self._refresh()
            except (OSError, ValueError) as error:
                log.error("--jwt-denied-file: cannot read %s: %s", self._path, error)
        return token_id in self._ids

    def _refresh(self) -> None:
        self._check_at = self._monotonic() + self.CHECK_INTERVAL
        with self._path.open("rb") as file:
            status = os.fstat(file.fileno())
            version = (status.st_ino, status.st_size, status.st_mtime_ns)
            if version == self._read_version:
                return
            if status.st_size > MAX_DENIED_BYTES:
                raise ValueError(f"has more than {MAX_DENIED_BYTES} bytes")
            lines = file.read(MAX_DENIED_BYTES).decode().splitlines()
        self._ids = frozenset(token_id for line in lines if (token_id := line.strip()) and not token_id.startswith("#"))
        self._read_version = version


class Keyring:
    """Verifies tokens against one or more keys of one pinned algorithm."""

    def __init__(self, settings: JwtSettings, *, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._clock = clock
        self.algorithm, self._keys = _load(settings)
        self._denied = None if settings.denied is None else DenyList(settings.denied)

    def verify(self, token: str) -> Identity:
        """Return the identity that a token proves; raises `InvalidToken` with a reason for the counter and a text."""
        if len(token) > MAX_TOKEN_BYTES or not _is_canonical(token):
            _reject("malformed")
        try:
            claims = self._claims(token)
        except jwt.PyJWTError as error:
            _reject(_reason(error))
        except (ValueError, TypeError, OverflowError, RecursionError):
            _reject("malformed")  # PyJWT lets these through: an infinite exp, JSON nested a thousand levels deep
        identity = _identity(token, claims)
        if identity.exp > self._clock() + self._settings.max_lifetime + LEEWAY:
            raise InvalidToken("lifetime", f"the token is valid for more than {self._settings.max_lifetime:.0f} s")
        if self.is_denied(identity):
            raise InvalidToken("denied", "the token was withdrawn")
        return identity

    def is_denied(self, identity: Identity) -> bool:
        """Return whether a token was withdrawn."""
        return self._denied is not None and identity.jti in self._denied

    def _claims(self, token: str) -> Mapping[str, Any]:
        for key in self._candidates(token):
            with suppress(jwt.InvalidSignatureError):
                return self._decode(token, key)
        _reject("signature")

    def _candidates(self, token: str) -> Sequence[_Key]:
        """Return the keys that a token may be signed with: the one it names, or all."""
        header = jwt.get_unverified_header(token)
        if header.get("alg") != self.algorithm:
            _reject("algorithm")
        if "crit" in header:
            _reject("malformed")  # it demands an extension, and we know none (RFC 7515, 4.1.11)
        named = [key for key in self._keys if key.kid is not None and key.kid == header.get("kid")]
        return named or [key for key in self._keys if key.kid is None or header.get("kid") is None]

    def _decode(self, token: str, key: _Key) -> Mapping[str, Any]:
        settings = self._settings
        claims: Mapping[str, Any] = jwt.decode(
            token,
            key.material,
            algorithms=[self.algorithm],
            leeway=LEEWAY,
            issuer=settings.issuer,
            audience=settings.audience,
            options={
                "require": ["exp", "sub", *_configured(settings)],
                "verify_aud": settings.audience is not None,
                "verify_iss": settings.issuer is not None,
            },
        )
        return claims


def _configured(settings: JwtSettings) -> list[str]:
    return [name for name, value in (("iss", settings.issuer), ("aud", settings.audience)) if value is not None]


def _reason(error: jwt.PyJWTError) -> str:
    return next((reason for kind, reason, _ in _REASONS if isinstance(error, kind)), "malformed")


def _reject(reason: str) -> NoReturn:
    detail = next((text for _, name, text in _REASONS if name == reason), "the token cannot be read")
    raise InvalidToken(reason, detail)


def _identity(token: str, claims: Mapping[str, Any]) -> Identity:
    subject = claims["sub"]
    if not isinstance(subject, str) or not subject.strip() or len(subject) > MAX_SUBJECT or not subject.isprintable():
        raise InvalidToken("claims", "the token's sub must have 1 to 255 visible characters")
    role = _role(claims.get("roles"))
    token_id = claims.get("jti")
    if not isinstance(token_id, str) or not 0 < len(token_id) <= MAX_SUBJECT or not token_id.isprintable():
        # Without the signature, of which ECDSA has several for the same claims.
        token_id = "sha256:" + hashlib.sha256(token.rpartition(".")[0].encode()).hexdigest()[:32]
    return Identity(sub=subject, role=role, jti=token_id, exp=_seconds(claims["exp"]))


def _seconds(claim: object) -> float:
    """Return a time as a number; PyJWT also takes text, and numbers that no float can hold."""
    if isinstance(claim, bool) or not isinstance(claim, (int, float)) or not abs(claim) < 2**53:
        raise InvalidToken("claims", "the token's exp must be a number of seconds since 1970")
    return float(claim)


def _is_canonical(token: str) -> bool:
    """Return whether a token is written in the one way that RFC 7515 allows: no padding, no unused bits set."""
    return all(map(_is_base64url, token.split(".")))


def _is_base64url(part: str) -> bool:
    if not _BASE64URL.fullmatch(part):
        return False
    try:
        return (
            base64.urlsafe_b64encode(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))).decode().rstrip("=")
            == part
        )
    except ValueError:
        return False


def _role(claim: object) -> Role:
    names = [claim] if isinstance(claim, str) else claim if isinstance(claim, list) else []
    roles = [role for name in names if isinstance(name, str) and (role := Role.named(name))]
    if not roles:
        raise InvalidToken("role", "the token's roles name none of viewer, operator, admin")
    return max(roles)


def mint(*, secret: bytes, subject: str, role: Role, now: float, ttl: float, extra: Mapping[str, str]) -> str:
    """Return a new HS256 token; ``extra`` are further claims (``iss``, ``aud``)."""
    claims = {
        "sub": subject,
        "roles": [role.label],
        "iat": int(now),
        "exp": int(now + ttl),
        "jti": secrets.token_hex(16),
        **extra,
    }
    return jwt.encode(claims, secret, algorithm="HS256")


def _load(settings: JwtSettings) -> tuple[str, tuple[_Key, ...]]:
    """Return the pinned algorithm and its keys; raises `SettingsError` for no key, a weak or an unsuitable one."""
    if settings.algorithm is not None and settings.algorithm not in ALGORITHMS:
        raise SettingsError(f"--jwt-algorithm: must be one of {', '.join(ALGORITHMS)}")
    given = sum([bool(settings.secrets), bool(settings.public_keys), settings.jwks is not None])
    if given != 1:
        problem = (
            "more than one kind of verification key is configured" if given else "no verification key is configured"
        )
        raise SettingsError(
            f"{problem}: give exactly one of --jwt-secret-file (or CELERYMETER_JWT_SECRET), --jwt-public-key-file, "
            "--jwks-file"
        )
    if settings.secrets:
        if settings.algorithm not in (None, "HS256"):
            raise SettingsError("--jwt-algorithm: a secret is for HS256; RS256 and ES256 need a public key")
        return "HS256", tuple(_Key(_checked_secret(secret)) for secret in settings.secrets)
    if settings.algorithm == "HS256":
        raise SettingsError("--jwt-algorithm: HS256 needs --jwt-secret-file, not a public key")
    algorithm = settings.algorithm or "RS256"
    if settings.jwks is not None:
        return algorithm, _jwks_keys(settings.jwks, algorithm)
    return algorithm, tuple(_Key(_public_key(pem, algorithm)) for pem in settings.public_keys)


def _checked_secret(secret: bytes) -> bytes:
    if b"-----BEGIN" in secret or secret.startswith((b"ssh-", b"ecdsa-")):
        raise SettingsError("--jwt-secret-file: this file holds a key pair, not a secret; see --jwt-public-key-file")
    return check_strength(secret, at_least=MIN_SECRET_BYTES, option="--jwt-secret-file")


def _public_key(pem: bytes, algorithm: str) -> Any:
    try:
        key = load_pem_public_key(pem)
    except (ValueError, TypeError) as error:
        raise SettingsError("--jwt-public-key-file: not a public key in PEM format") from error
    _check_fits(key, algorithm, "--jwt-public-key-file")
    return key


def _jwks_keys(text: bytes, algorithm: str) -> tuple[_Key, ...]:
    """Return the keys of a JWKS that are for signatures of the pinned algorithm; the others are ignored."""
    try:
        entries = [entry for entry in json.loads(text)["keys"] if _is_for(entry, algorithm)]
        keys = tuple(_Key(jwt.PyJWK(entry, algorithm).key, entry.get("kid")) for entry in entries)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, jwt.PyJWTError) as error:
        raise SettingsError("--jwks-file: not a JSON Web Key Set with keys that can be read") from error
    if not keys:
        raise SettingsError(f"--jwks-file: holds no public key for {algorithm}")
    for key in keys:
        _check_fits(key.material, algorithm, "--jwks-file")
    return keys


def _is_for(entry: Mapping[str, Any], algorithm: str) -> bool:
    kind = "RSA" if algorithm == "RS256" else "EC"
    return entry.get("kty") == kind and entry.get("use", "sig") == "sig" and entry.get("alg", algorithm) == algorithm


def _check_fits(key: object, algorithm: str, option: str) -> None:
    if algorithm == "RS256" and not (isinstance(key, RSAPublicKey) and key.key_size >= MIN_RSA_BITS):
        raise SettingsError(f"{option}: RS256 needs a public RSA key of at least {MIN_RSA_BITS} bits")
    if algorithm == "ES256" and not (isinstance(key, EllipticCurvePublicKey) and key.curve.name == "secp256r1"):
        raise SettingsError(f"{option}: ES256 needs a public key on the curve P-256")
