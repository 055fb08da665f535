"""
Tell a healthcheck-style URL that a run began, succeeded or failed.

What goes wrong is returned, never raised: a ping must not end a backup. A server that does not answer is waited for
on a thread of its own, as nothing else bounds the look-up of a name or an answer that trickles.
"""

from __future__ import annotations

import base64
import http.client
import threading
import time
from collections.abc import Callable
from typing import IO, Literal
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from zbackup import __version__

Event = Literal["start", "success", "fail"]

# Of one ping with all its tries; a run waits for it at its beginning and at its end.
SECONDS = 10.0
TRIES = 3
PAUSE = 0.5
REDIRECTS = 5

# Healthcheck services keep some kilobytes.
BODY_BYTES = 2000


def ping(url: str, event: Event, body: str = "", *, seconds: float = SECONDS) -> str | None:
    """Ask for the URL of an event, with a body if there is one; return why that failed, None when it did not."""
    data = body.encode(errors="backslashreplace")[:BODY_BYTES] or None
    deadline = time.monotonic() + seconds
    why: str | None = None
    for attempt in range(TRIES):
        left = deadline - time.monotonic()
        if left <= 0:
            break
        most = left / (TRIES - attempt)
        request = _request(url, event, data)
        why = _bounded(lambda request=request, most=most: _ask(request, most), most)
        if why is None:
            return None
        if attempt + 1 < TRIES:
            time.sleep(max(min(PAUSE, deadline - time.monotonic()), 0))
    return why


def _request(url: str, event: Event, data: bytes | None) -> Request:
    """Append the event to the path, before what follows a question mark; send a user's name as HTTP wants it."""
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    path = parts.path if event == "success" else f"{parts.path.rstrip('/')}/{event}"
    request = Request(urlunsplit(parts._replace(netloc=host, path=path)), data=data)  # noqa: S310  http or https, by its setting
    request.add_header("User-Agent", f"zbackup/{__version__}")
    if user:
        request.add_header("Authorization", f"Basic {base64.b64encode(unquote(user).encode()).decode()}")
    if data is not None:
        request.add_header("Content-Type", "text/plain; charset=utf-8")
    return request


class Redirects(HTTPRedirectHandler):
    """Follows to other URLs, but tells no other server the password, nor anybody by http what was asked by https."""

    max_redirections = REDIRECTS

    def redirect_request(
        self,
        req: Request,
        fp: IO[bytes],  # noqa: ARG002
        code: int,
        msg: str,  # noqa: ARG002
        headers: http.client.HTTPMessage,  # noqa: ARG002
        newurl: str,
    ) -> Request | None:
        before, after = _origin(req.full_url), _origin(newurl)
        if after[0] not in {"https", before[0]}:
            return None
        same = code in {307, 308}
        left_out = () if same else ("content-type",)
        if before != after:
            left_out = (*left_out, "authorization")
        kept = {name: value for name, value in req.headers.items() if name.lower() not in left_out}
        return Request(newurl, req.data if same else None, kept)  # noqa: S310  as above


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _ask(request: Request, seconds: float) -> str | None:
    # No text of an exception that may hold the URL.
    try:
        with build_opener(Redirects).open(request, timeout=seconds):
            return None
    except HTTPError as error:
        error.close()
        return f"the answer was {error.code}"
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        if isinstance(reason, TimeoutError):
            return _no_answer(seconds)
        return (isinstance(reason, OSError) and reason.strerror) or type(reason).__name__


def _bounded(call: Callable[[], str | None], seconds: float) -> str | None:
    """Make a call that may hang; it is left alone then."""
    answers: list[str | None] = []
    thread = threading.Thread(target=lambda: answers.append(call()), daemon=True)
    thread.start()
    thread.join(seconds)
    return answers[0] if answers else _no_answer(seconds)


def _no_answer(seconds: float) -> str:
    return f"no answer within {seconds:.1f} s"
