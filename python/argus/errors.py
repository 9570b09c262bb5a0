"""Errors that Argus raises. Every message says where, what was expected, what was found and what happens now."""

from __future__ import annotations


class ArgusError(Exception):
    """Base of all errors; `exit_code` is what a command ends with when it meets one."""

    exit_code = 1


class ConfigError(ArgusError):
    """Configuration that cannot be used: names the file, line, key, what was expected and found."""

    exit_code = 78


class UsageError(ArgusError):
    """A call or command line that cannot be carried out as given."""

    exit_code = 2


class UnreachableError(ArgusError):
    """The other side (collector, socket, file) cannot be reached."""

    exit_code = 3


class RefusedError(ArgusError):
    """The action is refused: another collector owns the directory, a rule or a latch forbids it."""

    exit_code = 4


class ShapeError(ArgusError, ValueError):
    """An array of the wrong shape or dtype: says got and wanted."""

    exit_code = 2


class JournalError(ArgusError):
    """The journal cannot be opened, or does not verify."""
