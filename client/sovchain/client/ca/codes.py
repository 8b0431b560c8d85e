"""The numbers by which a Fabric CA says why it refuses (`lib/caerrors/servererror.go`)."""

from __future__ import annotations

from enum import IntEnum


class CaCode(IntEnum):
    """Fabric CA's error codes, under its own names.

    A refusal for want of authentication or of authority comes as `AUTHENTICATION_FAILURE` or `AUTHORIZATION_FAILURE`
    whatever its cause: the server keeps the cause for its own log.
    """

    UNKNOWN = 0
    METHOD_NOT_ALLOWED = 1
    NO_AUTH_HDR = 2
    READING_REQ_BODY = 3
    EMPTY_REQ_BODY = 4
    BAD_REQ_BODY = 5
    BAD_REQ_TOKEN = 6
    NOT_REVOKER = 7
    REV_CERT_NOT_FOUND = 8
    CERT_WRONG_OWNER = 9
    REVOKE_ID_NOT_FOUND = 10
    REVOKE_USER_INFO_NOT_FOUND = 11
    REVOKE_FAILURE = 12
    REVOKE_UPDATE_USER = 13
    NO_CERTS_REVOKED = 14
    MISSING_REVOKE_ARGS = 15
    GETTING_AFFILIATION = 16
    REVOKER_NOT_AFFILIATED = 17
    SENDING_RESPONSE = 18
    CA_NOT_FOUND = 19
    AUTHENTICATION_FAILURE = 20
    NO_USER_PASS = 21
    ENROLL_DISABLED = 22
    INVALID_USER = 23
    INVALID_PASS = 24
    INVALID_TOKEN = 25
    UNTRUSTED_CERTIFICATE = 26
    CERT_EXPIRED = 27
    CERT_REVOKED = 28
    CERT_REVOKE_CHECK_FAILURE = 29
    CERT_NOT_FOUND = 30
    BAD_CSR = 31
    NO_PRE_KEY = 32
    CALLER_IS_NOT_AUTHENTICATED = 33
    CONFIG = 34
    NO_GEN_CRL_AUTH = 35
    INVALID_REVOKED_AFTER = 36
    INVALID_EXPIRED_AFTER = 37
    REVOKED_CERTS_FROM_DB = 38
    GET_CA_CERT = 39
    GET_CA_SIGNER = 40
    GEN_CRL = 41
    REG_ATTR_AUTH = 42
    MISSING_REG_ATTR = 43
    CALLER_NOT_AFFILIATED = 44
    GETTING_TYPE = 45
    NO_CRL_SIGN_AUTH = 46
    DB_LEVEL = 47
    CONFIG_FILE_LEVEL = 48
    GETTING_USER = 49
    HTTP_REQUEST = 50
    CONNECTING_DB = 51
    ADD_IDENTITY = 52
    UPDATE_CONFIG_AUTH = 53
    REGISTRAR_INVALID_TYPE = 54
    REGISTRAR_NOT_AFFILIATED = 55
    REMOVE_IDENTITY = 56
    GETTING_BOOL_QUERY_PARM = 57
    MODIFYING_IDENTITY = 58
    MISSING_ROLE = 59
    UPDATE_CONFIG_ADD_AFF = 60
    UPDATE_CONFIG_REMOVE_AFF = 61
    REMOVE_AFF_DB = 62
    DB_GET = 63
    UPDATE_CONFIG_MODIFY_AFF = 64
    DB_DELETE_USER = 65
    CERT_ALREADY_REVOKED = 66
    GETTING_CERT = 67
    PARSING_INT_ENV_VAR = 68
    CA_CERT_FILE_NOT_FOUND = 69
    REVOKED_ID = 70
    AUTHORIZATION_FAILURE = 71
    INVALID_LDAP_ACTION = 72
    PASSWORD_ATTEMPTS = 73
    DUP_IDENTITY_REG = 74
    REGISTERING_IDENTITY = 75
    REGISTRAR_REG_AUTH = 76
    CN_INVALID_ENROLL = 77
    INVOKER_MISS_ATTR = 78
    INVALID_BOOL = 79
    INPUT_VALID_CSR = 80
    ATTR_EXT = 81
    INVALID_MAX_ENROLL = 82


def code_name(code: int) -> str:
    """Return the name of a code; the number itself where a later server has a code that is not known here."""
    try:
        return CaCode(code).name
    except ValueError:
        return str(code)
