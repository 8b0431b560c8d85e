"""What Fabric's bytes mean: pure functions, without sockets, files, clock or randomness.

General layout: `crypto`, `identity`, `msp` say who somebody is; `policydsl` and `policies` who must have signed; `genesis`
and `channelconfig` what a channel is, `configdelta`, `configedit`, `configupdate` and `configrules` how that changes; `keys`,
`canonical`, `proposals`, `transactions`, `rwset` and `blocks` are the forms of what is exchanged; `validation`, `endorsement`,
`mvcc`, `commithash` and `commit` decide what a block changes; `packages` and `lifecycle` hold chaincode packages and
definitions.
"""

from sovchain.protocol._version import __version__

__all__ = ["__version__"]
