"""Exceptions. Each message names the thing, the value and what to do next."""


class DssmError(Exception):
    """Anything this library refuses to do; the message is a sentence for its user."""


class ConfigError(DssmError):
    """A setting is unknown, of the wrong type, or does not fit another. Never worth a retry."""


class DataError(DssmError):
    """The data breaks a rule that it must keep. Never worth a retry."""


class ArtifactError(DssmError):
    """A run folder or a file in it is missing, damaged, or of another version."""


class ServiceError(DssmError):
    """A service (MLflow, a disk) did not do its part. Worth a retry once it is back."""


class ConflictError(DssmError):
    """Somebody else has decided in between. Look at what they did, then decide again; never worth a
    retry.
    """


SHOWN = 100  # characters of a value in a message


def shorten(value: object) -> str:
    """The text of a value, cut to some hundred characters: for messages that show it."""
    text = str(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
