"""What tests say about refusals."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sovchain.chaincode import ContractError
from sovchain.contracts.core.refusal import parts


@contextmanager
def refused(code: str, *words: str) -> Iterator[pytest.ExceptionInfo[ContractError]]:
    """The body is refused with `code`; the text says what, why and what to do, and holds each of `words`."""
    with pytest.raises(ContractError) as caught:
        yield caught
    assert caught.value.code == code, caught.value
    if code != "E_ARGUMENT":  # the runtime's own refusal of a malformed argument has another form
        assert all(parts(caught.value.message)), caught.value.message
    for word in words:
        assert word in caught.value.message
