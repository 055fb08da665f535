"""
What S3 and the way to it can answer, translated once.

The exceptions of the SDK are known here by the names of their classes, so that this module needs no import
of it. Of their texts only a server's code and message and the operating system's reason are passed on: the
rest may quote settings, and "invalid header value" quotes the session token. So they are not chained either.
"""

from __future__ import annotations

import contextlib
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, cast

from zbackup.errors import AccessDenied, ObjectMissing, StoreError, StoreFull, StoreUnreachable
from zbackup.store.write import NameTaken, NotTaken

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator


class Unsupported(StoreError):
    """The store does not know this kind of request, or one of its conditions."""


class DigestRefused(NotTaken):
    """The bytes that came were not those that were announced: damaged on the way."""


_RIGHTS = "Check the policy of these credentials: docs/stores.md lists what zbackup needs."
_KEYS = "Check the access key and secret key that the environment, profile or role supplies."
_AGAIN = "Get fresh credentials (for example `aws sso login`), then run again."
_CLOCK = "Set the clock of this machine right: requests are refused when it is minutes off."
_REGION = "Set AWS_REGION to the region of the bucket."
_BUSY = "The store is busy; run again later, or with fewer --jobs."
_FULL = "Raise the quota or make room, then run again; nothing needs to be removed by hand."
# Swift says of its quotas that the object is too large; for itself no object of ours is.
_TOO_LARGE = "The quota may be used up: raise it or make room, or lower --chunk-bytes, then run again."
_ENDPOINT = "Check --s3-endpoint and --s3-addressing, the network and a proxy between."

_BY_CODE: dict[str, tuple[type[StoreError], str]] = {
    "AccessDenied": (AccessDenied, _RIGHTS),
    "AllAccessDisabled": (AccessDenied, _RIGHTS),
    "AccountProblem": (AccessDenied, "The account behind these credentials is suspended or unpaid."),
    "Forbidden": (AccessDenied, _RIGHTS),
    "InvalidAccessKeyId": (AccessDenied, _KEYS),
    "SignatureDoesNotMatch": (AccessDenied, _KEYS),
    "InvalidSecurity": (AccessDenied, _KEYS),
    "ExpiredToken": (AccessDenied, _AGAIN),
    "ExpiredTokenException": (AccessDenied, _AGAIN),
    "InvalidToken": (AccessDenied, _AGAIN),
    "TokenRefreshRequired": (AccessDenied, _AGAIN),
    "RequestTimeTooSkewed": (AccessDenied, _CLOCK),
    "RequestExpired": (AccessDenied, _CLOCK),
    "NoSuchKey": (ObjectMissing, ""),
    "NoSuchVersion": (ObjectMissing, ""),
    "NoSuchBucket": (StoreError, "Create the bucket, or correct the address; zbackup makes none."),
    "InvalidBucketName": (StoreError, "Correct the bucket in the address, or try --s3-addressing path."),
    "PermanentRedirect": (StoreError, _REGION),
    "AuthorizationHeaderMalformed": (StoreError, _REGION),
    "IllegalLocationConstraintException": (StoreError, _REGION),
    "InvalidObjectState": (StoreError, "The object is in a cold storage class: bring it back first."),
    "InvalidRange": (StoreError, "The object is shorter than what refers to it says: run `zbackup verify`."),
    "EntityTooLarge": (StoreFull, _TOO_LARGE),
    "QuotaExceeded": (StoreFull, _FULL),
    "StorageQuotaExceeded": (StoreFull, _FULL),
    "XMinioAdminBucketQuotaExceeded": (StoreFull, _FULL),
    "XMinioStorageFull": (StoreFull, _FULL),
    "InsufficientStorage": (StoreFull, _FULL),
    "SlowDown": (NotTaken, _BUSY),
    "Throttling": (NotTaken, _BUSY),
    "ThrottlingException": (NotTaken, _BUSY),
    "TooManyRequests": (NotTaken, _BUSY),
    "RequestLimitExceeded": (NotTaken, _BUSY),
    "BandwidthLimitExceeded": (NotTaken, _BUSY),
    "OperationAborted": (NotTaken, _BUSY),
    "ConditionalRequestConflict": (NotTaken, _BUSY),
    "IncompleteBody": (NotTaken, _BUSY),
    "RequestTimeout": (StoreUnreachable, _BUSY),
    "InternalError": (StoreUnreachable, _BUSY),
    "ServiceUnavailable": (StoreUnreachable, _BUSY),
    "PreconditionFailed": (NameTaken, ""),
    "NotImplemented": (Unsupported, "This server lacks something zbackup needs of S3."),
    "BadDigest": (DigestRefused, "Bytes are damaged between here and the store: check the network's hardware."),
    "InvalidDigest": (DigestRefused, ""),
    "XAmzContentChecksumMismatch": (DigestRefused, ""),
    "XAmzContentSHA256Mismatch": (DigestRefused, ""),
}

