"""Settings of the server, typed and validated.

The precedence is the same for all settings: command-line arguments, then LLMREC_* variables, then a TOML file, then the
defaults below. A setting has the same name everywhere: `--port`, `LLMREC_PORT`, `port = 7861`.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import socket
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from llmrec.errors import UserError
from llmrec.storage.registry import cache_home

if TYPE_CHECKING:
    from llmrec.nlu.state import Limits

PREFIX = "LLMREC_"
CONFIG = "LLMREC_CONFIG"
SECRETS = frozenset({"password", "backend_key"})
_SHORTEST_PASSWORD = 8
_HOST_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*", re.ASCII)
_ROOT_PATH = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+", re.ASCII)
_PORTS = {"http": 80, "https": 443}  # the default ports, which browsers omit from an origin
_READ_BY_OTHERS = 0o077
_LONGEST_FILE, _MOST_DOTS = 65_536, 100


class Settings(BaseSettings):
    """Settings of the server.

    Attributes:
        host: address to bind; any address other than loopback needs a password.
        port: TCP port.
        public_origins: `scheme://host[:port]` under which a reverse proxy serves the page; empty without a proxy.
        root_path: path prefix of the whole site, the same behind the proxy and here, e.g. /films; "" for none.
        user: user name for the log-in, if there is a password.
        password: cannot be given as an argument, so that it never appears in a process list.
        model: model directory; the shipped model by default.
        mcp: offer the two endpoints as MCP tools; only on this machine, as MCP clients cannot log in.
        body_bytes: largest request body.
        queue: largest number of waiting requests.
        concurrency: largest number of replies written at the same time.
        sessions: largest number of visitor sessions kept, about 0.15 MB each.
        session_minutes: minutes that an idle session is kept.
        message_chars: longest message that is accepted, in characters.
        turns: longest conversation, in turns.
        k: longest list.
        reply_tokens: most tokens in the written part of a reply.
        reply_seconds: seconds after which the written part is cut short.
        feedback: SQLite file for lists and reactions, or "off".
        batch_dir: folder whose request files the Batch tab may read; none by default.
        results: folder of result files that the Model tab shows; by default the one next to this installation.
        backend_url: an OpenAI-compatible server that writes the text, e.g. http://127.0.0.1:8000/v1; items never come
            from it.
        backend_model: the name under which this server knows the model.
        backend_key: bearer token for this server; cannot be given as an argument.
        backend_seconds: seconds after which the local model writes instead.
        backend_bytes: most bytes read of one answer.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    port: int = Field(7860, ge=1, le=65_535)
    public_origins: Annotated[tuple[str, ...], NoDecode] = ()
    root_path: str = ""
    user: str = "llmrec"
    password: SecretStr | None = None
    model: Path | None = None
    mcp: bool = False
    body_bytes: int = Field(65_536, ge=1_024, le=1_048_576)
    queue: int = Field(32, ge=1, le=1_024)
    concurrency: int = Field(2, ge=1, le=64)
    sessions: int = Field(1_000, ge=1, le=100_000)
    session_minutes: float = Field(60.0, gt=0, le=10_080)
    message_chars: int = Field(2_000, ge=100, le=2_000)
    turns: int = Field(40, ge=1, le=1_000)
    k: int = Field(100, ge=1, le=100)
    reply_tokens: int = Field(96, ge=1, le=1_024)
    reply_seconds: float = Field(20.0, gt=0, le=300)
    feedback: Literal["off"] | Path = Field(
        default_factory=lambda: cache_home() / "feedback.sqlite", union_mode="left_to_right"
    )
    batch_dir: Path | None = None
    results: Path | None = None
    backend_url: str = ""
    backend_model: str = ""
    backend_key: SecretStr | None = None
    backend_seconds: float = Field(10.0, gt=0, le=120)
    backend_bytes: int = Field(65_536, ge=1_024, le=1_048_576)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources of settings in order of precedence, highest first."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @property
    def local(self) -> bool:
        """True when only this machine can reach the server."""
        return is_loopback(self.host)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Addresses of the page: the public origins, then the address on this machine."""
        here = f"http://{self.host}:{self.port}"
        return tuple(f"{one}{self.root_path}{'/' if self.root_path else ''}" for one in (*self.public_origins, here))

    @field_validator("public_origins", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        """Accept a list, or a comma-separated string as in an environment variable."""
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("public_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(_origin(one) for one in value))

    @field_validator("root_path")
    @classmethod
    def _below(cls, value: str) -> str:
        if value and not _ROOT_PATH.fullmatch(value):
            raise ValueError("give a path like /films: a slash before each part and none at the end, or leave it out")
        return value

    @model_validator(mode="after")
    def _exposed_means_authenticated(self) -> Self:
        if self.password is not None and len(self.password.get_secret_value()) < _SHORTEST_PASSWORD:
            raise ValueError(f"LLMREC_PASSWORD is too short; use at least {_SHORTEST_PASSWORD} characters")
        if not self.local and self.password is None:
            raise ValueError(
                f"host {self.host[:60]!r} is open to other machines: set LLMREC_PASSWORD, or use 127.0.0.1"
            )
        if self.mcp and (self.password is not None or not self.local or self.public_origins):
            # Gradio answers MCP calls without authentication
            raise ValueError(
                "mcp has no log-in: use it on 127.0.0.1 without a password and public_origins, or leave it out"
            )
        return self

    @model_validator(mode="after")
    def _backend_is_whole(self) -> Self:
        if not self.backend_url:
            return self
        parts = urlsplit(self.backend_url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.query:
            raise ValueError("backend_url is not of the form http://host:port/v1")
        if not self.backend_model:
            raise ValueError("backend_model is missing: the name that the server at backend_url knows the model by")
        if self.backend_key is not None and parts.scheme == "http" and not is_loopback(parts.hostname):
            raise ValueError(f"backend_key would travel unencrypted to {parts.hostname}; use https")
        return self


def load_settings(config: Path | None = None, /, **given: Any) -> Settings:
    """Return the settings; given values (other than None) override the environment, which overrides the file.

    Args:
        config: a TOML file; if None, LLMREC_CONFIG may name one.
        given: values by name.

    Raises:
        UserError: a name is unknown, a value is out of range, a host open to other machines has no password, or a file
            cannot be read or exposes secrets to others; the message is one line.
    """
    path = config or (Path(os.environ[CONFIG]) if os.environ.get(CONFIG) else None)
    _check_environment(os.environ)
    if path is not None:
        _check_file(path)

    class Loaded(Settings):
        model_config = SettingsConfigDict(toml_file=path)

    try:
        return Loaded(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise UserError(_first(error)) from None


def parse_assignments(pairs: list[str]) -> dict[str, str]:
    """Parse `name=value` arguments.

    Raises:
        UserError: an argument has no `=`, or names a secret, which would appear in the process list.

    >>> parse_assignments(["queue=8"])
    {'queue': '8'}
    """
    out = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        name = name.strip().replace("-", "_")
        if not equals:
            raise UserError(f"--set {pair!r} is not of the form name=value, for instance --set queue=8")
        if name in SECRETS:
            raise UserError(f"--set {name} would show it in the list of processes; use {PREFIX}{name.upper()}")
        out[name] = value.strip()
    return out


def conversation_limits(settings: Settings) -> Limits:
    """Return the limits of a conversation."""
    from llmrec.nlu.state import Limits

    return Limits(
        message_chars=settings.message_chars,
        turns=settings.turns,
        k=settings.k,
        default_k=min(Limits.default_k, settings.k),
        reply_tokens=settings.reply_tokens,
        reply_seconds=settings.reply_seconds,
    )


def bind_socket(settings: Settings) -> socket.socket:
    """Return a socket bound to the host and port; raise UserError if that fails."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host.strip("[]"), settings.port), family=family)
    except OSError as error:
        why = error.strerror or str(error)
        raise UserError(
            f"cannot listen on {settings.host[:60]!r} port {settings.port}: {why}; try another --port"
        ) from None
    except (TypeError, ValueError):  # characters that no host name may contain; UnicodeErrors are ValueErrors
        raise UserError(
            f"cannot listen on {settings.host[:60]!r}: it is no address and no name of this machine"
        ) from None


