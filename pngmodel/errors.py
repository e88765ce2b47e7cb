"""The errors that this product raises on purpose."""

from __future__ import annotations


class UserError(Exception):
    """Something the user gave cannot be used.

    The message names the file or key, the value found, and what to do. The command line prints it
    without a traceback and exits with code 2.
    """


class IntegrityError(UserError):
    """Stored bytes do not match the digest or the commit record that describes them."""


class NonFiniteError(UserError):
    """Training met a loss or gradient that is not finite; names the step and the last good checkpoint."""


class TransientError(UserError):
    """Storage or a cluster failed in a way that may be over soon: the same work is worth another try."""
