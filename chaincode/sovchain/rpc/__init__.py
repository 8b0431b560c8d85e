"""gRPC over asyncio with an HTTP/2 of our own: what Fabric's services need, in both roles, and nothing more.

Fabric speaks gRPC everywhere: a client to its gateway, a peer to its chaincode. gRPC's own library for asyncio changes threads
three times for each message, which is most of the time of a short call; here a call takes one write and one read.

`wire` has the constants, `http2` the connection as bytes in and bytes out, `stream` one call of it; `connection` puts them on a
socket. `channel` is the client's side of calls, `server` the side that answers. `tls` makes contexts from PEM.
"""
