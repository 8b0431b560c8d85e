"""Errors of the protocol room: one tree.

ProtocolError
  MalformedError        bytes that do not have the form they must have
  InvalidIdentity       an identity that an MSP refuses
  PolicySyntaxError     policy text that does not parse
  PolicyUnsatisfied     signatures that do not satisfy a policy
  ConfigError           a channel configuration that cannot be used
"""

from __future__ import annotations


class ProtocolError(Exception):
    """Base of everything that this package raises for bad input."""


class MalformedError(ProtocolError):
    """Bytes do not have the form that they must have."""


class InvalidIdentity(ProtocolError):
    """An identity is refused; the text is Fabric's where it has one."""


class PolicySyntaxError(ProtocolError):
    """Policy text does not parse. `position` counts characters from 0."""

    def __init__(self, message: str, position: int, text: str = "") -> None:
        super().__init__(f"{message} at position {position}")
        self.position = position
        self.text = text


class PolicyUnsatisfied(ProtocolError):
    """The signatures do not satisfy the policy; the text is Fabric's."""


class ConfigError(ProtocolError):
    """A channel configuration cannot be used."""
