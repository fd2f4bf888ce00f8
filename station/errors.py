"""What ends a command: told in one line, without a traceback."""


class CannotRun(Exception):
    """The station, or a part of it, cannot be used as things are; the text says what to do."""