def is_loopback(host: str) -> bool:
    """Return whether a host is 127.0.0.0/8, ::1 or localhost; names are not resolved, and any other is open."""
    if host.casefold() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _origin(text: str) -> str:
    """Return an origin as browsers write it: in lower case, without the default port of its scheme.

    Raises:
        ValueError: the text is not an origin.
    """
    example = "give scheme and host alone, like https://rec.example.org"
    try:
        parts = urlsplit(text.strip())
        port, name = parts.port, (parts.hostname or "")
    except ValueError as error:
        raise ValueError(f"{text[:60]!r} is no origin ({error}); {example}") from None
    if parts.scheme not in _PORTS:
        raise ValueError(f"{text[:60]!r} does not begin with https:// or http://; {example}")
    if parts.path or parts.query or parts.fragment or "?" in text or "#" in text:
        raise ValueError(f"{text[:60]!r} goes on after the host; {example}, and put a path into root_path")
    if parts.username is not None or parts.password is not None:
        raise ValueError(f"an origin has no user name or password; {example}")
    if not name.isascii():
        raise ValueError(f"{text[:60]!r}: write the name as browsers send it, {name.encode('idna').decode()!r}")
    if "[" in parts.netloc:
        ipaddress.IPv6Address(name)
        name = f"[{name}]"
    elif not _HOST_NAME.fullmatch(name):
        raise ValueError(f"{text[:60]!r} names no host; {example}")
    return f"{parts.scheme}://{name}" + ("" if port in (None, _PORTS[parts.scheme]) else f":{port}")


