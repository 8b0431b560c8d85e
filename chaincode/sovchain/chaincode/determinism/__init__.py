"""Contracts must come to the same result on every peer. Three things look after that.

    rules   what differs between peers, by name, and what to use instead; shared by the other two
    lint    reads a contract's source and names each place (`sovchain chaincode lint`)
    guard   refuses or warns while a transaction runs on a peer (`Chaincode(..., determinism="refuse")`)

The test ledger is the third: it runs each proposal on two instances under another hash seed and clock.
"""
