"""Exceptions. Each message names the thing, the value and what to do next, and no secret."""

import re
import reprlib

LINES = 40  # of a message
LINE = 1_000  # characters of a line


class DssmError(Exception):
    """Anything this library refuses to do; the message is a sentence for its user.

    A message is cut to `LINES` lines of `LINE` characters, whatever the values that it shows, and
    the secrets of the addresses in it are masked.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(_bounded(masked(message)))


class ConfigError(DssmError):
    """A setting is unknown, of the wrong type, or does not fit another. Never worth a retry."""


class DataError(DssmError):
    """The data breaks a rule that it must keep. Never worth a retry."""


class ArtifactError(DssmError):
    """A run folder or a file in it is missing, damaged, or of another version."""


class ServiceError(DssmError):
    """A service (MLflow, a disk) did not do its part. Worth a retry once it is back."""


class LostAnswer(ServiceError):
    """A service ended in the middle of an answer. Worth a retry at once."""


class ConflictError(DssmError):
    """Somebody else has decided in between. Look at what they did, then decide again; never worth a
    retry.
    """


SHOWN = 100  # characters of a value in a message


def shorten(value: object) -> str:
    """The text of a value, cut to some hundred characters: for messages that show it."""
    text = str(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def shown(value: object) -> str:
    """As `shorten`, for the value as Python writes it. It is never written whole: a few lines of
    YAML can hold a hundred million values.
    """
    try:
        return shorten(_REPR.repr(value))
    except ValueError:  # Python does not write integers of more than 4,300 digits
        return "a number of thousands of digits"


def masked(text: object) -> str:
    """The text with *** in place of the secrets of the addresses in it, for whatever is shown,
    logged, returned or stored.

    Secrets are the user and password before the host, `redis://USER:PASSWORD@HOST`, and the values
    of parameters such as `?password=`.
    """
    without_users = _USER.sub(r"\1***@", str(text))
    return _SECRET_PARAMETER.sub(r"\1***", without_users)


def _bounded(message: str) -> str:
    lines = message.splitlines()
    kept = [_without_middle(line) for line in lines[:LINES]]
    more = [f"… and {len(lines) - LINES:,} lines more"] if len(lines) > LINES else []
    return "\n".join([*kept, *more])


def _without_middle(line: str) -> str:
    """A line without its middle, if it is too long: what to do is at its end."""
    half = LINE // 2
    return line if len(line) <= LINE else f"{line[:half]} … {line[-half:]}"


# A password may hold a slash or an @ that its owner did not encode. A host with a port is none.
# Every part is bounded: a message may be long before it is cut.
_USER = re.compile(r"(://)(?:[^\s/?#@:]{0,200}:(?!\d{1,5}[/?#])[^\s'\"]{0,500}@|[^\s/?#]{0,500}@)")
_SECRET_PARAMETER = re.compile(
    r"([?&][\w-]{0,50}(?:password|passwd|pwd|secret|token|api_?key|access_?key|signature)"
    r"[\w-]{0,50}=)[^\s&#'\"]+",
    re.IGNORECASE,
)
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = SHOWN
