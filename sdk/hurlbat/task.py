"""A declared task, and the ways to have it run.

What asks the server is imported by who does: most workers only answer it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, Unpack, overload

from hurlbat.errors import ApiError, ConfigError, HurlbatError, PayloadError, RunCancelled, RunFailed
from hurlbat.lineage import current_run, linked
from hurlbat.payloads import decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from hurlbat.lineage import Callers
    from hurlbat.policy import TaskPolicy
    from hurlbat.refs import RunRef, ScheduleRef
    from hurlbat.runs import Run, RunOptions, SubmitOptions
    from hurlbat.schedules import Schedule, ScheduleOptions
    from hurlbat.sending import Call
    from hurlbat.shape import Shape
    from hurlbat.terms import Terms

I = TypeVar("I")  # noqa: E741 -- the input, as in Task[I, O]
O = TypeVar("O")  # noqa: E741 -- the output


class Task(Generic[I, O]):
    """A function that the server calls for each run; made by `@hurlbat.task`, or by `hurlbat.stub` for one elsewhere.

    `run` and its kin submit runs to the server; calling the task calls the plain function, right here.
    Their options are those of `RunOptions`. In sync code use the forms that end in `_sync`.
    `I` is what a caller gives. A task with a `batch_size` gets a list of these, and all of a batch get its one output.
    """

    def __init__(self, function: Callable[..., Any], terms: Terms, shape: Shape, callers: Callers) -> None:
        self.function = function
        self.terms = terms
        self.shape = shape
        self.callers = callers
        self.__doc__ = function.__doc__
        self.__name__ = getattr(function, "__name__", terms.name)
        self.__module__ = function.__module__
        self.__wrapped__ = function

    @property
    def name(self) -> str:
        """The name by which runs are submitted."""
        return self.terms.name

    @property
    def policy(self) -> TaskPolicy:
        """What was said of it, as its policy."""
        return self.terms.policy

    @overload
    async def run(
        self: Task[None, O], input: None = None, *, timeout: float | None = None, **options: Unpack[RunOptions]
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
        self: Task[None, O], input: None = None, *, timeout: float | None = None, **options: Unpack[RunOptions]
    ) -> O: ...
    @overload
    def run_sync(self, input: I, *, timeout: float | None = None, **options: Unpack[RunOptions]) -> O: ...
    def run_sync(self, input: Any = None, *, timeout: float | None = None, **options: Unpack[RunOptions]) -> O:
        """Do as `run`, in sync code."""
        return self.output_of(self.callers.sync_client.drive(self._run(input, options, timeout)))

    @overload
    async def run_no_wait(self: Task[None, O], input: None = None, **options: Unpack[RunOptions]) -> RunRef[O]: ...
    @overload
    async def run_no_wait(self, input: I, **options: Unpack[RunOptions]) -> RunRef[O]: ...
    async def run_no_wait(self, input: Any = None, **options: Unpack[RunOptions]) -> RunRef[O]:
        """Submit it and return as soon as it is stored."""
        return self.ref((await self.callers.client.drive(self._submit(input, options))).id)

    @overload
    def run_no_wait_sync(self: Task[None, O], input: None = None, **options: Unpack[RunOptions]) -> RunRef[O]: ...
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
        list. The options hold for each; an `idempotency_key` or `child_key` becomes `key:0`, `key:1`, and so on.
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

    @overload
    async def schedule(
        self: Task[None, O],
        input: None = None,
        *,
        at: datetime | None = None,
        delay: float | None = None,
        **options: Unpack[SubmitOptions],
    ) -> RunRef[O]: ...
    @overload
    async def schedule(
        self, input: I, *, at: datetime | None = None, delay: float | None = None, **options: Unpack[SubmitOptions]
    ) -> RunRef[O]: ...
    async def schedule(
        self,
        input: Any = None,
        *,
        at: datetime | None = None,
        delay: float | None = None,
        **options: Unpack[SubmitOptions],
    ) -> RunRef[O]:
        """Have it run once, at a time with a zone, or so many seconds from now; until then it can be moved.

        A time that has passed means now.
        """
        return self.ref((await self.callers.client.drive(self._later(input, at, delay, options))).id)

    @overload
    def schedule_sync(
        self: Task[None, O],
        input: None = None,
        *,
        at: datetime | None = None,
        delay: float | None = None,
        **options: Unpack[SubmitOptions],
    ) -> RunRef[O]: ...
    @overload
    def schedule_sync(
        self, input: I, *, at: datetime | None = None, delay: float | None = None, **options: Unpack[SubmitOptions]
    ) -> RunRef[O]: ...
    def schedule_sync(
        self,
        input: Any = None,
        *,
        at: datetime | None = None,
        delay: float | None = None,
        **options: Unpack[SubmitOptions],
    ) -> RunRef[O]:
        """Do as `schedule`, in sync code."""
        return self.ref(self.callers.sync_client.drive(self._later(input, at, delay, options)).id)

    async def cron(
        self, expression: str, *, input: I | None = None, name: str | None = None, **options: Unpack[ScheduleOptions]
    ) -> ScheduleRef[O]:
        """Have it run at the times of a crontab expression of 5 fields, or of 6 with seconds first.

        Without a name the schedule is named after what it says, so that the same one may be created again and again,
        e.g. whenever an app starts, and is one. Raises `ApiError`, with 409 where the name stands for another one.
        """
        made = await self.callers.client.drive(self._cron(expression, input, name, options))
        return self.cron_ref(made.name)

    def cron_sync(
        self, expression: str, *, input: I | None = None, name: str | None = None, **options: Unpack[ScheduleOptions]
    ) -> ScheduleRef[O]:
        """Do as `cron`, in sync code."""
        return self.cron_ref(self.callers.sync_client.drive(self._cron(expression, input, name, options)).name)

    def cron_ref(self, name: str) -> ScheduleRef[O]:
        """Return a reference to a schedule of this task by its name."""
        from hurlbat.refs import ScheduleRef

        return ScheduleRef(self, name)

    def ref(self, run_id: str) -> RunRef[O]:
        """Return a reference to a run of this task by its id."""
        from hurlbat.refs import RunRef

        return RunRef(self, run_id)

    def output_of(self, run: Run) -> O:
        """Return a finished run's output by this task's type. Raises `RunFailed`, `RunCancelled`, `PayloadError`."""
        if run.state != "completed":
            raise RunFailed(run) if run.state == "failed" else RunCancelled(run)
        output: O = decode(run.output_text, self.shape.output_form, what="output")
        return output

    def declared(self) -> TaskPolicy:
        """Return the policy with the schemas, as it stands in the manifest."""
        takes = self.shape.caller_form if self.shape.input_name else None
        gives = self.shape.output_form
        schemas = {
            "input_schema": None if takes is None else takes.schema("validation"),
            "output_schema": None if gives is None else gives.schema("serialization"),
        }
        return self.policy.model_copy(update=schemas)

    @property
    def text(self) -> str:
        """Tells what the manifest has of it, alike in every process; quicker to have than that."""
        return f"{self.terms.text} {self.shape.text}"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function itself, without the server."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"Task({self.name!r})"

    def _input(self, value: Any) -> str:
        return encode(value, self.shape.caller_form, what="input")

    def _inputs(self, values: Sequence[Any]) -> list[str]:
        return [self._input(value) for value in values]

    def _later(self, input: Any, at: datetime | None, delay: float | None, options: SubmitOptions) -> Call[Run]:
        from hurlbat import calls

        if "run_at" in options:
            raise TypeError("schedule takes its time as at=, not as run_at=")
        when: RunOptions = {"delay": delay} if delay is not None else {}
        moment = calls.moment(at, delay)
        if moment is not None:
            when = {"run_at": moment}
        return self._submit(input, {**options, **when})

    def _cron(self, expression: str, input: Any, name: str | None, options: ScheduleOptions) -> Call[Schedule]:
        from hurlbat import schedules

        try:
            self.shape.check_input(text := self._input(input))
        except PayloadError as error:
            raise ConfigError(f"each run of this schedule would fail: {error}") from error
        return schedules.create(self.name, expression, None, text, name, options)

    def _run(self, input: Any, options: RunOptions, timeout: float | None) -> Call[Run]:
        from hurlbat import calls

        client = self.callers.client
        return calls.run(self.name, self._input(input), linked(options, client), timeout, current_run(client))

    def _submit(self, input: Any, options: RunOptions) -> Call[Run]:
        from hurlbat import calls

        return calls.submit(self.name, self._input(input), linked(options, self.callers.client))

    def _run_many(
        self, inputs: Sequence[Any], options: RunOptions, timeout: float | None
    ) -> Call[list[Run | HurlbatError]]:
        from hurlbat import calls

        client = self.callers.client
        return calls.run_many(self.name, self._inputs(inputs), linked(options, client), timeout, current_run(client))

    def _submit_many(self, inputs: Sequence[Any], options: RunOptions) -> Call[list[Run | ApiError]]:
        from hurlbat import calls

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
