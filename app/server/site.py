"""The public address of the server: its host names, allowed origins and path prefix.

A request is answered only under a known host name (against DNS rebinding), and is refused if a page of another origin
sent it (against cross-site requests). Proxy headers are trusted only from this machine, and only if they name one of
the public origins. They are not passed on to the application.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.types import Scope

from llmrec.app.server.settings import Settings, is_loopback

_PORT = re.compile(r":\d+$")
# Gradio would build the addresses of its page from these headers, no matter who sent them
_FORWARDED = re.compile(rb"x-forwarded-.*|forwarded|x-real-ip|x-original-.*|x-gradio-server")


@dataclass(frozen=True)
class RequestRefused:
    """The reason why a request is refused: an HTTP status and a sentence."""

    status: int
    detail: str


@dataclass(frozen=True)
class Site:
    """The names, origins and path prefix of a server.

    Attributes:
        names: host names, without port, that the server answers to in addition to the public ones; empty for any.
        origins: public origins, `scheme://host[:port]` as browsers write them.
        root: path prefix of the whole site, without a final slash; "" for none.
    """

    names: frozenset[str]
    origins: tuple[str, ...] = ()
    root: str = ""

    @classmethod
    def of(cls, settings: Settings) -> Site:
        """Return the site that the settings describe."""
        known = {"127.0.0.1", "localhost", "[::1]", settings.host.casefold()}
        anywhere = not settings.local and not settings.public_origins
        return cls(frozenset() if anywhere else frozenset(known), settings.public_origins, settings.root_path)

    def received(self, scope: Scope) -> Scope | RequestRefused:
        """Return the request with the address that the visitor sees and without proxy headers, or a refusal.

        `path` is the whole path; `root_path` is the prefix that belongs to the site.
        """
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        address = self._address(scope, headers)
        if address is None:
            return RequestRefused(421, "This server does not answer to that name.")
        origin = headers.get("origin")
        if origin and not self._own(origin, address):
            return RequestRefused(403, "Requests from other sites are not accepted.")
        if self.root and not scope["path"].startswith(f"{self.root}/"):
            return RequestRefused(
                404, f"Not found: all lies below {self.root}/, and a proxy passes paths on unchanged."
            )
        scheme, _, host = address.partition("://")
        plain = [pair for pair in scope["headers"] if pair[0] != b"host" and not _FORWARDED.fullmatch(pair[0])]
        plain.append((b"host", host.encode("latin-1")))
        return {**scope, "headers": plain, "scheme": scheme, "root_path": self.root}

    def _address(self, scope: Scope, headers: dict[str, str]) -> str | None:
        """Return `scheme://host[:port]` as the visitor sees it; None if the server does not answer to the name."""
        host, forwarded = headers.get("host", ""), headers.get("x-forwarded-host")
        public = self._public(host)
        if public is None and forwarded and self.origins and is_loopback((scope.get("client") or ("",))[0]):
            return self._public(forwarded.partition(",")[0].strip())  # from a proxy that replaced the host name
        if public is not None:
            return public
        return f"http://{host}" if not self.names or _bare(host) in self.names else None

    def _public(self, host: str) -> str | None:
        """Return the public origin of a host: preferably with the same port, otherwise with the same name, or None."""
        named = [origin for origin in self.origins if urlsplit(origin).hostname == _bare(host).strip("[]")]
        return next((origin for origin in named if urlsplit(origin).netloc == host.casefold()), next(iter(named), None))

    def _own(self, origin: str, address: str) -> bool:
        if origin.casefold() in self.origins:
            return True
        # not under a public address: accept pages of this server, with any scheme that a program in front of it uses
        return address not in self.origins and origin.partition("://")[2] == address.partition("://")[2]


def _bare(host: str) -> str:
    return _PORT.sub("", host).casefold()