def _check_environment(environment: Mapping[str, str]) -> None:
    """Refuse variables that look like misspelt settings; other LLMREC_* variables belong to other parts."""
    known = {PREFIX + name.upper() for name in Settings.model_fields} | {CONFIG, "LLMREC_HOME", "LLMREC_OFFLINE"}
    for name in sorted(environment):
        if name.startswith(PREFIX) and name not in known:
            near = difflib.get_close_matches(name, sorted(known), 1, 0.9)
            if near:
                raise UserError(f"environment variable {name} is no setting; did you mean {near[0]}?")


def _check_file(path: Path) -> None:
    try:
        text = path.read_text(encoding="utf-8")
        # tomllib's memory use is quadratic in the number of parts of a dotted key; settings have one part
        if len(text) > _LONGEST_FILE or any(line.count(".") > _MOST_DOTS for line in text.splitlines()):
            raise UserError(f"{path} is no file of settings: it is too long, or a line has too many dots")
        values = tomllib.loads(text)
        mode = path.stat().st_mode
    except OSError as error:
        raise UserError(f"cannot read the settings in {str(path)!r}: {error.strerror or error}") from None
    except UserError:
        raise
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and TOMLDecodeError are ValueErrors
        raise UserError(f"{path} is not TOML: {' '.join(str(error).split())}") from None
    if SECRETS & values.keys() and mode & _READ_BY_OTHERS:
        name = sorted(SECRETS & values.keys())[0]
        raise UserError(f"{path} holds {name} and can be read by others: chmod 600 {path}")


def _first(error: ValidationError) -> str:
    """Return the first problem as one line: the setting, its value unless secret, and what would be valid."""
    first = error.errors(include_url=False, include_context=False)[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, list(Settings.model_fields), 1)
        return f"setting {name!r} is unknown{f'; did you mean {near[0]!r}?' if near else ''}"
    message = first["msg"].removeprefix("Value error, ")
    if not name:
        return message
    value = "" if name in SECRETS else _shown(first["input"])
    return f"setting {name}{value}: {message[:1].lower()}{message[1:]}"


def _shown(value: object) -> str:
    try:
        return f" is {str(value)[:60]!r}"
    except ValueError:  # Python converts no more than 4,300 digits to text
        return " holds a number of too many digits"
