"""Settings of the server, typed and checked where they come in: arguments first, then LLMREC_* variables."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path
from typing import Any, Self

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from llmrec.errors import UserError

_SHORTEST_PASSWORD = 8


class Settings(BaseSettings):
    """How the page is served.

    Attributes:
        host: address to bind; anything but loopback needs a password.
        port: TCP port.
        user: name to log in with, when there is a password.
        password: set by LLMREC_PASSWORD only, so that it shows in no process list.
        model: model directory; the shipped one when not given.
        body_bytes: largest request body.
        queue: most requests waiting.
        concurrency: most replies written at a time.
        sessions: most visitors remembered.
        session_minutes: how long an idle visitor is remembered.
    """

    model_config = SettingsConfigDict(env_prefix="LLMREC_", env_ignore_empty=True, frozen=True, extra="ignore")

    host: str = "127.0.0.1"
    port: int = Field(7860, ge=1, le=65_535)
    user: str = "llmrec"
    password: SecretStr | None = None
    model: Path | None = None
    body_bytes: int = Field(65_536, ge=1_024, le=1_048_576)
    queue: int = Field(32, ge=1, le=1_024)
    concurrency: int = Field(2, ge=1, le=64)
    sessions: int = Field(1_000, ge=1, le=100_000)
    session_minutes: float = Field(60.0, gt=0, le=10_080)

    @property
    def local(self) -> bool:
        """True when only this machine can reach the server."""
        return is_loopback(self.host)

    @model_validator(mode="after")
    def _exposed_means_authenticated(self) -> Self:
        if self.password is not None and len(self.password.get_secret_value()) < _SHORTEST_PASSWORD:
            raise ValueError(f"LLMREC_PASSWORD is too short; use at least {_SHORTEST_PASSWORD} characters")
        if not self.local and self.password is None:
            raise ValueError(f"host {self.host!r} is open to other machines: set LLMREC_PASSWORD, or use 127.0.0.1")
        return self


def load(**given: Any) -> Settings:
    """Return the settings; what is given (and not None) goes before the environment.

    Raises:
        UserError: a value out of its range, or an open host without a password; in one line.
    """
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise UserError(f"setting {where}: {message}" if where else message) from None


def listen(settings: Settings) -> socket.socket:
    """Return a socket bound to the host and port; UserError when that cannot be had."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host.strip("[]"), settings.port), family=family)
    except OSError as error:
        why = error.strerror or str(error)
        raise UserError(f"cannot listen on {settings.host} port {settings.port}: {why}; try another --port") from None


def is_loopback(host: str) -> bool:
    """True for 127.0.0.0/8, ::1 and localhost; names are not resolved, and an unknown one counts as open."""
    if host.casefold() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
