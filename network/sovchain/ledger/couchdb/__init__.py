"""What a peer gets from a CouchDB state database, without a server: rich queries over the embedded ledger's own state.

`selector` decides whether a document matches, `index` which index serves a query and in what order, `find` answers one
`_find` request, `document` and `statedb` are Fabric's side of it (core/ledger/kvledger/txmgmt/statedb/statecouchdb).
All of it is pure: no sockets, no files, and no clock but the limit of a regular expression.
"""

from sovchain.ledger.couchdb.errors import FindError, FindRefused
from sovchain.ledger.couchdb.index import Index, package_indexes
from sovchain.ledger.couchdb.statedb import INTERNAL_QUERY_LIMIT, CouchState, QueryScanner, check_key, check_key_value

__all__ = [
    "INTERNAL_QUERY_LIMIT",
    "CouchState",
    "FindError",
    "FindRefused",
    "Index",
    "QueryScanner",
    "check_key",
    "check_key_value",
    "package_indexes",
]
