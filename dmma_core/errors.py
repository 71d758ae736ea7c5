"""Error classes. Every message states what is wrong, where, with which value, and the remedy.

Every error a user can cause is a `DmmaError`. The command line prints its text, without a traceback, and exits with
`exit_code`. Anything else that escapes is a defect of DMMA and keeps its traceback.
"""


class DmmaError(Exception):
    """Base of all errors caused by input, environment or configuration.

    `message` states what is wrong, where and with which value; `remedy` states what to do. `str(error)` joins both.
    """

    exit_code = 1

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message, remedy)  # both, so that the error survives pickling between Ray processes
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.message, self.remedy, self.__dict__)


def _rebuild(cls: type[DmmaError], message: str, remedy: str, state: dict[str, object]) -> DmmaError:
    error = cls.__new__(cls)
    DmmaError.__init__(error, message, remedy=remedy)
    error.__dict__.update(state)
    return error


class ConfigError(DmmaError):
    """A configuration file or `key=value` that cannot be used."""

    exit_code = 2


class StorageError(DmmaError):
    """A path that is missing, unreadable, not writable, or a full disk."""


class AbsentError(StorageError):
    """The storage responded: the file does not exist."""


class LeaseHeldError(DmmaError):
    """A folder whose lease another job holds."""


class LeaseLostError(DmmaError):
    """A lease that another job has taken over, or may have: this job must stop writing into the folder."""


class MediaError(DmmaError):
    """A video or sound file that cannot be used. `reason` is a stable identifier for the rejected list."""

    def __init__(self, message: str, *, reason: str, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.reason = reason


class SchemaError(DmmaError):
    """An artefact of another schema version, with missing columns, or made by other encoders than expected."""


class IncompleteError(DmmaError):
    """An artefact whose completeness marker is missing: the job that writes it did not finish."""


class CheckpointError(DmmaError):
    """A checkpoint that is damaged or belongs to another architecture."""


class WeightsError(DmmaError):
    """Published weights that are missing, damaged, changed, or of another network."""


class TrainingError(DmmaError):
    """A training run that cannot continue, for example because its loss became NaN."""
