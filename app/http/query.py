"""The parameters of a URL's query."""

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError


def _refuse_unknown(request: Request) -> None:
    known = [parameter.alias for parameter in request.scope["route"].dependant.query_params]
    if unknown := [name for name in dict.fromkeys(request.query_params) if name not in known]:
        what = f"there is no such parameter; there are: {', '.join(known)}"
        raise RequestValidationError(
            [{"type": "unknown_parameter", "loc": ("query", name), "msg": what} for name in unknown]
        )


KNOWN_PARAMETERS = Depends(_refuse_unknown)
"""For a route's ``dependencies``: refuses (422) parameters of a URL that its function does not take.

Where a parameter left out means all of a table, one that is misspelt must not be ignored.
"""
