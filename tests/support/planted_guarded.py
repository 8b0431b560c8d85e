"""The contract full of bugs, on peers that refuse what differs between them."""

from __future__ import annotations

from planted import Planted

from sovchain.chaincode import Chaincode

chaincode = Chaincode([Planted()], name="guarded", determinism="refuse")
