"""The commands about files: what is in a model file (`inspect`), checkpoints made into one (`import`), and out of one (`export`)."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

import edgecomp as ec
from edgecomp.grouped import GROUP_SIZES
from edgecomp.weights import Weight

INSPECT_EPILOG = """
examples:
  edgecomp inspect model.npz                   a line per tensor, totals, metadata; reads none of the weights
  edgecomp inspect model.npz --verify          and every CRC-32, and every value that kernels rely on
  edgecomp inspect model.npz --plot sizes.png  which layers take the bytes
"""
IMPORT_EPILOG = """
examples:
  edgecomp import model.gguf model.npz                             int4 and int8 blocks stay bit for bit what they are
  edgecomp import model.safetensors model.npz --bits 8             float matrices to int8, a scale for each output
  edgecomp import model.onnx model.npz --bits 4 --group-size 64    float matrices to int4
"""
LEAST = 16
"""Inputs and outputs that a matrix has at least to be worth quantising."""
SHOWN = 100
"""Characters shown of a metadata value."""


def add_commands(commands: Any) -> None:
    """Adds inspect, import and export to the parser's commands."""
    raw = argparse.RawDescriptionHelpFormatter
    inspect = commands.add_parser(
        "inspect",
        help="what a model file holds: tensors, sizes, metadata",
        description="Shows what a model file of edgecomp holds. A file that breaks a rule of the format is an error that names it.",
        epilog=INSPECT_EPILOG,
        formatter_class=raw,
    )
    inspect.add_argument("file", metavar="FILE")
    inspect.add_argument("--verify", action="store_true", help="read all of it: every CRC-32, and every value that kernels rely on")
    inspect.add_argument("--json", action="store_true", help="JSON on standard output instead of tables")
    inspect.add_argument("--plot", metavar="PNG", help="draw bytes by layer and kind into this file (png, svg or pdf)")
    inspect.set_defaults(run=_inspect)

    imported = commands.add_parser(
        "import",
        help="make a model file of a GGUF, safetensors, ONNX, .npz or torch.save file",
        description="Reads a checkpoint (GGUF, safetensors, ONNX, .npz, torch.save; a folder of safetensors files) and writes a model "
        "file of edgecomp. Weights that are int4 or int8 already stay bit for bit what they are.",
        epilog=IMPORT_EPILOG,
        formatter_class=raw,
    )
    imported.add_argument("source", metavar="SRC")
    imported.add_argument("destination", metavar="DST")
    imported.add_argument("--bits", type=int, choices=(4, 8), help=f"quantise float matrices of {LEAST} x {LEAST} and more (default: none)")
    imported.add_argument(
        "--group-size", type=_group_size, metavar="G", help="inputs that share a scale, 16 to 256 (default: 32 for 4 bits, all for 8)"
    )
    imported.add_argument("--refuse", action="store_true", help="fail where a quantised tensor has no equal, instead of making it float32")
    imported.set_defaults(run=_import, refused=imported.error)

    export = commands.add_parser(
        "export",
        help="write a model file or a checkpoint as safetensors, dequantised",
        description="Writes a model file of edgecomp, or any checkpoint that `import` reads, as one safetensors file: quantised and sparse "
        "weights as float32.",
    )
    export.add_argument("source", metavar="SRC")
    export.add_argument("destination", metavar="DST.safetensors")
    export.set_defaults(run=_export)


def _group_size(text: str) -> int:
    if not text.isdecimal() or int(text) not in GROUP_SIZES:
        raise argparse.ArgumentTypeError(f"{text!r}: wanted a multiple of 16 from 16 to 256")
    return int(text)


def _inspect(arguments: argparse.Namespace) -> None:
    from edgecomp import model_picture
    from edgecomp.measure.picture import refuse

    refusal = refuse(arguments.plot) if arguments.plot else ""
    if refusal:
        raise RuntimeError(refusal)
    found = ec.inspect(arguments.file, verify="full" if arguments.verify else "structure")
    if arguments.json:
        print(json.dumps({**found, "verified": arguments.verify}, indent=2))
    else:
        _show(found, arguments.verify)
    if arguments.plot:
        model_picture.draw({**found, "tensors": {_plain(name): t for name, t in found["tensors"].items()}}, arguments.plot)
        print(f"written: {os.path.abspath(arguments.plot)}", file=sys.stderr)


