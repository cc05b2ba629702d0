"""What the Hugging Face hub states about a file: size, commit and digest, in the headers of its answer to HEAD.

For a large file ``X-Linked-Etag`` is its SHA-256 and the answer redirects to the store that has the bytes; for a small
one the ETag is git's object id, the SHA-1 of ``blob <length>\\0`` and the contents.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fourbit.data.download import TIMEOUT
from fourbit.errors import DataError
from fourbit.llm.catalog import HubFile

ENDPOINT, ENDPOINT_VARIABLE = "https://huggingface.co", "HF_ENDPOINT"
GIT = "git blob id"
_KINDS = {64: "SHA-256", 40: GIT}


@dataclass(frozen=True)
class Digest:
    """A digest in hexadecimal; `kind` is "SHA-256" or "git blob id"."""

    kind: str
    value: str


@dataclass(frozen=True)
class Statement:
    """What the hub says of a file: its digest, its bytes, and its address at the commit that they belong to."""

    digest: Digest
    bytes: int
    url: str


def hub_url(file: HubFile) -> str:
    """Return the address of a file, on the hub or on the server that HF_ENDPOINT names."""
    base = (os.environ.get(ENDPOINT_VARIABLE) or ENDPOINT).rstrip("/")
    return f"{base}/{file.repository}/resolve/{file.revision}/{file.name}"


def digest_of(path: Path, kind: str = "SHA-256") -> str:
    """Return a file's digest, in hexadecimal."""
    digest: Any = hashlib.sha256()
    if kind == GIT:
        digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return str(digest.hexdigest())


class _SameHost(urllib.request.HTTPRedirectHandler):
    """Follow a redirect on the hub, as for a repository that was renamed, but not to the store of the bytes."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if urllib.parse.urlsplit(newurl).netloc != urllib.parse.urlsplit(req.full_url).netloc:
            return None
        return urllib.request.Request(newurl, headers=dict(req.header_items()), method="HEAD")


def state(url: str) -> Statement:
    """Ask the hub about the file at `url`.

    Raises:
        DataError: if the hub cannot be reached, refuses, or states no digest; what it does not vouch for is not used.
    """
    request = urllib.request.Request(url, headers={"User-Agent": "fourbit"}, method="HEAD")
    request.add_header("Accept-Encoding", "identity")
    try:
        with urllib.request.build_opener(_SameHost).open(request, timeout=TIMEOUT) as answer:
            return _statement(url, answer.headers)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in (301, 302, 303, 307, 308):
            return _statement(url, error.headers)
        hint = ", perhaps because its license must be accepted there first" if error.code in (401, 403) else ""
        raise DataError(f"{url}: the hub answers {error.code} {error.reason}{hint}") from None
    except (OSError, http.client.HTTPException) as error:
        raise DataError(f"{url}: {getattr(error, 'reason', None) or error}") from None


def _statement(url: str, headers: Any) -> Statement:
    etag = (headers.get("X-Linked-Etag") or headers.get("ETag") or "").removeprefix("W/").strip('"').lower()
    size = headers.get("X-Linked-Size") or headers.get("Content-Length") or ""
    commit = headers.get("X-Repo-Commit") or ""
    if not re.fullmatch(r"[0-9a-f]{64}|[0-9a-f]{40}", etag) or not size.isdigit():
        raise DataError(f"{url}: the answer states no SHA-256 and size, so the file could not be checked; not fetched")
    if re.fullmatch(r"[0-9a-f]{40}", commit):
        url = re.sub(r"/resolve/[^/]+/", f"/resolve/{commit}/", url)
    return Statement(Digest(_KINDS[len(etag)], etag), int(size), url)
