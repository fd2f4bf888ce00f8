"""What the console answers with. Whatever a row holds, a page and a JSON answer of it can be sent."""

from typing import Any

from starlette import responses

from station.plain import compact, text


class JSONResponse(responses.JSONResponse):
    """JSON in ASCII."""

    def render(self, content: Any) -> bytes:
        """The body."""
        return compact(content).encode()


class HTMLResponse(responses.HTMLResponse):
    """A page in UTF-8."""

    def render(self, content: Any) -> bytes:
        """The body; a character that is none shows as a question mark."""
        return text(content).encode()
