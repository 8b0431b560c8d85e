"""The contracts: a sovereign core and one assembly for each channel.

General layout: `core` holds registry, law, decision engine, sharing and receipts; `government`, `finance` and
`logistics` each expose `chaincode`, the core with that channel's seats and scenario contracts.
"""

__all__: list[str] = []
