"""Errors as OpenAI's clients expect them: {"error": {"message", "type", "param", "code"}} and an HTTP status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from starlette.responses import JSONResponse

from fourbit.errors import FourbitError

INVALID, DENIED, LIMITED, OURS = "invalid_request_error", "authentication_error", "rate_limit_error", "server_error"


class ApiError(FourbitError):
    """A request that is answered by an error: its HTTP status, message, and machine-readable type, code and param."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = INVALID,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.kind, self.code, self.param, self.headers = status, kind, code, param, headers

    def body(self) -> dict[str, Any]:
        """Return what the client reads."""
        return {"error": {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """Return it as an HTTP response."""
        return JSONResponse(self.body(), self.status, headers=self.headers)


def from_validation(error: ValidationError) -> ApiError:
    """Return the fault that pydantic found deepest inside, in OpenAI's words where it has some."""
    found = error.errors(include_url=False, include_input=False)
    first = max(found, key=lambda fault: len(fault["loc"]))  # of a union: the branch that came nearest
    place = [str(part) for part in first["loc"] if not (isinstance(part, str) and ("[" in part or part == "str"))]
    param = ".".join(place) or None
    if first["type"] == "json_invalid":
        return ApiError(400, f"the body is no JSON ({first['ctx']['error']})", code="invalid_json")
    if first["type"] == "extra_forbidden":
        return ApiError(400, f"unknown parameter {param}; it is not supported", code="unknown_parameter", param=param)
    if first["type"] == "missing":
        return ApiError(400, f"{param} is missing", code="missing_required_parameter", param=param)
    said = first["msg"].removeprefix("Value error, ")
    message = f"{param}: {said}" if param else said
    return ApiError(400, message, code="invalid_value", param=param)
