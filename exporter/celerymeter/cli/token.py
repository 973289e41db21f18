"""``celerymeter token``: mints a token for the control API."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import click

from celerymeter.cli.command import Values, setting, settings_command
from celerymeter.cli.control import secret_option, secrets_of
from celerymeter.cli.options import DIRECTORY, fields_of, require
from celerymeter.cli.values import INTERVAL
from celerymeter.control.settings import JwtSettings
from celerymeter.errors import InvalidToken, SettingsError


@dataclass(frozen=True, slots=True)
class TokenSettings:
    """What to mint; ``ttl`` in seconds."""

    secret: bytes = field(repr=False)
    subject: str
    role: str
    ttl: float
    jwt_issuer: str | None = None
    jwt_audience: str | None = None
    state_dir: Path | None = None
    audit_key: str | None = field(default=None, repr=False)


def token_settings(values: Values) -> TokenSettings:
    """The settings of the options; of two secrets the first one signs."""
    secrets = secrets_of(values, "jwt_secret")
    if not secrets:
        raise SettingsError("--jwt-secret-file: missing; give it, or CELERYMETER_JWT_SECRET")
    require(values, "subject")
    return TokenSettings(secret=secrets[0], **fields_of(TokenSettings, values))


@settings_command("token", build=token_settings)
@secret_option("--jwt-secret", "File of the API's HS256 secret; of several the first one signs.", multiple=True)
@setting("--role", click.Choice(["viewer", "operator", "admin"]), default="viewer", help="What it may do.")
@setting("--ttl", INTERVAL, default=3600.0, help="How long it is valid.")
@setting("--subject", help="Whom it is for: the name in the audit trail.")
@setting("--jwt-issuer", help="Its iss, where the API wants one.")
@setting("--jwt-audience", help="Its aud, where the API wants one.")
@setting(
    "--state-dir", DIRECTORY, help="The API's state directory: the token is then in the audit trail from the start."
)
@secret_option("--audit-key", "File of the key that seals the audit trail, where the API has one.")
def command(settings: TokenSettings) -> int:
    """Mint a token for the control API, and print it alone on the last line."""
    from celerymeter.control.audit.record import record_minted
    from celerymeter.control.tokens import Keyring, Role, mint

    claims = {"iss": settings.jwt_issuer, "aud": settings.jwt_audience}
    keyring = Keyring(
        JwtSettings(secrets=(settings.secret,), issuer=settings.jwt_issuer, audience=settings.jwt_audience)
    )
    token = mint(
        secret=settings.secret,
        subject=settings.subject,
        role=Role[settings.role.upper()],
        now=time.time(),
        ttl=settings.ttl,
        extra={name: value for name, value in claims.items() if value is not None},
    )
    try:
        identity = keyring.verify(token)
    except InvalidToken as error:
        raise SettingsError(f"--subject: {error}") from error
    if settings.state_dir is not None:
        key = settings.audit_key.encode() if settings.audit_key else None
        record_minted(identity, state_dir=settings.state_dir, audit_key=key)
    click.echo(token)
    return 0
