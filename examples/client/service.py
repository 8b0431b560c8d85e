"""A FastAPI service in front of a chaincode: one gateway for the life of the process, each request with its deadline.

    SOVCHAIN_PROFILE=connections/Finance.json SOVCHAIN_MSP=User1@finance.example/msp SOVCHAIN_MSP_ID=FinanceMSP \
      uvicorn service:app

Needs `pip install fastapi uvicorn`. A client of the service sends `Idempotency-Key` and may ask as often as it likes.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import FastAPI, Header, HTTPException, Request
from fastapi.responses import JSONResponse

from sovchain.client import (
    CommitRejected,
    ConnectError,
    Gateway,
    GatewayError,
    IdempotencyKeyReused,
    OutcomeUnknown,
    RetryPolicy,
    SigningIdentity,
    SqliteJournal,
)

CHANNEL, CHAINCODE = os.environ.get("SOVCHAIN_CHANNEL", "finance"), os.environ.get("SOVCHAIN_CHAINCODE", "finance")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    identity = SigningIdentity.from_msp_folder(os.environ["SOVCHAIN_MSP"], os.environ["SOVCHAIN_MSP_ID"])
    journal = SqliteJournal(os.environ.get("SOVCHAIN_JOURNAL", "submits.sqlite"))
    retry = RetryPolicy(conflict_retries=3)
    async with Gateway.connect(os.environ["SOVCHAIN_PROFILE"], identity, journal=journal, retry=retry) as gateway:
        app.state.contract = gateway.network(CHANNEL).contract(CHAINCODE)
        yield
    journal.close()


app = FastAPI(lifespan=lifespan)


@app.exception_handler(GatewayError)
async def refused(request: Request, error: GatewayError) -> JSONResponse:
    """The contract's own refusal is the caller's mistake; anything else is not."""
    status = 409 if error.chaincode_status is not None else 504 if error.timed_out else 502
    return JSONResponse({"code": error.code, "reason": error.reason or error.status}, status)


@app.exception_handler(ConnectError)
async def unreachable(request: Request, error: ConnectError) -> JSONResponse:
    return JSONResponse({"reason": error.reason}, 503)


@app.exception_handler(OutcomeUnknown)
async def unknown(request: Request, error: OutcomeUnknown) -> JSONResponse:
    """202: it may be committed yet. The same key again tells."""
    return JSONResponse({"transaction_id": error.transaction_id}, 202)


@app.exception_handler(CommitRejected)
async def rejected(request: Request, error: CommitRejected) -> JSONResponse:
    return JSONResponse({"transaction_id": error.transaction_id, "code": error.code_name}, 409)


@app.exception_handler(IdempotencyKeyReused)
async def reused(request: Request, error: IdempotencyKeyReused) -> JSONResponse:
    return JSONResponse({"reason": "the key stands for another request"}, 422)


@app.get("/{function}")
async def evaluate(request: Request, function: str, argument: str) -> dict[str, str]:
    result: bytes = await request.app.state.contract.evaluate(function, argument)
    return {"result": result.decode(errors="replace")}


@app.post("/{function}")
async def submit(
    request: Request, function: str, arguments: list[str], idempotency_key: Annotated[str, Header()]
) -> dict[str, str | int]:
    if len(arguments) > 64:
        raise HTTPException(413, "too many arguments")
    done = await request.app.state.contract.submit_once(idempotency_key, function, *arguments)
    return {"transaction_id": done.transaction_id, "block": done.block_number}