def _show(found: dict[str, Any], verified: bool) -> None:
    from edgecomp.measure.report import percent, print_table

    tensors = found["tensors"]
    lines = [
        [
            _plain(name),
            t["kind"] if t["kind"] != "array" else t["dtype"],
            "x".join(map(str, t["shape"])) or "scalar",
            str(t["bits"]),
            percent(t["density"]) if t["density"] != 1 else "",
            f"{t['bytes']:,}",
            t["layout"],
        ]
        for name, t in tensors.items()
    ]
    title = f"{_plain(found['path'])}: format {found['version']}, {len(tensors)} tensors"
    print_table(title, ["tensor", "kind", "shape", "bits", "density", "bytes", "layout"], lines)
    print_table("Totals", ["kind", "tensors", "values", "bytes", "share", "bits a value"], _totals(found))
    if found["metadata"]:
        print_table("Metadata", ["", ""], [[_plain(key), _plain(_brief(value))] for key, value in found["metadata"].items()])
    if verified:
        print("verified: every CRC-32, and every value that kernels rely on")


def _totals(found: dict[str, Any]) -> list[list[str]]:
    """A line for each kind, and one for all."""
    sums: dict[str, list[int]] = {}
    for t in found["tensors"].values():
        for kind in (t["kind"] if t["kind"] != "array" else f"array {t['dtype']}", "all"):
            count = sums.setdefault(kind, [0, 0, 0])
            count[:] = count[0] + 1, count[1] + int(np.prod(t["shape"], dtype=object)), count[2] + t["bytes"]
    everything = sums.pop("all", [0, 0, 0])
    return [
        [
            kind,
            str(n),
            f"{values:,}",
            f"{size:,}",
            f"{100 * size / (everything[2] or 1):.1f}%",
            f"{8 * size / values:.2f}" if values else "",
        ]
        for kind, (n, values, size) in [*sorted(sums.items(), key=lambda item: -item[1][2]), ("all", everything)]
    ]


def _brief(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}... ({len(text)} characters)"


def _plain(text: str) -> str:
    """Text from a file without what would steer a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _import(arguments: argparse.Namespace) -> None:
    from edgecomp.measure.report import Progress
    from edgecomp.readers import import_weights, kind_of

    if arguments.group_size is not None and arguments.bits is None:
        arguments.refused("--group-size is for --bits")
    kind = kind_of(arguments.source)
    options = {"other": "refuse"} if arguments.refuse and kind in ("gguf", "onnx") else {}
    with _with_parsers():
        tensors = import_weights(arguments.source, **options)
    kept = size = 0
    with ec.ModelWriter(arguments.destination, tensors.metadata) as writer, Progress(len(tensors), "importing") as progress:
        for name, value in tensors.items():
            try:
                tensor = _quantized(value, arguments.bits, arguments.group_size) if arguments.bits else value
                writer.add(name, tensor)
            except (TypeError, ValueError) as error:
                raise ValueError(f"{arguments.source}: {name}: {error}") from error
            kept += isinstance(tensor, Weight)
            size += tensor.nbytes
            progress.advance()
    said = f"{len(tensors)} tensors of {kind}, {kept} quantised, {size:,} bytes"
    print(f"written: {os.path.abspath(arguments.destination)}: {said}", file=sys.stderr)


def _quantized(value: Any, bits: int, group_size: int | None) -> Any:
    """A finite float matrix of at least LEAST x LEAST as a weight; all else as it is."""
    if not isinstance(value, np.ndarray) or value.ndim != 2 or value.dtype.kind != "f" or min(value.shape) < LEAST:
        return value
    if not np.isfinite(value).all():
        return value
    return ec.quantize(value, bits, group_size="default" if group_size is None else group_size)


def _export(arguments: argparse.Namespace) -> None:
    from edgecomp.readers import convert, import_weights, kind_of

    with _with_parsers():
        tensors = ec.load(arguments.source) if kind_of(arguments.source) == "model" else import_weights(arguments.source)
        convert.export_safetensors(tensors, arguments.destination)
    print(f"written: {os.path.abspath(arguments.destination)}", file=sys.stderr)


@contextlib.contextmanager
def _with_parsers() -> Iterator[None]:
    """A parser that is missing is a message, not a traceback."""
    try:
        yield
    except ImportError as error:
        raise RuntimeError(str(error)) from error
