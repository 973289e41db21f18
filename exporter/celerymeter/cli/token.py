"""``celerymeter token``: create a token for the control API."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import click

from celerymeter.cli.command import settings_command
from celerymeter.control.settings import MAX_LIFETIME, JwtSettings
from celerymeter.errors import InvalidToken, SettingsError
from celerymeter.kinds import DIRECTORY, SECRET, TEXT, duration
from celerymeter.options import SECRET_ITSELF, option, secret, setting


@dataclass(frozen=True, slots=True)
class TokenSettings:
    """The claims of a token, and the secrets, of which the first signs it; ``ttl`` is in seconds."""

    secrets: tuple[bytes, ...] = field(
        repr=False,
        metadata=option(
            SECRET,
            SECRET_ITSELF,
            flag="--jwt-secret",
            repeated=True,
            file="File that holds the HS256 secret of the API; the first of several signs the token.",
        ),
    )
    subject: str = field(metadata=option(TEXT, "Name of the token's owner, as the audit trail will show it."))
    role: str = setting("viewer", click.Choice(["viewer", "operator", "admin"]), "What the token permits.")
    ttl: float = setting(3600.0, duration(1.0, MAX_LIFETIME), "How long the token is valid.")
    jwt_issuer: str | None = setting(None, TEXT, "The iss claim, if the API requires one.")
    jwt_audience: str | None = setting(None, TEXT, "The aud claim, if the API requires one.")
    state_dir: Path | None = setting(
        None,
        DIRECTORY,
        "The state directory of an API that has run: records in its audit trail that the token was created.",
    )
    audit_key: bytes | None = secret(
        None, "File that holds the key that seals the audit trail, if it is not in the state directory."
    )


@settings_command("token", TokenSettings)
def command(settings: TokenSettings) -> int:
    """Create a token for the control API and print it, alone, on the last line."""
    from celerymeter.control.audit.offline import record_minted
    from celerymeter.control.tokens import Keyring, Role, mint

    key = settings.secrets[0]
    claims = {"iss": settings.jwt_issuer, "aud": settings.jwt_audience}
    keyring = Keyring(JwtSettings(secrets=(key,), issuer=settings.jwt_issuer, audience=settings.jwt_audience))
    token = mint(
        secret=key,
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
        record_minted(identity, state_dir=settings.state_dir, audit_key=settings.audit_key)
    click.echo(token)
    return 0
