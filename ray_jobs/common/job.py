"""What every job has in common: arguments, configuration, dry run, error messages, exit codes.

dmma <job> [--config FILE] [--dry-run] [--verbose] [key=value …]        and the same as   python -m ray_jobs.<job>
"""

import argparse
import dataclasses
import os
import shutil
import signal
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import FrameType
from typing import Any, Generic, TypeVar, get_args, get_origin

from dmma_core.config_loading import config_to_yaml, known_keys, load_config
from dmma_core.errors import ConfigError, DmmaError
from dmma_core.log import setup_logging
from dmma_core.storage import paths
from ray_jobs.common.places import CONFIG_ROOT

Config = TypeVar("Config")
_INTERRUPTED = 130
_BROKEN_PIPE = 141
_PLACES = ("video", "clips", "captions")  # settings that name files, beside those that end with _uri
_MAX_HELP_WIDTH = 110


@dataclass(frozen=True)
class Job(Generic[Config]):
    """One job of the chain.

    `plan` validates everything the job needs (paths, schemas, weights, device, write access) and changes nothing. It
    returns sentences that describe what would be done, or raises DmmaError. `run` does the work. `flags` maps extra
    options to settings ("--run": "run_uri"), `positional` names the setting a bare argument stands for. `example` has
    one command a line.
    """

    name: str
    summary: str
    config: type[Config]
    plan: Callable[[Config], Sequence[str]]
    run: Callable[[Config], None]
    example: str
    flags: Mapping[str, str] = field(default_factory=dict)
    positional: str | None = None

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Parse, validate, run. Returns the exit code; prints one sentence, not a traceback, for a user's error."""
        arguments = self.parse(sys.argv[1:] if argv is None else argv)
        setup_logging(arguments.verbose)
        try:
            config = self.configure(arguments)
            with _terminated_as_interrupted():
                if arguments.dry_run:
                    print(config_to_yaml(config))
                    print("\n".join(self.plan(config)))
                    print("Dry run: all checks passed; nothing was changed.")
                else:
                    self.run(config)
        except DmmaError as error:
            print(f"dmma {self.name}: {error}", file=sys.stderr)
            return error.exit_code
        except KeyboardInterrupt:
            print(f"dmma {self.name}: stopped. Finished work is kept; run the same command to resume.", file=sys.stderr)
            return _INTERRUPTED
        except BrokenPipeError:  # the reader of the output ended, as `| head` does, perhaps before the job was done
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return _BROKEN_PIPE
        return 0

    def configure(self, arguments: argparse.Namespace) -> Config:
        """The configuration that the arguments ask for. Raises ConfigError where it cannot be used."""
        config = load_config(self.config, config_path(self.name, arguments.config), self._overrides(arguments))
        refuse_lost_places(config)
        return config

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Split the command line. As argparse does, it ends the process for --help and for unknown options."""
        parser = argparse.ArgumentParser(
            prog=f"dmma {self.name}",
            description=self.summary,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            epilog=f"example:\n{textwrap.indent(self.example, '  ')}\n\nsettings (key=value) and their defaults:\n{self._defaults()}\n\n"
            f"what they mean:\n{_meanings(self.config)}",
        )
        shipped = "".join(f", or {name}" for name in _shipped(self.name))
        parser.add_argument("--config", metavar="FILE", help=f"YAML file of settings{shipped}")
        parser.add_argument(
            "--dry-run", action="store_true", help="validate everything, print the plan, change nothing"
        )
        parser.add_argument("--verbose", action="store_true", help="log details")
        for flag, key in self.flags.items():
            parser.add_argument(flag, dest=f"setting:{key}", metavar="VALUE", help=f"same as {key}=VALUE")
        bare = f"; a word without =, or a file, is the setting {self.positional}" if self.positional else ""
        parser.add_argument("settings", nargs="*", metavar="key=value", help=f"settings that override the file's{bare}")
        return parser.parse_intermixed_args(argv)

    def _overrides(self, arguments: argparse.Namespace) -> list[str]:
        bare = [word for word in arguments.settings if self.positional and self._is_bare(word)]
        if len(bare) > 1:
            raise ConfigError(
                f"{len(bare)} values are given for {self.positional}: {', '.join(bare)}.", remedy="Give one a call."
            )
        overrides = [f"{self.positional}={word}" if word in bare else word for word in arguments.settings]
        for name, value in vars(arguments).items():
            if name.startswith("setting:") and value is not None:
                overrides.append(f"{name.removeprefix('setting:')}={value}")
        return overrides

    def _is_bare(self, word: str) -> bool:
        """Whether `word` is a value alone: one without =, a path like clips/a=b.mp4, or an existing file like a=b.mp4."""
        key, separator, _ = word.partition("=")
        is_setting = key.partition(".")[0] in {each.partition(".")[0] for each in known_keys(self.config)}
        return not separator or "/" in key or (not is_setting and Path(word).exists())

    def _defaults(self) -> str:
        try:
            lines = config_to_yaml(self.config()).splitlines()
        except TypeError:  # a setting without a default
            lines = known_keys(self.config)
        return "\n".join(f"  {line}" for line in lines)


def config_path(job: str, given: str | None) -> Path | None:
    """`--config` as a path: an existing file, or the name of one that comes with the job."""
    if given is None or Path(given).is_file():
        return Path(given) if given else None
    named = CONFIG_ROOT / job / f"{given}.yaml"
    if named.is_file():
        return named
    known = _shipped(job)
    shipped = f", or one of: {', '.join(known)}" if known else ""
    raise ConfigError(f"There is no configuration file {given}.", remedy=f"Give a path{shipped}.")


def _shipped(job: str) -> list[str]:
    """Names of the configurations that come with a job."""
    return sorted(path.stem for path in (CONFIG_ROOT / job).glob("*.yaml"))


def _meanings(config: type, key: str = "") -> str:
    """The docstrings of a configuration and of its parts, which explain the settings, wrapped for the terminal."""
    width = min(_MAX_HELP_WIDTH, shutil.get_terminal_size().columns)
    docstring = f"{key}: {config.__doc__}" if key else config.__doc__ or ""
    text = " ".join(docstring.partition("Raises ")[0].split())
    texts = [textwrap.fill(text, width, initial_indent="  ", subsequent_indent="    ")]
    for each in fields(config):
        name = f"{each.name}.<name>" if get_origin(each.type) is dict else each.name
        parts = (part for part in (each.type, *get_args(each.type)) if dataclasses.is_dataclass(part))
        texts += [_meanings(part, f"{key}.{name}" if key else name) for part in parts if isinstance(part, type)]
    return "\n".join(texts)


def refuse_lost_places(config: Any) -> None:
    """Raise ConfigError for a relative path in a job that `ray job submit` started.

    Its working directory is a temporary copy of the project on the cluster: input would be missing, output lost.
    """
    if not in_submitted_copy():
        return
    places = {f.name: getattr(config, f.name) for f in fields(config) if f.name.endswith("_uri") or f.name in _PLACES}
    places |= {f"encoder_weights.{role}": file for role, file in getattr(config, "encoder_weights", {}).items()}
    for name, value in places.items():
        is_lost = value is not None and not (paths.is_remote(value) or value.startswith(("/", "~", "file://")))
        if is_lost and (value or name == "out_uri"):
            raise ConfigError(
                f"{name} is {value!r}, which lies in the temporary copy of the project that a submitted job runs in.",
                remedy=f"Give {name} as an absolute path that the cluster sees, or as gs://bucket/path.",
            )


def in_submitted_copy() -> bool:
    """Whether the working directory is the temporary copy of the project that `ray job submit` made on the cluster."""
    return any(part.startswith("_ray_pkg_") for part in Path.cwd().parts)


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM, from `kill`, `ray job stop` or a preempted machine, end the job in an orderly way, as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
