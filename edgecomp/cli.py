"""The `edgecomp` command: what is here (`info`), how fast it is (`bench`), what it does to a real network (`demo`); cli_model has the
commands about files."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import edgecomp as ec
from edgecomp import cli_model

EXIT_FAILED, EXIT_INTERRUPTED = 1, 130  # argparse itself exits with 2 for bad arguments

BENCH_EPILOG = """
examples:
  edgecomp bench                               all but --break-even, briefly
  edgecomp bench --roof --json                 this machine's peaks, as JSON on standard output
  edgecomp bench --int8 --threads 1,2 --quick  int8 with one and two threads
  edgecomp bench --shape 64,1000,2048          your own layer, int8 and float32
  edgecomp bench --break-even --plot even.png  how many zeros CSR and N:M need to win, in minutes

"of roof" is the share of what this machine can do, measured right before and after: of its arithmetic, or of the speed
at which it reads as many bytes as the weights have, whichever takes longer ("bound by"). "cold" weights come from memory
in every call, as those of a model do; others are in the cache from the call before. "vs NumPy" compares with its float32
matmul alone. Nothing else should run meanwhile.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code: 0, 1 if it failed, 130 if interrupted.

    Bad arguments raise SystemExit(2), as argparse does.
    """
    for name in ("stdout", "stderr"):  # None where the shell has closed them
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    arguments = _parser().parse_args(argv)
    run: Callable[[argparse.Namespace], None] = arguments.run
    try:
        run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output has enough; the interpreter would complain when it flushes the rest
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except (RuntimeError, ValueError, OSError) as error:
        print(f"edgecomp: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        print("edgecomp: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="edgecomp", description="Fast quantized and sparse kernels, and model files for them.")
    parser.add_argument("--version", action="version", version=f"edgecomp {ec.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    info = commands.add_parser("info", help="what this machine has, what was compiled, what runs, what is missing")
    info.add_argument("--json", action="store_true", help="as JSON")
    info.set_defaults(run=_info)

    bench = commands.add_parser(
        "bench",
        help="measure this machine's peaks, and the ops against them and NumPy",
        description="Measures this machine's peaks, and the ops against them and against NumPy's float32 matmul.",
        epilog=BENCH_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = bench.add_argument_group("what to measure (if none is given, all but --break-even, briefly)")
    what.add_argument("--roof", action="store_true", help="the peaks: int8, float32, reading from each cache and from memory")
    what.add_argument("--int8", action="store_true", help="linear with int8 weights")
    what.add_argument("--f32", action="store_true", help="linear with packed float32 weights")
    what.add_argument("--break-even", action="store_true", help="from how many zeros on sparse weights are faster; goes alone")
    bench.add_argument(
        "--shape",
        action="append",
        type=_shape,
        metavar="M,N,K",
        help="rows of x, outputs, inputs; repeatable; instead of the built-in list; with --break-even N,K, once",
    )
    bench.add_argument("--batch", type=_batches, metavar="M[,M...]", help="rows of x, for --break-even (default: 1,8,128)")
    bench.add_argument("--plot", metavar="FILE", help="a picture of --break-even")
    bench.add_argument("--threads", type=_threads, metavar="T[,T...]", help="thread counts (default: 1 and all cores)")
    bench.add_argument("--quick", action="store_true", help="fewer shapes and repetitions: seconds, not minutes")
    bench.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="write JSON to FILE; to standard output instead of tables if no FILE"
    )
    bench.set_defaults(run=_bench, refuse=bench.error)

    demo = commands.add_parser(
        "demo",
        help="train a small network on real digits, prune and quantize it, compare accuracy, bytes and speed",
        description="Trains a small network on the handwritten digits that come with edgecomp, prunes and quantizes its weights, and "
        "compares accuracy, bytes and speed of every form with NumPy's float32; then the speed in two layers of large models. "
        "Less than a minute, in which nothing else should run.",
    )
    demo.add_argument("--seed", type=_seed, default=0, metavar="S", help="of the training (default: 0)")
    demo.add_argument("--threads", type=_thread_count, metavar="T", help="threads to measure with (default: those of any call)")
    picture = demo.add_mutually_exclusive_group()
    picture.add_argument("--picture", metavar="FILE", help="where to draw the figures (default: edgecomp-demo.png, if matplotlib is there)")
    picture.add_argument("--no-picture", action="store_true", help="draw nothing")
    demo.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="write JSON to FILE; to standard output instead of tables if no FILE"
    )
    demo.set_defaults(run=_demo)

    cli_model.add_commands(commands)
    return parser


def _shape(text: str) -> Any:
    from edgecomp.measure.shapes import Shape

    try:
        if text.count(",") == 1:  # for --break-even
            return Shape.parse(f"1,{text}")[1:]
        return Shape.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _threads(text: str) -> tuple[int, ...]:
    counts = text.split(",")
    if not all(c.strip().isdecimal() and 1 <= int(c) <= 1024 for c in counts):
        raise argparse.ArgumentTypeError(f"{text!r}: wanted thread counts from 1 to 1024, for example 1,2")
    return tuple(dict.fromkeys(int(c) for c in counts))


def _batches(text: str) -> tuple[int, ...]:
    rows = text.split(",")
    if not all(r.strip().isdecimal() and int(r) >= 1 for r in rows):
        raise argparse.ArgumentTypeError(f"{text!r}: wanted numbers of rows from 1 on, for example 1,8,128")
    return tuple(dict.fromkeys(map(int, rows)))


def _thread_count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"{text!r}: wanted a number of threads from 1 to 1024")
    return int(text)


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: wanted a whole number from 0 on")
    return int(text)


def _info(arguments: argparse.Namespace) -> None:
    from edgecomp.measure.report import print_table

    found = ec.info()
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    isa, machine = found["isa"], found["machine"]
    lines = [
        ["edgecomp", found["version"]],
        ["CPU", f"{machine['cpu']} ({machine['arch']}), {machine['cores']} usable cores"],
        ["system", machine["os"]],
        ["instruction sets here", " ".join(isa["detected"]) or "unknown without the C library"],
        ["compiled", " ".join(isa["compiled"]) or "none"],
        ["capped at", isa["cap"] or "no cap"],
        ["backend", found["backend"]],
        ["threads", str(found["threads"])],
        *([name, version or "not installed"] for name, version in found["versions"].items()),
    ]
    print_table("This machine", ["", ""], lines)
    print_table("What runs", ["op", "backend", "variant"], [[op, u["backend"], u["variant"]] for op, u in found["ops"].items()])
    for missing in found["missing"]:
        print(f"missing: {missing['what']} ({missing['why']})\n    {missing['fix']}")


def _bench(arguments: argparse.Namespace) -> None:
    from edgecomp import measure
    from edgecomp.measure import report, shapes
    from edgecomp.measure.roof import loops

    if arguments.break_even:
        _break_even(arguments)
        return
    if arguments.batch or arguments.plot:
        arguments.refuse("--batch and --plot are for --break-even")
    if any(len(shape) == 2 for shape in arguments.shape or ()):
        arguments.refuse("argument --shape: wanted three whole numbers M,N,K, for example 512,4096,4096")
    if arguments.json not in (None, "-"):
        _check_writable(arguments.json, "choose another file with --json FILE")
    chosen = arguments.roof or arguments.int8 or arguments.f32
    own = not chosen and arguments.shape
    roof = arguments.roof or not (chosen or own)
    ops = [op for op, wanted in (("linear_int8", arguments.int8), ("linear_f32", arguments.f32)) if wanted or not chosen]
    quick = arguments.quick or not (chosen or own)
    threads = arguments.threads or tuple(dict.fromkeys((1, ec.info()["machine"]["cores"])))
    slices, roof_slices = (3, 5) if quick else (7, 15)
    cases = [
        (op, shape, t, cold)
        for op in ops
        for shape in arguments.shape or (shapes.QUICK if quick else shapes.ALL)
        for cold in shapes.temperatures(shape)
        for t in threads
    ]
    peaks, rows = None, []
    steps = (roof_slices * len(threads) * len(loops(1)) if roof else 0) + 2 * slices * len(cases)
    with report.Progress(steps) as progress:
        if roof:
            peaks = measure.measure_roof(threads, slices=roof_slices, after_slice=progress.advance)
        for op, shape, t, cold in cases:
            ours, timing, numpy = measure.compare(op, shape, t, cold=cold, slices=slices, after_slice=progress.advance)
            rows.append(report.Row(op, shape, t, cold, ours.against, timing, numpy))

    if arguments.json:
        document = {
            "machine": report.fingerprint(),
            "roof": peaks.to_json() if peaks else [],
            "speed": [row.to_json() for row in rows],
        }
        _write_json(document, arguments.json)
    if arguments.json == "-":
        return
    if peaks:
        report.print_table("Peaks of this machine (10^9 per second)", *report.roof_table(peaks))
    for op, t in dict.fromkeys((row.op, row.threads) for row in rows):
        title = f"{op}, bias and ReLU included, {t} thread{'s' if t > 1 else ''}"
        report.print_table(title, *report.speed_table([row for row in rows if (row.op, row.threads) == (op, t)]))
    if rows and not report.fingerprint()["numpy_threads_limited"]:
        print("NumPy used as many threads as it likes; pip install threadpoolctl, and it will use as many as the op beside it.")


def _break_even(arguments: argparse.Namespace) -> None:
    from edgecomp.measure import break_even, picture, report, shapes

    if arguments.roof or arguments.int8 or arguments.f32:
        arguments.refuse("--break-even goes alone")
    if arguments.shape and (len(arguments.shape) > 1 or len(arguments.shape[0]) != 2):
        arguments.refuse("argument --shape: wanted N,K, once, with --break-even; --batch gives the rows")
    quick = arguments.quick
    shape = tuple(arguments.shape[0]) if arguments.shape else break_even.QUICK_SHAPE if quick else break_even.SHAPE
    for m in arguments.batch or ():
        try:
            shapes.Shape.parse(f"{m},{shape[0]},{shape[1]}")
        except ValueError as error:  # more than this machine's memory
            arguments.refuse(f"argument --batch: {error}")
    for path, option in ((arguments.plot, "--plot"), (arguments.json, "--json")):
        if path not in (None, "-"):
            _check_writable(path, f"choose another file with {option} FILE")
    if arguments.plot and (refusal := picture.refuse(arguments.plot)):
        raise RuntimeError(refusal)
    threads = arguments.threads or tuple(dict.fromkeys((1, ec.info()["machine"]["cores"])))
    sparsities = break_even.QUICK_SPARSITIES if quick else break_even.SPARSITIES
    patterns = break_even.QUICK_PATTERNS if quick else break_even.PATTERNS
    batches = arguments.batch or break_even.BATCHES
    with report.Progress(break_even.steps(batches, threads, sparsities, patterns)) as progress:
        found = break_even.measure_break_even(
            shape, batches, threads, sparsities=sparsities, patterns=patterns, after_slice=progress.advance
        )
    if arguments.json:
        _write_json({"machine": report.fingerprint(), "break_even": found.to_json()}, arguments.json)
    if arguments.plot:
        break_even.draw(found, arguments.plot)
        print(f"written: {os.path.abspath(arguments.plot)}", file=sys.stderr)
    if arguments.json == "-":
        return
    for t in threads:
        where = f"({shape[0]},{shape[1]}), {t} thread{'s' if t > 1 else ''}"
        report.print_table(f"Speed against dense float32, {where}", *break_even.speed_table(found, t))
        report.print_table(f"Faster than the dense weight from so many zeros on, {where}", *break_even.wins_table(found, t))


def _demo(arguments: argparse.Namespace) -> None:
    from edgecomp import demo, demo_picture
    from edgecomp.measure import picture as measure_picture

    picture = None if arguments.no_picture else arguments.picture or demo_picture.DEFAULT
    refusal = measure_picture.refuse(picture) if picture else ""
    if refusal and arguments.picture:
        raise RuntimeError(refusal)
    if refusal:
        picture = None
    if picture:
        _check_writable(picture, "choose another file with --picture FILE, or --no-picture")
    if arguments.json not in (None, "-"):
        _check_writable(arguments.json, "choose another file with --json FILE")

    result = demo.run(seed=arguments.seed, threads=arguments.threads)
    if arguments.json:
        _write_json(result.to_json(), arguments.json)
    if arguments.json != "-":
        demo.show(result)
    if picture:
        demo_picture.draw(result, picture)
        print(f"written: {os.path.abspath(picture)}", file=sys.stderr)
    if refusal:
        print(f"no picture: {refusal}", file=sys.stderr)


def _check_writable(path: str, advice: str) -> None:
    """A file that cannot be written fails now, not after the work. Leaves no empty file behind."""
    there = os.path.lexists(path)
    try:
        open(path, "ab").close()
    except OSError as error:
        raise OSError(f"cannot write {os.path.abspath(path)} ({error.strerror}): {advice}") from None
    if not there:
        os.remove(path)


def _write_json(document: dict[str, Any], path: str) -> None:
    if path == "-":
        print(json.dumps(document, indent=2))
        return
    with open(path, "w", encoding="utf-8") as f:
        json.dump(document, f, indent=2)
        f.write("\n")
    print(f"written: {os.path.abspath(path)}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
