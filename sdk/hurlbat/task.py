"""A declared task, and the ways to have it run."""

from collections.abc import Callable, Sequence
from typing import Any, Generic, Literal, TypeVar, Unpack, overload

from hurlbat import calls
from hurlbat.errors import ApiError, HurlbatError, RunCancelled, RunFailed
from hurlbat.lineage import Callers, linked
from hurlbat.payloads import decode, encode
from hurlbat.policy import TaskPolicy
from hurlbat.runs import Run, RunOptions
from hurlbat.shape import Shape, schema_of

I = TypeVar("I")  # noqa: E741 -- the input, as in Task[I, O]
O = TypeVar("O")  # noqa: E741 -- the output


class RunRef(Generic[O]):
    """A run that was submitted; `id` is all that it is, so it can be made anew from a stored id by `Task.ref`."""

    __slots__ = ("_task", "id")

    def __init__(self, task: "Task[Any, O]", run_id: str) -> None:
        self._task = task
        self.id = run_id

    async def result(self, timeout: float | None = None) -> O:
        """Wait for the run and return its output. Raises `RunFailed`, `RunCancelled`, `RunTimedOut`."""
        return self._task.output_of(await self._task.callers.client.wait_for(self.id, timeout))

    def result_sync(self, timeout: float | None = None) -> O:
        """Wait for the run, in sync code, and return its output."""
        return self._task.output_of(self._task.callers.sync_client.wait_for(self.id, timeout))

    async def status(self) -> Run:
        """Return how the run stands now."""
        return await self._task.callers.client.get_run(self.id)

    def status_sync(self) -> Run:
        """Return, in sync code, how the run stands now."""
        return self._task.callers.sync_client.get_run(self.id)

    async def cancel(self, reason: str | None = None) -> Run:
        """Cancel the run."""
        return await self._task.callers.client.cancel_run(self.id, reason)

    def cancel_sync(self, reason: str | None = None) -> Run:
        """Cancel the run, in sync code."""
        return self._task.callers.sync_client.cancel_run(self.id, reason)

    def __repr__(self) -> str:
        return f"RunRef({self._task.name!r}, {self.id!r})"


