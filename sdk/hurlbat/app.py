"""`Hurlbat`: the one object of an app that has tasks and calls tasks."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from functools import partial
from traceback import format_exception
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

from hurlbat.aws import LambdaHandler
from hurlbat.background import Background
from hurlbat.decorator import TaskDecorator
from hurlbat.errors import ConfigError, TaskInvalid
from hurlbat.handler import Handler
from hurlbat.limits import MAX_TASKS
from hurlbat.middleware import Around, M
from hurlbat.mounting import Application, Mounted
from hurlbat.once import once
from hurlbat.opening import Opening
from hurlbat.options import WorkflowOptions
from hurlbat.outbox import Receive, Send
from hurlbat.reading import MAX_DELIVERY_BYTES
from hurlbat.settings import Settings, read_settings
from hurlbat.stopping import on_stop_signal, when_gunicorn_stops
from hurlbat.stubs import stub_of
from hurlbat.task import Task
from hurlbat.terms import digest_of
from hurlbat.version import version
from hurlbat.wire import MAX_BATCH
from hurlbat.workbench import Workbench
from hurlbat.wsgi import MountedWSGI, WSGIApplication, WSGIHandler

if TYPE_CHECKING:
    from hurlbat.client import AsyncClient
    from hurlbat.events import Events
    from hurlbat.policy import Manifest
    from hurlbat.sync_client import Client
    from hurlbat.workflow import Workflow

I = TypeVar("I")  # noqa: E741 -- the input, as in Task[I, O]
O = TypeVar("O")  # noqa: E741 -- the output

logger = logging.getLogger("hurlbat")


class Hurlbat:
    """An app's tasks, the door by which the server reaches them, and the clients to have them run.

    What is not given is read from the environment: `HURLBAT_URL`, `HURLBAT_TOKEN` (else `HURLBAT_API_TOKEN`),
    `HURLBAT_SIGNING_SECRETS` and `HURLBAT_SIGNING_SECRET` (together all keys that are good here, with commas between
    and the newest first; `signing_secret` takes one or a list in their place), `HURLBAT_WORKER`,
    `HURLBAT_PUBLIC_URL`, `HURLBAT_SLOTS`, `HURLBAT_THREADS`, `HURLBAT_GRACE`. Raises `ConfigError`.

    `lifespan` opens what all tasks share: a function that takes this object, made by `@asynccontextmanager`. Tasks find
    what it yields as `ctx.state`.
    """

    def __init__(
        self,
        *,
        url: str | None = None,
        token: str | None = None,
        signing_secret: str | list[str] | None = None,
        worker: str | None = None,
        public_url: str | None = None,
        slots: int | None = None,
        threads: int | None = None,
        grace: float | None = None,
        lifespan: "Callable[[Hurlbat], AbstractAsyncContextManager[Any]] | None" = None,
    ) -> None:
        self.settings: Settings = read_settings(
            {
                "url": url,
                "token": token,
                "signing_secret": signing_secret,
                "worker": worker,
                "public_url": public_url,
                "slots": slots,
                "threads": threads,
                "grace": grace,
            }
        )
        self.tasks: dict[str, Task[Any, Any]] = {}
        self.workflows: dict[str, Workflow[Any]] = {}
        self.task = TaskDecorator(self, self._declare)
        self._around = Around(Opening(None if lifespan is None else partial(lifespan, self), self._settled))
        self.dependency_overrides = self._around.overrides
        """What is called in place of a function that tasks depend on: `{get_db: fake}`, for tests."""
        self.workbench = Workbench(
            self.tasks, lambda: self.client.http(), threads=self.settings.threads, around=self._around
        )
        self._manifest: Manifest | None = None
        self._mark: str | None = None
        self._lives = False
        # a process that ends gives attempts the grace twice: to end, and to be reported
        patience = self.settings.grace * 2 + 5
        self._background = Background(self._live_in_thread, forget=self._forget, patience=patience)

    # whoever asks the server for something pays for what that takes to load

    @once
    def client(self) -> "AsyncClient":
        """The server's API for async code."""
        from hurlbat.client import AsyncClient

        return AsyncClient(self.settings.url, self.settings.token)

    @once
    def sync_client(self) -> "Client":
        """The server's API for sync code."""
        from hurlbat.sync_client import Client

        return Client(self.settings.url, self.settings.token)

    @once
    def events(self) -> "Events":
        """Pushes events."""
        from hurlbat.events import Events

        return Events(self)

    @overload
    def stub(self, name: str, *, input: None, output: type[O]) -> Task[None, O]: ...
    @overload
    def stub(self, name: str, *, input: None) -> Task[None, Any]: ...
    @overload
    def stub(self, name: str, *, input: type[I], output: type[O]) -> Task[I, O]: ...
    @overload
    def stub(self, name: str, *, input: type[I]) -> Task[I, Any]: ...
    @overload
    def stub(self, name: str, *, output: type[O]) -> Task[Any, O]: ...
    @overload
    def stub(self, name: str) -> Task[Any, Any]: ...
    def stub(self, name: str, *, input: Any = Any, output: Any = Any) -> Task[Any, Any]:
        """Return a task of another service, to be called by its name and types; `input=None` takes none.

        It is called as one of this app is, and never served by it. For a task with a `batch_size` the input is one
        item. Raises `TaskInvalid`.
        """
        return stub_of(name, input, output, self)

    @overload
    def workflow(self, name: str, *, input: None, **policy: Unpack[WorkflowOptions]) -> "Workflow[None]": ...
    @overload
    def workflow(self, name: str, *, input: type[I], **policy: Unpack[WorkflowOptions]) -> "Workflow[I]": ...
    @overload
    def workflow(self, name: str, **policy: Unpack[WorkflowOptions]) -> "Workflow[Any]": ...
    def workflow(self, name: str, *, input: Any = Any, **policy: Any) -> "Workflow[Any]":
        """Return a new workflow, to be given nodes; `input` is the type of its input, `input=None` takes none.

        Raises `TaskInvalid`.
        """
        from hurlbat.workflow import workflow_of  # with its models it takes a tenth of the time to start

        made = workflow_of(name, input, policy, self, self._declare, self._change)
        self._take_name(name)
        self.workflows[name] = made
        return made

    def middleware(self, function: M) -> M:
        """Put an async function around every attempt: `@hurlbat.middleware`, `async def around(ctx, call_next)`.

        It awaits `call_next()` and returns what that gives, or something else. The first one is the outermost; the
        dependencies of the task are inside of all. Raises `ConfigError`.
        """
        return self._around.add(function)

    def asgi(self, *, max_body_bytes: int = MAX_DELIVERY_BYTES) -> Handler:
        """Return the ASGI application for the worker's URL: `app.mount("/hurlbat", hurlbat.asgi())`.

        Also serves as a route's endpoint, and alone (`uvicorn module:worker`), where it brings the lifespan itself.
        """
        return Handler(self, self._serve_lifespan, max_body_bytes=max_body_bytes)

    def mount(self, app: Application, path: str = "/hurlbat", *, max_body_bytes: int = MAX_DELIVERY_BYTES) -> Mounted:
        """Return an ASGI application that is `app`, but for one path, with or without a slash behind: the worker's.

        `application = hurlbat.mount(app, "/hurlbat")`, or `app.add_middleware(hurlbat.mount, path="/hurlbat")`. It
        stands in front of all middleware and brings the lifespan, within that of `app` if there is one. Raises
        `ConfigError`.
        """
        return Mounted(app, path, self.asgi(max_body_bytes=max_body_bytes), self.lifespan)

    def wsgi(self, *, stream: bool = True, max_body_bytes: int = MAX_DELIVERY_BYTES) -> WSGIHandler:
        """Return the WSGI application for the worker's URL, to be mounted or served alone (`gunicorn module:worker`).

        Tasks run on an event loop in a thread, which the first request starts and which brings the lifespan. Without
        `stream`, for servers and proxies that hold answers back, a delivery is answered in one piece.
        """
        handler = Handler(self, self._serve_lifespan, max_body_bytes=max_body_bytes, streams=stream)
        return WSGIHandler(handler, self._background)

    def mount_wsgi(
        self,
        app: WSGIApplication,
        path: str = "/hurlbat",
        *,
        stream: bool = True,
        max_body_bytes: int = MAX_DELIVERY_BYTES,
    ) -> MountedWSGI:
        """Return a WSGI application that is `app`, but for one path, with or without a slash behind: the worker's.

        `app.wsgi_app = hurlbat.mount_wsgi(app.wsgi_app)` in Flask. It stands in front of all middleware. Raises
        `ConfigError`.
        """
        return MountedWSGI(app, path, self.wsgi(stream=stream, max_body_bytes=max_body_bytes))

    def aws_lambda(self, *, max_batch: int = 1, max_body_bytes: int = MAX_DELIVERY_BYTES) -> LambdaHandler:
        """Return the handler of an AWS Lambda function: `handler = hurlbat.aws_lambda()`.

        It answers function URLs and API Gateway in one piece, up to `max_batch` attempts in one invocation (1 to 64).
        What the tasks share is opened once and kept for later invocations. It does not register itself.
        """
        if not 1 <= max_batch <= MAX_BATCH:
            raise ConfigError(f"max_batch={max_batch} is not between 1 and {MAX_BATCH}")
        handler = Handler(self, self._serve_lifespan, max_body_bytes=max_body_bytes, streams=False, max_batch=max_batch)
        return LambdaHandler(handler, Background(nullcontext, forget=self._forget))

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:  # noqa: ARG002 -- frameworks pass their app
        """Register this worker while the app runs, and let its tasks end when it stops.

        What the tasks share is opened before, and closed after. Raises what that raises.
        `FastAPI(lifespan=hurlbat.lifespan)`, or `async with hurlbat.lifespan(app):` inside a lifespan of your own.
        """
        self.manifest()  # what is wrong with it is told here, and not to the server
        if self._lives:  # a framework's lifespan and `mount` may both bring it
            yield
            return
        if not self.tasks and not self.workflows:
            logger.warning("this app serves no task: none is declared in the modules that were imported by now")
        self._lives = True
        try:
            async with self._living():
                yield
        finally:
            self._lives = False

    @asynccontextmanager
    async def _living(self) -> AsyncIterator[None]:
        from hurlbat.registration import keep_registered

        opening = self.workbench.around.opening
        await opening.enter()
        try:
            self.workbench.open()
            async with keep_registered(self.settings, self.client):
                try:
                    with on_stop_signal(self.workbench.close_streams):
                        yield
                finally:
                    await self.workbench.drain(self.settings.grace)
        finally:
            await opening.leave()
        await self.client.aclose()

    @asynccontextmanager
    async def _live_in_thread(self) -> AsyncIterator[None]:
        async with self.lifespan(), when_gunicorn_stops(self.workbench.close_streams):
            yield

    def _forget(self) -> None:
        """Begin anew in a forked process."""
        self._lives = False
        self.workbench.forget()

    def manifest(self) -> "Manifest":
        """Return what this worker serves, with the digest that its answers carry. Raises `TaskInvalid`."""
        if self._manifest is None:
            from hurlbat.making import manifest_of

            declared = [task.declared() for task in self._served()]
            self._manifest = manifest_of(declared, f"hurlbat-python/{version()}", self._digest())
        return self._manifest

    def mark(self) -> str:
        """Return the digest that answers carry, without the manifest, which takes longer. Raises `TaskInvalid`."""
        if self._mark is None:
            if self.workflows or len(self.tasks) > MAX_TASKS:  # what may be wrong with these shows in the whole
                self.manifest()
            self._mark = self._digest()
        return self._mark

    def _served(self) -> list[Task[Any, Any]]:
        if self.workflows:
            from hurlbat.workflow import check_nesting

            check_nesting(self.workflows)
        return [*self.tasks.values(), *self.workflows.values()]

    def _digest(self) -> str:
        return digest_of([version(), *(task.text for task in self._served())])

    def __repr__(self) -> str:
        return f"Hurlbat(url={self.settings.url!r}, tasks={sorted(self.tasks)})"

    def _declare(self, task: Task[Any, Any]) -> None:
        self._take_name(task.name)
        self.tasks[task.name] = task

    def _take_name(self, name: str) -> None:
        if name in self.workflows:
            raise TaskInvalid(f"there is a workflow {name} already; give one of them another name")
        if name in self.tasks:
            raise TaskInvalid(f"task {name} is declared twice; give one of them another name by task(name=…)")
        self._change()

    def _change(self) -> None:
        self._manifest = self._mark = None

    async def _serve_lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        phase = "startup"
        try:
            async with self.lifespan():
                await send({"type": "lifespan.startup.complete"})
                await receive()
                phase = "shutdown"
        except BaseException as error:  # a server that is not told may serve an app that has not started
            await send({"type": f"lifespan.{phase}.failed", "message": "".join(format_exception(error))})
            raise
        await send({"type": "lifespan.shutdown.complete"})

    async def _settled(self) -> None:
        await self.workbench.settled(self.settings.grace)
