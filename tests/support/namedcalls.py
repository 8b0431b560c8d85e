"""Calls of functions by their names, with arguments as they are, where a test has no operation for them."""

from __future__ import annotations

from typing import Any

from sovchain.chaincode import EncodedCall, Operation


class Named(Operation[..., Any]):
    """Any function by its name, with arguments as they are."""

    def __init__(self, name: str) -> None:
        self._name = name

    name = property(lambda self: self._name)  # type: ignore[assignment]  # a name that no class has

    def encode(self, *args: Any, **kwargs: Any) -> Any:
        return EncodedCall((self._name.encode(), *args), kwargs)

    def decode(self, payload: bytes) -> Any:
        return payload
