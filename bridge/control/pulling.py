"""A receiver fetches its events by itself: the one door under `/v1` that opens to others than the operator.

Whoever does not hold a token that fits is told the same, whether there is such an endpoint or not.
"""

from __future__ import annotations

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from bridge.control.answers import answer
from bridge.control.asked import Digits, read_query
from bridge.control.bearer import given_token, same
from bridge.control.problem import Problem, invalid_query
from bridge.control.view import VIEW
from bridge.delivery.pulling import EVENTS_MAX, Busy, Pulls, UnreadableCursor
from bridge.delivery.sink import Pullable

PATH = "/v1/endpoints/{name:[^/]+}/events"


class Pull(BaseModel):
    """The query of a pull. `after` is the `next` of the page before."""

    model_config = ConfigDict(extra="forbid")

    after: str | None = Field(None, max_length=4_096)
    limit: Digits = Field(EVENTS_MAX, ge=1, le=EVENTS_MAX)


async def events(request: web.Request) -> web.Response:
    """The endpoint's events behind a cursor, each as its delivery would be; what was not delivered yet as well."""
    name, pulls = request.match_info["name"], request.config_dict[VIEW].pulls
    endpoint = await _endpoint(request, name, pulls)
    wanted = read_query(request, Pull)
    try:
        page = await pulls.page(name, endpoint, wanted.after, wanted.limit)
    except UnreadableCursor as error:
        raise invalid_query([("after", str(error))]) from error
    except KeyError:
        raise _nowhere() from None
    except Busy:
        raise Problem(429, "one page at a time for each endpoint", headers={"Retry-After": "1"}) from None
    found = [{"headers": dict(one.headers), "body": one.body.decode()} for one in page.events]
    return answer({"events": found, "next": page.following})


async def _endpoint(request: web.Request, name: str, pulls: Pulls) -> Pullable:
    token = given_token(request)
    endpoint = await pulls.endpoint(name)
    own = (endpoint.pull_token if endpoint else None) or ""
    operator, receiver = same(token, request.config_dict[VIEW].token or ""), same(token, own)
    if not operator and not receiver:
        raise Problem(403, "closed to this token: it is not this endpoint's pull_token, or none is set")
    if endpoint is None:
        raise _nowhere()
    return endpoint


def _nowhere() -> Problem:
    return Problem(404, "there is no endpoint of this name that events can be fetched from")
