"""The operator's console and the HTTP interface: Starlette, server-rendered pages, server-sent events."""
