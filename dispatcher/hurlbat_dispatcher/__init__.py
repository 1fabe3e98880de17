"""The engine of Hurlbat: storage, decisions and pushing behind one door, `Engine`."""

from hurlbat_dispatcher.attempts import AttemptView
from hurlbat_dispatcher.bulk import Bulk, BulkOperation
from hurlbat_dispatcher.checkup import Finding, Severity
from hurlbat_dispatcher.domain.bulk import OperationKind, OperationState, RunFilter
from hurlbat_dispatcher.domain.events import Event, Start
from hurlbat_dispatcher.domain.holding import BudgetView
from hurlbat_dispatcher.domain.lifecycle import RunState
from hurlbat_dispatcher.domain.runs import MAX_METADATA_BYTES, Run, RunKind, Submission, Task, TimelineEntry
from hurlbat_dispatcher.domain.schedules import Missed, Overlap, Schedule, ScheduleFire
from hurlbat_dispatcher.domain.workers import Mode, SigningKey, Worker, WorkerState
from hurlbat_dispatcher.engine import Engine, HeartbeatReply
from hurlbat_dispatcher.errors import (
    Conflict,
    Forbidden,
    Invalid,
    MethodRefused,
    NotFound,
    Overloaded,
    Problem,
    TooLarge,
    TooMany,
    Unauthorized,
    Unavailable,
    UnsupportedMedia,
)
from hurlbat_dispatcher.events import AcceptedEvent, Events, EventSpec
from hurlbat_dispatcher.examination import Examination, examine
from hurlbat_dispatcher.explaining import Explanation
from hurlbat_dispatcher.expressions import CheckedExpression, check_expression
from hurlbat_dispatcher.filters import FilterChange, ShownFilter
from hurlbat_dispatcher.fleet import Registered, WorkerSpec
from hurlbat_dispatcher.following import Following, News
from hurlbat_dispatcher.incoming.making import Webhook
from hurlbat_dispatcher.limits import Limits, RateLimit
from hurlbat_dispatcher.migration import migrate
from hurlbat_dispatcher.outside import Outside
from hurlbat_dispatcher.pages import Page
from hurlbat_dispatcher.schedules import Schedules, ScheduleSpec
from hurlbat_dispatcher.secrecy import WrongKey
from hurlbat_dispatcher.settings import Settings, SettingsError, load_settings
from hurlbat_dispatcher.store.database import CannotOpen, DatabaseTrouble
from hurlbat_dispatcher.submitting import Accepted
from hurlbat_dispatcher.waiting import Watch
from hurlbat_dispatcher.webhooks import Receipt, Webhooks, WebhookSpec
from hurlbat_dispatcher.workflows import Family, NodeView, Workflows

__all__ = [
    "MAX_METADATA_BYTES",
    "Accepted",
    "AcceptedEvent",
    "AttemptView",
    "BudgetView",
    "Bulk",
    "BulkOperation",
    "CannotOpen",
    "CheckedExpression",
    "Conflict",
    "DatabaseTrouble",
    "Engine",
    "Event",
    "EventSpec",
    "Events",
    "Examination",
    "Explanation",
    "Family",
    "FilterChange",
    "Finding",
    "Following",
    "Forbidden",
    "HeartbeatReply",
    "Invalid",
    "Limits",
    "MethodRefused",
    "Missed",
    "Mode",
    "News",
    "NodeView",
    "NotFound",
    "OperationKind",
    "OperationState",
    "Outside",
    "Overlap",
    "Overloaded",
    "Page",
    "Problem",
    "RateLimit",
    "Receipt",
    "Registered",
    "Run",
    "RunFilter",
    "RunKind",
    "RunState",
    "Schedule",
    "ScheduleFire",
    "ScheduleSpec",
    "Schedules",
    "Settings",
    "SettingsError",
    "Severity",
    "ShownFilter",
    "SigningKey",
    "Start",
    "Submission",
    "Task",
    "TimelineEntry",
    "TooLarge",
    "TooMany",
    "Unauthorized",
    "Unavailable",
    "UnsupportedMedia",
    "Watch",
    "Webhook",
    "WebhookSpec",
    "Webhooks",
    "Worker",
    "WorkerSpec",
    "WorkerState",
    "Workflows",
    "WrongKey",
    "check_expression",
    "examine",
    "load_settings",
    "migrate",
]
