"""`dmma weights`: the published weights on this machine. Not a Ray job; it has sub-commands of its own."""

import argparse
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

from dmma_core.errors import ConfigError, DmmaError
from dmma_core.log import setup_logging, size_text
from dmma_core.storage import paths, weights
from dmma_core.storage.run_folder import RunFolder
from dmma_core.storage.state_dicts import read_state_dict, write_state_dict
from dmma_core.storage.weights_registry import GROUPS, NON_COMMERCIAL

_MIN_REMARK_WIDTH = 24
_HELP = """\
The tiny encoders come with DMMA and need none of this. The published networks of MMAudio, BigVGAN, CLIP, Synchformer
and MiDaS are fetched once into a cache folder (DMMA_CACHE, or ~/.cache/dmma/weights) and compared with their sha256.

  dmma weights list                                    all files: size, licence, and whether they are in the cache
  dmma weights fetch bundle_mmaudio_44k                all that the 44.1 kHz encoder bundle needs
  dmma weights fetch mmaudio_small_44k                 one file; an interrupted fetch resumes
  dmma weights fetch all --mirror gs://bucket/weights  from your own mirror (any copy of a cache folder)
  dmma weights fetch all --to gs://bucket/weights      create or complete that mirror
  dmma weights verify all                              compare all files in the cache with their sha256
  dmma weights where mmaudio_small_44k                 its path, for scripts
  dmma weights import mmaudio_small_44k                a run, runs/mmaudio_small_44k, to generate with and train from
  dmma weights export runs/mine/baseline mine.pth      a network trained here, for MMAudio's own code
  dmma weights average runs/mine/baseline --sigma-rel 0.03 0.08   runs with averages of other lengths of its training

Machines without internet: fetch elsewhere, copy the cache folder, and set DMMA_CACHE or give --mirror.
Weights under CC-BY-NC-4.0 may not be used commercially."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command. Returns the exit code; prints one message for a user's error."""
    arguments = arguments_parser().parse_args(argv)
    setup_logging()
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        return command(arguments)
    except DmmaError as error:
        print(f"dmma weights: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("dmma weights: stopped. Run the same command to resume.", file=sys.stderr)
        return 130


def _list(arguments: argparse.Namespace) -> int:
    """Files by licence, then groups with their total sizes, in the width of the terminal."""
    present = set(weights.inventory()[0])
    name_width = max(map(len, (*weights.REGISTRY, *GROUPS)))
    by_licence: dict[str, list[str]] = {}
    for name, file in weights.REGISTRY.items():
        by_licence.setdefault(file.license, []).append(name)
    for licence, names in by_licence.items():
        print(f"{licence}{', not for commercial use' if licence == NON_COMMERCIAL else ''}:")
        for name in names:
            here = "here" if name in present else "-"
            print(_row(here, name, name_width, [name], weights.REGISTRY[name].purpose))
        print()
    print("Groups, for `dmma weights fetch`:")
    for group in (*GROUPS, "all"):
        names = weights.expand([group])
        here = "here" if present.issuperset(names) else "-"
        remark = f"{len(names)} files, {len(present.intersection(names))} of them here"
        print(_row(here, group, name_width, names, remark))
    print(f"\nCache: {weights.cache_folder()}")
    return 0


def _row(here: str, name: str, name_width: int, files: Sequence[str], remark: str) -> str:
    """One entry: whether it is here, its name, the total size of its files, and a remark that wraps under itself."""
    start = (
        f"  {here:<4}  {name:<{name_width}}  {size_text(sum(weights.REGISTRY[file].size_bytes for file in files)):>7}  "
    )
    width = max(len(start) + _MIN_REMARK_WIDTH, shutil.get_terminal_size().columns)
    return textwrap.fill(remark, width, initial_indent=start, subsequent_indent=" " * len(start))


def _fetch(arguments: argparse.Namespace) -> int:
    if arguments.to:
        paths.check_writable(arguments.to)
    for name in weights.expand(arguments.names):
        print(weights.fetch(name, arguments.mirror, arguments.offline))
        if arguments.to:
            print(weights.publish(name, arguments.to))
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    names, (present, _) = weights.expand(arguments.names), weights.inventory()
    if arguments.names == ["all"]:
        names = present
    failed = 0
    for name in names:
        try:
            print(f"OK    {name}: sha256 {weights.verify(name)}")
        except DmmaError as error:
            failed += 1
            print(f"FAIL  {name}: {error}")
    if not names:
        print(f"There are no weights in {weights.cache_folder()}.")
    return 1 if failed else 0


def _where(arguments: argparse.Namespace) -> int:
    for name in weights.expand(arguments.names):
        print(weights.path_of(name))
    return 0


def _import(arguments: argparse.Namespace) -> int:
    from dmma_core.encoders.bundle import load_bundle  # only now: the other sub-commands need no networks
    from dmma_core.training.initial_weights import bundle_of_published, import_published

    (name,) = arguments.names
    known = name in weights.REGISTRY
    if not known and not Path(name).suffix and not paths.exists(name):
        weights.describe(name)  # a misspelt name, not a file: raises with the near ones
    path = weights.path_of(name) if known else name
    state = read_state_dict(path)
    sha256 = weights.verify(name) if known else paths.sha256_of(path)
    run = RunFolder(arguments.run or paths.join("runs", name if known else Path(name).stem))
    paths.check_writable(run.uri)
    name_of_bundle = arguments.bundle or bundle_of_published(state)
    bundle = load_bundle(name_of_bundle, arguments.duration, weights=dict(arguments.encoder), with_vocoder=False)
    import_published(state, bundle.schema, run, {"file": Path(path).name, "sha256": sha256})
    print(f"{run.uri} holds {name} for clips of {arguments.duration:g} s with the encoders {bundle.schema.bundle}.")
    own = "".join(f" encoder_weights.{role}={file}" for role, file in arguments.encoder)
    print(f'Next: dmma generate clip.mp4 --run {run.uri} --prompt "…"{own}, or dmma train … init_uri={run.uri}')
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from dmma_core.training.initial_weights import published_state

    checkpoint = RunFolder(paths.absolute(arguments.run_uri)).checkpoint()
    write_state_dict(arguments.file, published_state(checkpoint))
    print(f"{arguments.file} holds the averaged network of {checkpoint.uri} in the published layout.")
    return 0


def _average(arguments: argparse.Namespace) -> int:
    from dmma_core.training.snapshots import length_name, write_averages

    lengths = list(dict.fromkeys(arguments.sigma_rel))
    if arguments.run and len(lengths) > 1:
        raise ConfigError("--run names one folder for several averages.", remedy="Give one --sigma-rel, or no --run.")
    folders = [RunFolder(arguments.run or f"{arguments.run_uri.rstrip('/')}-{length_name(at)}") for at in lengths]
    written = write_averages(RunFolder(arguments.run_uri), lengths, folders, arguments.step)
    for folder, checkpoint in zip(folders, written, strict=True):
        ema = checkpoint.record["ema"]
        print(
            f"{folder.uri} holds the average of sigma_rel {ema['sigma_rel']:g} at step {checkpoint.step}, "
            f"snapshots: {len(ema['snapshots'])}, profile matched to {1 - ema['misfit']:.1%}."
        )
    print(f'Next: dmma generate clip.mp4 --run {folders[0].uri} --prompt "…", or evaluate it like any run.')
    return 0


def arguments_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dmma weights", description=_HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(metavar="list|fetch|verify|where|import|export|average", required=True)
    commands.add_parser("list", help="all published files, and which are in the cache").set_defaults(command=_list)
    for name, command, summary in (
        ("fetch", _fetch, "download files into the cache, with resume, and compare their sha256"),
        ("verify", _verify, "compare files in the cache with their sha256"),
        ("where", _where, "print the local path of files"),
    ):
        sub = commands.add_parser(name, help=summary, description=summary)
        sub.add_argument("names", nargs="+", metavar="NAME", help="a name of `dmma weights list`, a group, or all")
        sub.set_defaults(command=command)
        if name == "fetch":
            sub.add_argument("--mirror", metavar="URI", help="folder, gs:// or http(s):// with the same file names")
            sub.add_argument("--to", metavar="URI", help="then copy them to this folder or gs://, a mirror of your own")
            sub.add_argument("--offline", action="store_true", help="fetch nothing; fail where a file is absent")
    _add_import(commands)
    _add_export(commands)
    _add_average(commands)
    return parser


def _add_import(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    summary = "create a run from a published network, for generate and train to start from"
    sub = commands.add_parser("import", help=summary, description=summary)
    sub.add_argument("names", nargs=1, metavar="NAME", help="a name of `dmma weights list`, or a file")
    sub.add_argument("--run", metavar="URI", help="folder of the run (default: runs/NAME)")
    sub.add_argument("--duration", type=float, default=8.0, metavar="S", help="seconds of a clip (default: 8)")
    sub.add_argument("--bundle", metavar="NAME", help="encoders (default: those that the network was trained with)")
    sub.add_argument(
        "--encoder",
        metavar="ROLE=FILE",
        action="append",
        default=[],
        type=_role_and_file,
        help="a file that replaces that of the bundle's clip, depth, synchformer or vae; may be given again",
    )
    sub.set_defaults(command=_import)


def _role_and_file(text: str) -> tuple[str, str]:
    role, _, file = text.partition("=")
    if not (role and file):
        raise argparse.ArgumentTypeError(f"{text!r} is not ROLE=FILE, for example vae=my_vae.pth")
    return role, file


def _add_export(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    summary = "write a run's newest averaged network in the published layout"
    sub = commands.add_parser("export", help=summary, description=summary)
    sub.add_argument("run_uri", metavar="RUN", help="a run without depth, or with DeepMMAudio's form of it")
    sub.add_argument("file", metavar="FILE", help="a .pth file, or .safetensors")
    sub.set_defaults(command=_export)


def _add_average(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    summary = "compute averages of other lengths from the snapshots of a training run, each as a run"
    sub = commands.add_parser("average", help=summary, description=summary)
    sub.add_argument("run_uri", metavar="RUN", help="a training run, one arm of a comparison")
    sub.add_argument(
        "--sigma-rel", type=float, nargs="+", required=True, metavar="S", help="lengths, relative to the training's"
    )
    sub.add_argument("--step", type=int, metavar="N", help="step of a snapshot (default: the newest)")
    sub.add_argument("--run", metavar="URI", help="folder of the new run (default: RUN-sigmaS)")
    sub.set_defaults(command=_average)


if __name__ == "__main__":
    raise SystemExit(main())
