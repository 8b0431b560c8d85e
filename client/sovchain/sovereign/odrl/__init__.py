"""Laws to and from ODRL 2.2, for the subset that maps; whatever does not is refused with its place and the reason.

General layout: `terms` are the two vocabularies side by side; `export` goes from a law to ODRL and `importing` back, with `reading` for its
JSON-LD. `docs/odrl.md` has the tables.
"""

from sovchain.sovereign.odrl.export import export_odrl
from sovchain.sovereign.odrl.importing import import_odrl
from sovchain.sovereign.odrl.terms import OdrlError

__all__ = ["OdrlError", "export_odrl", "import_odrl"]
