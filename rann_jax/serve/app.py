"""The server: a page, and the same as JSON under /api. Sounds are processed one at a time, in one thread."""

import asyncio
import functools
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from importlib import resources
from typing import Annotated, Any

import numpy as np
from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

import rann_jax
from input_pipeline.audio import AudioError
from rann_jax.serve.answer import answer, windows_in
from rann_jax.serve.limits import Limits, Refusal, RequestRate, Uploads, client_of
from rann_jax.tagging.listener import Listener

PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/draw.js": ("draw.js", "text/javascript; charset=utf-8"),
    "/sound.js": ("sound.js", "text/javascript; charset=utf-8"),
}
# The page loads nothing from elsewhere, and this policy makes browsers enforce that.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; media-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
BODY = {"requestBody": {"required": True, "content": {"application/octet-stream": {}}}}
SHOWN = 40  # characters of an unknown parameter
FINEST_HOP = 20  # hops per window at most, which bounds the work per second of sound


class Server:
    """State that the endpoints share.

    Args:
      listener: the model, or the ensemble.
      about: names of the models, the rule and its weights, which /api/model adds to what the listener knows.
      limits: limits beyond which requests are refused.
    """

    def __init__(self, listener: Listener, about: dict[str, Any], limits: Limits):
        self.listener, self.limits = listener, limits
        self._most_windows = windows_in(listener, limits.seconds)
        self.about = about | {
            "labels": list(listener.labels),
            "task": listener.task,
            "sample_rate": listener.sample_rate,
            "window_seconds": listener.window_seconds,
            "limits": {
                "bytes": limits.bytes,
                "seconds": limits.seconds,
                "windows": self._most_windows,
                "per_minute": limits.per_minute,
            },
        }
        self._rate = RequestRate(limits.per_minute)
        self._uploads = Uploads(limits)
        self._thread = ThreadPoolExecutor(1, "listener")
        self._work: set[Future[Any]] = set()  # what the thread has not finished
        self._admitted: Counter[str] = Counter()  # sounds of each client that wait or are processed
        self._closed = threading.Event()

    def warm_up(self) -> None:
        """Compile the programs for all batch sizes, in the listener's thread."""
        sizes = {1 << n for n in range(self.listener.batch_size.bit_length())} | {self.listener.batch_size}
        for size in sorted(sizes):
            self._submit(self.listener.infer, np.zeros((size, self.listener.crop_samples), np.float32))

    def close(self) -> None:
        """Give up the sounds that wait, and the one in process after its current batch."""
        self._closed.set()
        self._thread.shutdown(wait=False, cancel_futures=True)

    @property
    def busy(self) -> bool:
        """Whether a computation goes on, which nothing can interrupt."""
        return bool(self._work)

    def _submit(self, work: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future = self._thread.submit(work, *arguments)
        self._work.add(future)
        future.add_done_callback(self._work.discard)
        return future

    async def tag(self, request: Request, **options: Any) -> dict[str, Any]:
        """Return the answer to a request whose body is a sound.

        Raises:
          Refusal: a limit is exceeded, the body is not a usable sound, or the server stops; with the reason.
        """
        self._check(request, options["hop_seconds"])
        client = client_of(request)
        self._check_queue(client)
        try:
            body = await self._uploads.read(request)
            self._check_queue(client)  # others may have been faster: only complete uploads take a place
            return await self._answer(client, body, **options)
        except AudioError as error:
            raise Refusal(422, str(error)) from error
        except asyncio.CancelledError as error:  # by `close`, or by uvicorn, which cancels only when it stops
            raise _stopping() from error

    async def _answer(self, client: str, body: bytes, **options: Any) -> dict[str, Any]:
        work = functools.partial(
            answer,
            max_seconds=self.limits.seconds,
            max_windows=self._most_windows,
            between_batches=self._check_running,
            **options,
        )
        self._admitted[client] += 1
        try:
            return await asyncio.wrap_future(self._submit(work, self.listener, self.about["models"], body))
        finally:
            self._admitted -= Counter([client])  # this forgets clients without sounds

    def _check(self, request: Request, hop_seconds: float | None) -> None:
        """Raise Refusal if the request can be refused without reading its body."""
        if request.headers.get("sec-fetch-site") == "cross-site":
            raise Refusal(403, "requests from pages of other sites are refused")
        if wait := self._rate.wait(client_of(request)):
            raise Refusal(429, f"more than {self.limits.per_minute} requests a minute: try again later", wait)
        if request.headers.get("content-type", "").startswith("multipart/"):
            raise Refusal(415, "send the file itself as the body: curl --data-binary @FILE")
        window = self.listener.window_seconds
        if hop_seconds is not None and not window / FINEST_HOP <= hop_seconds <= window:
            raise Refusal(400, f"hop: it must be between {window / FINEST_HOP:g} and {window:g} s")

    def _check_queue(self, client: str) -> None:
        """Raise Refusal if the server stops, or as many sounds as allowed wait or are processed."""
        self._check_running()
        if self._admitted[client] >= self.limits.waiting_of_a_client:
            raise Refusal(503, f"{self.limits.waiting_of_a_client} of your sounds are waiting: try again", 1)
        if self._admitted.total() >= self.limits.waiting:
            raise Refusal(503, "too many sounds are waiting: try again", 1)

    def _check_running(self) -> None:
        if self._closed.is_set():
            raise _stopping()


def _stopping() -> Refusal:
    return Refusal(503, "the server is stopping")


def create_app(listener: Listener, about: dict[str, Any], limits: Limits, *, hosts: list[str]) -> FastAPI:
    """Return the application; requests must name one of `hosts`, so no other site's name is accepted."""
    server = Server(listener, about, limits)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        server.warm_up()
        yield
        server.close()

    app = FastAPI(
        title="rann-jax", version=rann_jax.__version__, docs_url=None, redoc_url=None, lifespan=lifespan
    )
    app.state.server = server
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts)
    _refuse_in_one_line(app)
    for path, (name, kind) in PAGE.items():
        _add_page(app, path, name, kind)

    @app.get("/api/model", dependencies=[_only()])
    async def model() -> dict[str, Any]:
        """Return a description: models, rule, weights, labels, task, sample rate, window, limits."""
        return server.about

    @app.post("/api/tag", openapi_extra=BODY, dependencies=[_only("top", "hop", "spectrogram")])
    async def tag(
        request: Request,
        top: Annotated[int, Query(ge=1, le=100)] = 10,
        hop: Annotated[float | None, Query(gt=0, allow_inf_nan=False)] = None,
        spectrogram: bool = False,
    ) -> JSONResponse:
        """Return tags, timeline and, for an ensemble, conflict of the sound file in the body.

        The tags are the `top` classes of the highest mean over all windows. timeline.labels are the `top`
        classes with the most probable single windows, in the order of these windows: a short event may be
        there and not among the tags.
        """
        return JSONResponse(await server.tag(request, top=top, hop_seconds=hop, spectrogram=spectrogram))

    return app


