"""
The configuration of a ZITADEL that is started on a copy: reached as the original was, and silent beyond loopback.

Facts: ZITADEL v2.71 to v4 and main, cmd/defaults.yaml; what was seen to matter stands beside each part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Any

import yaml

LOOPBACK = "127.0.0.1"

ELSEWHERE = tuple(map(str, IPv4Network("0.0.0.0/0").address_exclude(IPv4Network("127.0.0.0/8"))))
"""All IPv4 addresses but loopback, as CIDR blocks."""

PORT = 8080
"""where it listens; what is outside sees the external port"""


@dataclass(frozen=True, slots=True)
class External:
    """How ZITADEL is reached from outside, as its last setup noted it."""

    domain: str
    port: int
    secure: bool

    @classmethod
    def of(cls, noted: Mapping[str, object], domain: str) -> External:
        """Read what setup noted; `domain` is for what it did not."""
        name, port, secure = (noted.get(f"external{what}") for what in ("Domain", "Port", "Secure"))
        secure = secure if isinstance(secure, bool) else True
        return cls(
            name if isinstance(name, str) else domain,
            port if isinstance(port, int) else 443 if secure else 80,
            secure,
        )

    def host(self, domain: str) -> str:
        """Return the Host header for a domain of an instance."""
        usual = 443 if self.secure else 80
        return domain if self.port == usual else f"{domain}:{self.port}"


@dataclass(frozen=True, slots=True)
class Access:
    """A database on loopback."""

    port: int
    database: str
    user: str
    password: str


def configuration(external: External, access: Access) -> str:
    """Write it as YAML."""
    return yaml.safe_dump(settings(external, access))


def settings(external: External, access: Access, port: int = PORT) -> dict[str, Any]:
    """Return it; ZITADEL listens at `port`."""
    user = {"Username": access.user, "Password": access.password, "SSL": {"Mode": "disable"}}
    postgres = {
        "Host": LOOPBACK,
        "Port": access.port,
        "Database": access.database,
        "MaxOpenConns": 20,
        "MaxIdleConns": 10,
        # Without it v2.71 makes a connection for each statement.
        "MaxConnLifetime": "30m",
        "MaxConnIdleTime": "5m",
        "User": user,
        "Admin": {**user, "ExistingDatabase": "postgres"},
    }
    denied = {"DenyList": list(ELSEWHERE)}
    return {
        "Port": port,
        "ExternalDomain": external.domain,
        "ExternalPort": external.port,
        "ExternalSecure": external.secure,
        "TLS": {"Enabled": False},
        "Database": {"postgres": postgres},
        # No private address is there to tell machines apart, and no metadata service to ask.
        "Machine": {
            "Identification": {
                "Hostname": {"Enabled": True},
                "PrivateIp": {"Enabled": False},
                "Webhook": {"Enabled": False},
            }
        },
        # A copy has the system id of its original.
        "ServicePing": {"Enabled": False},
        "Telemetry": {"Enabled": False},
        # Of actions, of targets, and of all outgoing calls where a version knows that: a second fence.
        "Actions": {"HTTP": denied},
        "Executions": denied,
        "HTTPClient": denied,
    }
