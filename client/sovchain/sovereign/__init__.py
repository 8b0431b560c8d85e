"""Typed wrappers for people who think in data sets, requests, decisions and receipts.

General layout: `sovereign` is the object that a program works with; `authority` is for orders, co-signatures and
persons' data; `grants` is for permits in use; `rights` for what persons ask of whoever holds their data; `passage`
carries records to another channel; `relief`, `exchange`, `logistics` and `drafts` are the scenarios' desks; `datafile` reads the CSV files that are shared; `calls` makes the calls and translates refusals;
`sealeddata` shares payloads of any size, which `sealedfile` seals into one of `blobstores`; `odrl` writes laws as ODRL policies and
reads such policies; `results` are the records returned besides the contracts' own; `errors` says what went wrong, why, and what to
do.
"""

from sovchain.sovereign.authority import Authority, PersonalDataDesk, pseudonym
from sovchain.sovereign.blobstores import BlobStore, FolderStore, S3Store, open_store
from sovchain.sovereign.datafile import DataFile, read_data_file, read_text_file
from sovchain.sovereign.errors import (
    BlobAltered,
    BlobMissing,
    ContractRefusal,
    DataFileError,
    FileBinary,
    FileEmpty,
    FileEncodingError,
    FileMissing,
    FileTooLarge,
    FileUnreadable,
    IntegrityError,
    InvalidInput,
    LawTextError,
    NothingToOpen,
    SealBroken,
    SourceChanged,
    SovereignError,
    StoreError,
    TableError,
    UnknownWord,
)
from sovchain.sovereign.grants import GrantDesk
from sovchain.sovereign.passage import Passage, anchor_statement, collect_view
from sovchain.sovereign.relief import PayoutDesk, ReliefOffice
from sovchain.sovereign.results import (
    About,
    Acknowledged,
    Answer,
    Committed,
    Fetched,
    Filed,
    Proposed,
    ProposedLaw,
    Recorded,
    Released,
    Shared,
    Voted,
)
from sovchain.sovereign.rights import PersonalExport, RightsDesk, check_export
from sovchain.sovereign.sealeddata import SealedData
from sovchain.sovereign.sovereign import Sovereign, check_law

__all__ = [
    "About",
    "Acknowledged",
    "Answer",
    "Authority",
    "BlobAltered",
    "BlobMissing",
    "BlobStore",
    "Committed",
    "ContractRefusal",
    "DataFile",
    "DataFileError",
    "Fetched",
    "FileBinary",
    "FileEmpty",
    "FileEncodingError",
    "FileMissing",
    "FileTooLarge",
    "FileUnreadable",
    "Filed",
    "FolderStore",
    "GrantDesk",
    "IntegrityError",
    "InvalidInput",
    "LawTextError",
    "NothingToOpen",
    "Passage",
    "PayoutDesk",
    "PersonalDataDesk",
    "PersonalExport",
    "Proposed",
    "ProposedLaw",
    "Recorded",
    "Released",
    "ReliefOffice",
    "RightsDesk",
    "S3Store",
    "SealBroken",
    "SealedData",
    "Shared",
    "SourceChanged",
    "Sovereign",
    "SovereignError",
    "StoreError",
    "TableError",
    "UnknownWord",
    "Voted",
    "anchor_statement",
    "check_export",
    "check_law",
    "collect_view",
    "open_store",
    "pseudonym",
    "read_data_file",
    "read_text_file",
]