def _add_page(app: FastAPI, path: str, name: str, kind: str) -> None:
    content = resources.files("rann_jax.serve").joinpath("page", name).read_bytes()

    @app.get(path, include_in_schema=False)
    async def page() -> Response:
        return Response(content, media_type=kind, headers=HEADERS)


def _only(*names: str) -> Any:
    """Return a dependency that refuses requests with query parameters of other names.

    A misspelt parameter would be ignored, and the answer be that of its default.
    """
    *others, last = names or ("none",)
    known = f"{', '.join(others)} or {last}" if others else last

    async def check(request: Request) -> None:  # FastAPI would run a plain function in a thread
        for name in request.query_params:
            if name not in names:
                raise Refusal(400, f"{name[:SHOWN]!r} is not known here: use {known}")

    return Depends(check)


def _refuse_in_one_line(app: FastAPI) -> None:
    @app.exception_handler(Refusal)
    async def refused(_: Request, refusal: Refusal) -> JSONResponse:
        return JSONResponse({"error": refusal.reason}, refusal.status, refusal.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return JSONResponse({"error": f"{first['loc'][-1]}: {first['msg']}"}, 400)

    @app.exception_handler(HTTPException)
    async def unknown(_: Request, error: HTTPException) -> JSONResponse:
        says = {
            404: "no such path: the API has POST /api/tag and GET /api/model",
            405: f"method not allowed: use {(error.headers or {}).get('Allow', 'another')}",
        }.get(error.status_code, error.detail)
        return JSONResponse({"error": says}, error.status_code, error.headers)
