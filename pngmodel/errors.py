"""Exceptions with messages for users."""

from __future__ import annotations


class UserError(Exception):
    """Invalid input of the user.

    The message names the file or key, its value, and the remedy. The command line prints it without a traceback and
    exits with code 2.
    """


class IntegrityError(UserError):
    """Stored bytes do not match the digest or the commit record that describes them."""


class NonFiniteError(UserError):
    """The loss or a gradient is not finite during training; names the step and the last good checkpoint."""


class TransientError(UserError):
    """Storage or a cluster failed temporarily; the operation may succeed if it is retried."""