# Answers without a body (HEAD), or with one that is not S3's: what the status alone says.
_BY_STATUS: dict[int, str] = {
    301: "PermanentRedirect", 401: "AccessDenied", 403: "AccessDenied", 404: "NoSuchKey",
    408: "RequestTimeout", 409: "OperationAborted", 412: "PreconditionFailed", 429: "TooManyRequests",
    501: "NotImplemented", 507: "InsufficientStorage",
}  # fmt: skip

# What the SDK says of half a header: http.client takes a connection that breaks there for the end of the headers.
_HALF = ("Invalid timestamp", "invalid literal for int")

# By class and its bases, the nearest first.
_BY_CLASS: dict[str, tuple[type[StoreError], str, str]] = {
    "NoCredentialsError": (AccessDenied, "no credentials found", f"{_KEYS} An unset AWS_PROFILE is common."),
    "PartialCredentialsError": (AccessDenied, "only half of the credentials is set", _KEYS),
    "CredentialRetrievalError": (AccessDenied, "no credentials to be had from their source", _AGAIN),
    "TokenRetrievalError": (AccessDenied, "the sign-on token is missing or expired", _AGAIN),
    "SSOError": (AccessDenied, "the sign-on token is missing or expired", _AGAIN),
    "LoginError": (AccessDenied, "the sign-on session is missing or expired", _AGAIN),
    "ProfileNotFound": (StoreError, "no such AWS profile", "Correct AWS_PROFILE or the shared config file."),
    "ConfigParseError": (StoreError, "the AWS config file cannot be parsed", "Correct the file."),
    "NoRegionError": (StoreError, "no region is set", _REGION),
    "InvalidRegionError": (StoreError, "the region is not one", _REGION),
    "ParamValidationError": (StoreError, "refused by the SDK: not a bucket or key", "Correct the address."),
    "SSLError": (StoreUnreachable, "the TLS connection failed", _ENDPOINT),
    "EndpointConnectionError": (NotTaken, "cannot connect", _ENDPOINT),
    "ConnectTimeoutError": (NotTaken, "no answer to the connection", _ENDPOINT),
    "ProxyConnectionError": (NotTaken, "cannot connect to the proxy", "Check HTTPS_PROXY and NO_PROXY."),
    "TimeoutError": (StoreUnreachable, "no answer in time", _ENDPOINT),
    "ReadTimeoutError": (StoreUnreachable, "no answer in time", _ENDPOINT),
    "ConnectionError": (StoreUnreachable, "the connection broke", _ENDPOINT),
    "HTTPClientError": (StoreUnreachable, "the connection broke", _ENDPOINT),
    "HTTPError": (StoreUnreachable, "the connection broke", _ENDPOINT),
    "IncompleteReadError": (StoreUnreachable, "the answer was cut short", _ENDPOINT),
    "ResponseParserError": (StoreUnreachable, "the answer is not S3's", _ENDPOINT),
    "BotoCoreError": (StoreError, "refused by the SDK", "Check the AWS settings and the address."),
}


@contextlib.contextmanager
def s3_errors(what: str) -> Generator[None]:
    """Translate failures of one call about `what`."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        translated = _translated(what, error)
        if translated is None:  # a bug of ours or of the SDK's
            raise
        raise translated from None


def _translated(what: str, error: Exception) -> StoreError | None:
    answer: Any = getattr(error, "response", None)
    if isinstance(answer, dict):
        return _of_answer(what, cast("dict[str, Any]", answer))
    causes = list(_causes(error))
    reason = next((cause.strerror for cause in causes if isinstance(cause, OSError) and cause.strerror), "")
    if "certificate" in reason.lower():
        return StoreError(f"{what}: {reason}", hint="Set AWS_CA_BUNDLE to the certificate of its authority.")
    if isinstance(error, ValueError) and str(error).startswith(_HALF):
        return StoreUnreachable(f"{what}: the answer was cut short among its headers", hint=_ENDPOINT)
    # http.client's own errors come of what was received, and may have a ValueError behind them, too.
    received = any(isinstance(cause, HTTPException) for cause in causes)
    if isinstance(error, UnicodeError) or (not received and any(isinstance(cause, ValueError) for cause in causes[1:])):
        return AccessDenied(f"{what}: the credentials hold a character that cannot be sent", hint=_KEYS)
    for kind in type(error).__mro__:
        if kind.__name__ in _BY_CLASS:
            translated, says, hint = _BY_CLASS[kind.__name__]
            return translated(f"{what}: {says} ({reason or type(error).__name__})", hint=hint)
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _of_answer(what: str, answer: dict[str, Any]) -> StoreError:
    status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    code = str(answer.get("Error", {}).get("Code", ""))
    says = str(answer.get("Error", {}).get("Message", ""))[:300].replace("\n", " ")
    known = code if code in _BY_CODE else _BY_STATUS.get(status, "")
    if known in _BY_CODE:
        kind, hint = _BY_CODE[known]
    elif status >= 500:
        kind, hint = StoreUnreachable, _BUSY
    elif status == 403:
        kind, hint = AccessDenied, _RIGHTS
    else:
        kind, hint = StoreError, ""
    return kind(f"{what}: {code or status}{f': {says}' if says else ''}", hint=hint)
