import pickle

from dmma_core.errors import ConfigError, DmmaError, MediaError


def test_an_error_is_its_message_and_its_remedy() -> None:
    error = ConfigError("rate is -1.", remedy="Use 0 or more.")
    assert str(error) == "rate is -1. Use 0 or more."
    assert error.exit_code == 2


def test_errors_survive_pickling_between_processes() -> None:
    error = pickle.loads(pickle.dumps(MediaError("No sound.", reason="no_audio", remedy="Add some.")))
    assert isinstance(error, MediaError)
    assert isinstance(error, DmmaError)
    assert (error.reason, str(error)) == ("no_audio", "No sound. Add some.")
