"""Sharing of payloads of any size: sealed into a store, the key delivered only after a committed permit."""

from __future__ import annotations

import asyncio
import mimetypes
import secrets
from collections.abc import Collection
from pathlib import Path

from sovchain.contracts.core.codes import DATA_CLASSES, PURPOSES
from sovchain.contracts.core.records import SALT_BYTES, Sealed
from sovchain.sovereign.blobstores import BlobStore
from sovchain.sovereign.errors import InvalidInput, SealBroken
from sovchain.sovereign.results import About, Fetched, Shared
from sovchain.sovereign.sealedfile import (
    CHUNK_BYTES,
    Manifest,
    Opener,
    Progress,
    check_stored,
    discard_journal,
    open_file,
    read_manifest,
    seal_file,
)
from sovchain.sovereign.sovereign import Sovereign, check_jurisdiction, check_word, entry_of

_MEDIA_TYPE = "application/octet-stream"


class SealedData:
    """Sealed payloads in one store, for one user of one channel.

    A request, its decision and the release are those of any data set (`Sovereign`): what the owner deposits and delivers is the
    opener. Methods raise besides what they name what `Sovereign`'s raise, and StoreError.
    """

    def __init__(self, office: Sovereign, store: BlobStore) -> None:
        self._office, self._store = office, store

    async def seal(
        self,
        source: Path,
        *,
        purposes: Collection[str],
        name: str | None = None,
        data_class: str = "general",
        jurisdiction: str | None = None,
        residency: Collection[str] | None = None,
        rows: int = 0,
        about: About | None = None,
        media_type: str | None = None,
        location: str | None = None,
        chunk_bytes: int = CHUNK_BYTES,
        progress: Progress | None = None,
    ) -> Shared:
        """Seal a file of any kind and size into the store, deposit its opener and publish its entry.

        Arguments as for `Sovereign.share`; `rows` says how many persons personal data are about, `location` where others find
        the store (by default what the store says of itself). Interrupted, call it again: it goes on where it stopped, with the
        key that the journal beside the file keeps until the opener is deposited.
        Raises FileMissing, FileEmpty, SourceChanged, UnknownWord, InvalidInput.
        """
        check_word("data class", data_class, DATA_CLASSES)
        for purpose in purposes:
            check_word("purpose", purpose, PURPOSES)
        home = (await self._office.organisation(self._office.msp_id)).organisation.jurisdiction
        place = home if jurisdiction is None else jurisdiction
        places = (place,) if residency is None else tuple(residency)
        for kind, code in [("jurisdiction", place), *(("residency", one) for one in places)]:
            check_jurisdiction(kind, code)
        guessed = mimetypes.guess_type(source.name)[0]
        stated = {
            "name": name or source.name,
            "data_class": data_class,
            "jurisdiction": place,
            "residency": tuple(sorted(set(places))),
            "purposes": tuple(sorted(set(purposes))),
            "columns": (),
            "rows": rows,
            "size_bytes": 1,
            "media_type": media_type or guessed or _MEDIA_TYPE,
            "sealed": Sealed(manifest="0" * 64, location=self._store.location if location is None else location),
            **(about or About()).model_dump(),
        }
        entry = entry_of(stated)  # what is wrong with it is found before hours of sealing
        opener = await asyncio.to_thread(seal_file, source, self._store, chunk_bytes=chunk_bytes, progress=progress)
        assert entry.sealed is not None  # stated above
        sealed = entry.sealed.model_copy(update={"manifest": opener.manifest})
        entry = entry.model_copy(update={"sealed": sealed, "size_bytes": (await self._manifest(opener)).size_bytes})
        shared = await self._office.deposit(secrets.token_bytes(SALT_BYTES) + opener.encode(), entry)
        await asyncio.to_thread(discard_journal, source)
        return shared

    async def fetch(self, request: str, target: Path, *, progress: Progress | None = None) -> Fetched:
        """As the grantee: open the sealed payload of a delivered request into a file that must not exist.

        It appears whole or not at all; interrupted, call it again. Raises NothingToOpen, SealBroken, BlobMissing, BlobAltered,
        InvalidInput.
        """
        delivered, dataset = await self._office.opener(request)
        opener = Opener.decode(delivered)
        entry = dataset.entry
        if entry.sealed is None or opener.manifest != entry.sealed.manifest:
            raise SealBroken(
                "what was delivered opens another payload than the catalogue's",
                "it names another manifest",
                "do not use it and tell the owner",
            )
        size = await asyncio.to_thread(open_file, opener, self._store, target, progress=progress)
        if size != entry.size_bytes:
            raise SealBroken(
                "the payload has another size than the catalogue says",
                f"{size} bytes, not {entry.size_bytes}",
                "tell the owner",
            )
        return Fetched(request=request, dataset=dataset.id, size_bytes=size)

    async def check(self, dataset: str, *, progress: Progress | None = None) -> Manifest:
        """Whether the store has a data set's sealed payload, whole and unaltered. Anyone may: it takes no key.

        Raises BlobMissing, BlobAltered, SealBroken, InvalidInput where the data set is not sealed.
        """
        entry = (await self._office.dataset(dataset)).entry
        if entry.sealed is None:
            raise InvalidInput("the data set is not sealed", "it lies in its owner's collection", "nothing is to check")
        return await asyncio.to_thread(check_stored, self._store, entry.sealed.manifest, progress=progress)

    async def _manifest(self, opener: Opener) -> Manifest:
        return await asyncio.to_thread(read_manifest, self._store, opener.manifest)