class Task(Generic[I, O]):
    """A function that the server calls for each run; made by `@hurlbat.task`.

    `run` and its kin submit runs to the server; calling the task calls the plain function, right here.
    Their options are those of `RunOptions`. In sync code use the forms that end in `_sync`.
    """

    def __init__(self, function: Callable[..., Any], policy: TaskPolicy, shape: Shape, callers: Callers) -> None:
        self.function = function
        self.policy = policy
        self.shape = shape
        self.callers = callers
        self.__doc__ = function.__doc__
        self.__name__ = getattr(function, "__name__", policy.name)
        self.__module__ = function.__module__
        self.__wrapped__ = function

    @property
    def name(self) -> str:
        """The name by which runs are submitted."""
        return self.policy.name

    @overload
    async def run(
        self: "Task[None, O]", input: None = None, *, timeout: float | None = None, **options: Unpack[RunOptions]
    ) -> O: ...
    @overload
    async def run(self, input: I, *, timeout: float | None = None, **options: Unpack[RunOptions]) -> O: ...
    async def run(self, input: Any = None, *, timeout: float | None = None, **options: Unpack[RunOptions]) -> O:
        """Have the server run it, wait for as long as it takes or `timeout` seconds, and return its output.

        Raises `RunFailed`, `RunCancelled`, `RunTimedOut` (the run goes on), `ApiError`, `ConnectionFailed`.
        """
        return self.output_of(await self.callers.client.drive(self._run(input, options, timeout)))

    @overload
    def run_sync(
        self: "Task[None, O]", input: None = None, *, timeout: float | None = None, **options: Unpack[RunOptions]
    ) -> O: ...
    @overload
    def run_sync(self, input: I, *, timeout: float | None = None, **options: Unpack[RunOptions]) -> O: ...
    def run_sync(self, input: Any = None, *, timeout: float | None = None, **options: Unpack[RunOptions]) -> O:
        """Do as `run`, in sync code."""
        return self.output_of(self.callers.sync_client.drive(self._run(input, options, timeout)))

    @overload
    async def run_no_wait(self: "Task[None, O]", input: None = None, **options: Unpack[RunOptions]) -> RunRef[O]: ...
    @overload
    async def run_no_wait(self, input: I, **options: Unpack[RunOptions]) -> RunRef[O]: ...
    async def run_no_wait(self, input: Any = None, **options: Unpack[RunOptions]) -> RunRef[O]:
        """Submit it and return as soon as it is stored."""
        return self.ref((await self.callers.client.drive(self._submit(input, options))).id)

    @overload
    def run_no_wait_sync(self: "Task[None, O]", input: None = None, **options: Unpack[RunOptions]) -> RunRef[O]: ...
    @overload
    def run_no_wait_sync(self, input: I, **options: Unpack[RunOptions]) -> RunRef[O]: ...
    def run_no_wait_sync(self, input: Any = None, **options: Unpack[RunOptions]) -> RunRef[O]:
        """Do as `run_no_wait`, in sync code."""
        return self.ref(self.callers.sync_client.drive(self._submit(input, options)).id)

    @overload
    async def run_many(
        self,
        inputs: Sequence[I],
        *,
        timeout: float | None = None,
        return_exceptions: Literal[False] = False,
        **options: Unpack[RunOptions],
    ) -> list[O]: ...
    @overload
    async def run_many(
        self,
        inputs: Sequence[I],
        *,
        timeout: float | None = None,
        return_exceptions: Literal[True],
        **options: Unpack[RunOptions],
    ) -> list[O | HurlbatError]: ...
    async def run_many(
        self,
        inputs: Sequence[I],
        *,
        timeout: float | None = None,
        return_exceptions: bool = False,
        **options: Unpack[RunOptions],
    ) -> Any:
        """Run it for each input and return the outputs in the inputs' order.

        The first failure in that order is raised when all have ended; with `return_exceptions`, failures stand in the
        list. The options hold for each; an `idempotency_key` becomes `key:0`, `key:1`, and so on.
        """
        call = self._run_many(inputs, options, timeout)
        return self._outputs(await self.callers.client.drive(call), return_exceptions)

    @overload
    def run_many_sync(
        self,
        inputs: Sequence[I],
        *,
        timeout: float | None = None,
        return_exceptions: Literal[False] = False,
        **options: Unpack[RunOptions],
    ) -> list[O]: ...
    @overload
    def run_many_sync(
        self,
        inputs: Sequence[I],
        *,
        timeout: float | None = None,
        return_exceptions: Literal[True],
        **options: Unpack[RunOptions],
    ) -> list[O | HurlbatError]: ...
    def run_many_sync(
        self,
        inputs: Sequence[I],
        *,
        timeout: float | None = None,
        return_exceptions: bool = False,
        **options: Unpack[RunOptions],
    ) -> Any:
        """Do as `run_many`, in sync code."""
        call = self._run_many(inputs, options, timeout)
        return self._outputs(self.callers.sync_client.drive(call), return_exceptions)

    async def run_many_no_wait(self, inputs: Sequence[I], **options: Unpack[RunOptions]) -> list[RunRef[O]]:
        """Submit a run for each input and return as soon as all are stored. Raises the first refusal, if any."""
        return self._refs(await self.callers.client.drive(self._submit_many(inputs, options)))

    def run_many_no_wait_sync(self, inputs: Sequence[I], **options: Unpack[RunOptions]) -> list[RunRef[O]]:
        """Do as `run_many_no_wait`, in sync code."""
        return self._refs(self.callers.sync_client.drive(self._submit_many(inputs, options)))

    def ref(self, run_id: str) -> RunRef[O]:
        """Return a reference to a run of this task by its id."""
        return RunRef(self, run_id)

    def output_of(self, run: Run) -> O:
        """Return a finished run's output by this task's type. Raises `RunFailed`, `RunCancelled`, `PayloadError`."""
        if run.state != "completed":
            raise RunFailed(run) if run.state == "failed" else RunCancelled(run)
        output: O = decode(run.output_text, self.shape.output_adapter, what="output")
        return output

    def declared(self) -> TaskPolicy:
        """Return the policy with the schemas, as it stands in the manifest."""
        schemas = {
            "input_schema": schema_of(self.shape.input_adapter, "validation") if self.shape.input_name else None,
            "output_schema": schema_of(self.shape.output_adapter, "serialization"),
        }
        return self.policy.model_copy(update=schemas)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function itself, without the server."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"Task({self.name!r})"

    def _input(self, value: Any) -> str:
        return encode(value, self.shape.input_adapter, what="input")

    def _inputs(self, values: Sequence[Any]) -> list[str]:
        return [self._input(value) for value in values]

    def _run(self, input: Any, options: RunOptions, timeout: float | None) -> calls.Call[Run]:
        return calls.run(self.name, self._input(input), linked(options, self.callers.client), timeout)

    def _submit(self, input: Any, options: RunOptions) -> calls.Call[Run]:
        return calls.submit(self.name, self._input(input), linked(options, self.callers.client))

    def _run_many(
        self, inputs: Sequence[Any], options: RunOptions, timeout: float | None
    ) -> calls.Call[list[Run | HurlbatError]]:
        return calls.run_many(self.name, self._inputs(inputs), linked(options, self.callers.client), timeout)

    def _submit_many(self, inputs: Sequence[Any], options: RunOptions) -> calls.Call[list[Run | ApiError]]:
        return calls.submit_many(self.name, self._inputs(inputs), linked(options, self.callers.client))

    def _refs(self, outcomes: Sequence[Run | HurlbatError]) -> list[RunRef[O]]:
        refs = []
        for outcome in outcomes:
            if isinstance(outcome, HurlbatError):
                raise outcome
            refs.append(self.ref(outcome.id))
        return refs

    def _outputs(self, outcomes: Sequence[Run | HurlbatError], return_exceptions: bool) -> list[O | HurlbatError]:
        outputs: list[O | HurlbatError] = []
        for outcome in outcomes:
            try:
                if isinstance(outcome, HurlbatError):
                    raise outcome
                outputs.append(self.output_of(outcome))
            except HurlbatError as error:
                if not return_exceptions:
                    raise
                outputs.append(error)
        return outputs
