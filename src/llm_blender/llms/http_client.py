"""Post requests to one URL, and read the responses in small blocks."""

from __future__ import annotations

import asyncio
import errno
import io
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from llm_blender.llms.api_errors import CallError

if TYPE_CHECKING:
    import ssl

    import aiohttp

_BLOCK = 65_536  # bytes
_LONG = 1 << 20  # bytes
_LONGEST_HEADER = 65_536  # bytes
_PATIENCE = 0.05  # seconds
_ENCODINGS = frozenset({"gzip", "x-gzip", "deflate", "br", "zstd", "compress"})
_GZIP = b"\x1f"
_BROKEN = "the connection broke during the answer"


class ClosedError(CallError):
    """The connection was closed before the first byte of a response, as servers do with one that was long idle."""


class HttpClient:
    """The connections to one URL, in one event loop.

    It follows no redirect, repeats no request, and reads proxies from the environment, but no passwords
    (``~/.netrc``). It has no timeout.

    Attributes:
        base_url: the part of the URL that the user configures.

    Args:
        base_url: see above.
        path: the rest of the URL.
        headers: headers of all requests.
    """

    def __init__(self, base_url: str, path: str, headers: Mapping[str, str]) -> None:
        import aiohttp

        self.base_url, self._path = base_url, path
        self._proxy = _proxy(base_url)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=_tls() if base_url.startswith("https:") else True),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={**headers, "accept-encoding": "gzip, deflate"},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            auto_decompress=False,
            max_line_size=_LONGEST_HEADER,
            max_field_size=_LONGEST_HEADER,
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    @asynccontextmanager
    async def post(self, content: bytes, headers: Mapping[str, str]) -> AsyncIterator[Response]:
        """Send a request and yield its response.

        Raises:
            CallError: there is no connection, or what comes is no HTTP.
        """
        import aiohttp

        where, public = f"no connection to {self.base_url}; is the server running?", "no connection to its server"
        if self._proxy is not None:
            parts = urlsplit(self._proxy)
            proxy = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
            where = f"no connection to {self.base_url} through the proxy {proxy}; is it running?"
            if parts.scheme not in ("http", "https"):
                where = (
                    f"{proxy} is no HTTP proxy: set http_proxy or https_proxy to one, or no_proxy to hosts without one"
                )
                raise CallError("connection", where, public=public)
        before, mark, query = self.base_url.partition("?")  # Azure has its version there
        url = f"{before.rstrip('/')}{self._path}{mark}{query}"
        data = content if len(content) < _LONG else io.BytesIO(content)  # of a long one aiohttp warns
        try:
            raw = await self._session.post(url, data=data, headers=headers, allow_redirects=False, proxy=self._proxy)
        except aiohttp.ClientConnectorCertificateError as error:
            message = f"the certificate of {self.base_url} is not valid: {error.certificate_error}"
            raise CallError("connection", message, public="the certificate of its server is not valid") from None
        except aiohttp.InvalidURL:
            message = f"{self.base_url} is no URL of a server; correct its base_url"
            raise CallError("connection", message, public="its URL is not valid") from None
        except aiohttp.ClientResponseError as error:
            message = f"{self.base_url} does not answer in HTTP; is its base_url right? ({error.message})"
            raise CallError("bad_response", message, public="its server does not answer in HTTP") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            reset = isinstance(error, OSError) and error.errno in (errno.ECONNRESET, errno.EPIPE)
            if isinstance(error, aiohttp.ServerDisconnectedError | ConnectionError) or reset:
                raise ClosedError("connection", where, public=public) from None
            raise CallError("connection", where, public=public) from None
        try:
            yield Response(raw)
        finally:
            raw.release()


class Response:
    """A response, whose body is read in blocks.

    Attributes:
        status: the status of HTTP.
        headers: the headers, case-insensitive.
    """

    def __init__(self, raw: aiohttp.ClientResponse) -> None:
        self.status, self.headers = raw.status, raw.headers
        self._raw, self._decoder = raw, _Decoder(raw.headers.get("content-encoding", ""))

    async def blocks(self) -> AsyncGenerator[bytes, None]:
        """Yield the body, decompressed, in blocks of bounded size as they come.

        Raises:
            CallError: the connection broke, or the body is not compressed as its header claims.
        """
        while block := await self._next():
            for part in self._decoder.feed(block):
                yield part

    async def finish(self) -> None:
        """Read what may follow the answer, mostly nothing: only then the connection is used again.

        Give up on a server that is slow to end or goes on writing.
        """
        with suppress(CallError, TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                await self._next()

    async def _next(self) -> bytes:
        import aiohttp

        try:
            return await self._raw.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise CallError("connection", f"{_BROKEN} ({type(error).__name__})", public=_BROKEN) from None


class _Decoder:
    """A decompressor that yields blocks of bounded size, however well the body is compressed.

    A body that is plain whatever its header claims is yielded as it is: some proxies decompress it and keep the header.
    """

    def __init__(self, encoding: str) -> None:
        names = [name.strip() for name in encoding.lower().split(",")]
        self._encoding = ", ".join(name for name in names if name in _ENCODINGS)
        self._zlib: zlib._Decompress | None = None

    def feed(self, block: bytes) -> Iterator[bytes]:
        """Yield what the next bytes of the body hold.

        Raises:
            CallError: the bytes are not compressed as the header claims.
        """
        if self._zlib is None and self._encoding.endswith("gzip") and not block.startswith(_GZIP):
            self._encoding = ""
        if not self._encoding:
            yield block
            return
        if self._encoding not in ("gzip", "x-gzip", "deflate"):
            raise CallError("bad_response", f"the answer has the unknown Content-Encoding {self._encoding!r}")
        if self._zlib is None:
            bare = self._encoding == "deflate" and block[0] & 15 != 8  # without the header of zlib
            self._zlib = zlib.decompressobj(-15 if bare else 47)
        try:
            while block:
                if self._zlib.eof:
                    if not block.startswith(_GZIP):  # padding
                        return
                    self._zlib = zlib.decompressobj(47)
                part = self._zlib.decompress(block, _BLOCK)
                block = self._zlib.unconsumed_tail or self._zlib.unused_data
                if part:
                    yield part
        except zlib.error:
            raise CallError(
                "bad_response", f"the answer is not compressed with {self._encoding} as it claims"
            ) from None


@cache
def _tls() -> ssl.SSLContext:
    """Return the trusted certificates; reading them takes longer than a short call."""
    import httpx

    return httpx.create_ssl_context()


def _proxy(url: str) -> str | None:
    """Return the URL of the proxy for a URL, as the environment names it; None without one."""
    try:
        parts = urlsplit(url)
    except ValueError:  # `HttpClient.post` reports it
        return None
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(parts.netloc):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"
