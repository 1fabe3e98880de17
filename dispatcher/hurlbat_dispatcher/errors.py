"""What the engine refuses, as problems that a reader can act on (RFC 9457).

Problem
├── Invalid           422  the request says something that cannot be
├── Unauthorized      401  no token, or not a good one
├── Forbidden         403  a good token for something else
├── NotFound          404
├── MethodRefused     405
├── Conflict          409  the state of things forbids it
├── TooLarge          413  beyond a limit that the problem names
├── UnsupportedMedia  415  a body in a form that we do not read
├── TooMany           429  more than a rate allows; `retry_after` says when
└── Unavailable       503  not now; `retry_after` says when
    └── Overloaded         the queue of submits is full
"""

from typing import Any, ClassVar


class Problem(Exception):
    """A refusal with a stable `code`, a sentence for people, and members that a program can read."""

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"

    def __init__(self, code: str, detail: str, **extra: Any) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.extra = extra

    def as_json(self) -> dict[str, Any]:
        """Return the RFC 9457 object."""
        head = {"type": f"urn:hurlbat:problem:{self.code}", "title": self.title, "status": self.status}
        return head | {"code": self.code, "detail": self.detail} | self.extra


class Invalid(Problem):
    """The request says something that cannot be; `field` names where."""

    status = 422
    title = "Invalid request"


class Unauthorized(Problem):
    """There is no token, or it is not a good one."""

    status = 401
    title = "Unauthorized"


class Forbidden(Problem):
    """The token is good, but not for this."""

    status = 403
    title = "Forbidden"


class NotFound(Problem):
    """There is no such thing for this tenant."""

    status = 404
    title = "Not found"


class MethodRefused(Problem):
    """The path exists, the method does not."""

    status = 405
    title = "Method not allowed"


class Conflict(Problem):
    """The state of things forbids it."""

    status = 409
    title = "Conflict"


class TooLarge(Problem):
    """Something is beyond a limit; `limit` is its number."""

    status = 413
    title = "Too large"


class UnsupportedMedia(Problem):
    """The body is in a form that we do not read."""

    status = 415
    title = "Unsupported media type"


class TooMany(Problem):
    """More has come than a rate allows; `retry_after` says in how many seconds to try again."""

    status = 429
    title = "Too many requests"


class Unavailable(Problem):
    """It cannot be done now; `retry_after` says in how many seconds to try again."""

    status = 503
    title = "Unavailable"


class Overloaded(Unavailable):
    """More submits wait than the queue takes."""

    title = "Overloaded"
