"""Records of rights requests and complaints."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from sovchain.contracts.core.records import Hex32, JurisdictionCode, LawId, MspId, Record, ShortText, Timestamp

RightKind = Literal["access", "copy", "correct", "restrict", "erase", "object", "complaint"]
"""What a person asks for: to see what is held (PIPL, article 45), a copy to take along (45), a correction (46), that use is limited or
stopped (44), deletion (47), an objection to a decision made by machine (24); or a complaint (50)."""
RightState = Literal["filed", "overdue", "fulfilled", "refused", "appealed", "ordered", "upheld", "defaulted"]


class RightsFiling(Record):
    """What a person states in public: kind, who is asked, which data set it is about. The text is in the handler's collection."""

    kind: RightKind
    handler: MspId
    dataset: Hex32 | None = None

    @model_validator(mode="after")
    def _check(self) -> RightsFiling:
        if self.kind in {"correct", "restrict", "erase", "object"} and self.dataset is None:
            raise ValueError(f"to {self.kind} takes a data set")
        return self


class RightsRequest(Record):
    """A rights request or complaint on file. `text` and `answer` are the hashes of what lies in the private collections of the
    handler and of the subject's organisation; `due` is the first moment that is too late."""

    id: Hex32
    subject: Hex32
    filing: RightsFiling
    jurisdiction: JurisdictionCode
    filed_by: Literal["subject", "guardian", "heir"]
    text: Hex32
    filed_at: Timestamp
    due: Timestamp
    state: RightState = "filed"
    late: bool = False
    changed_at: Timestamp
    answer: Hex32 | None = None
    ground: ShortText | None = None
    law: LawId | None = None
    replacement: Hex32 | None = None
    ruling: ShortText | None = None
    ruled_by: MspId | None = None


class RightsAnswer(Record):
    """A handler's answer: what became of the request. A refusal states its ground and the law that it rests on."""

    outcome: Literal["fulfilled", "refused"]
    text: Hex32
    ground: ShortText | None = None
    law: LawId | None = None
    replacement: Hex32 | None = None

    @model_validator(mode="after")
    def _check(self) -> RightsAnswer:
        if self.outcome == "refused" and (self.ground is None or self.law is None):
            raise ValueError("a refusal states its ground and the law that it rests on")
        return self


class HandlerRecord(Record):
    """How an organisation deals with what persons ask of it: counted, never set."""

    handler: MspId
    filed: Annotated[int, Field(ge=0)] = 0
    late: Annotated[int, Field(ge=0)] = 0
    defaulted: Annotated[int, Field(ge=0)] = 0
