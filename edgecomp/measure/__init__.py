"""Measure speed against this machine: what `edgecomp bench` runs, usable from your own scripts.

    from edgecomp import measure
    roof = measure.measure_roof(threads=(1, 2))          # the peaks of this machine, in a few seconds
    call = measure.candidate("linear_int8", measure.Shape(512, 4096, 4096), threads=1)
    (timing,) = measure.interleave([call])               # median seconds of a call, and its share of the peak

Every share is taken against a peak measured right before and after, never against a data sheet. Needs the compiled
kernels, whose loops find the peaks; importing it does not.
"""

from edgecomp.measure.candidates import OPS, candidate, compare, numpy_threads
from edgecomp.measure.roof import NoCompiledKernels, Peak, Probe, Roof, measure_roof
from edgecomp.measure.shapes import Shape
from edgecomp.measure.timing import Candidate, Timing, interleave, rotating

__all__ = [
    "OPS",
    "Candidate",
    "NoCompiledKernels",
    "Peak",
    "Probe",
    "Roof",
    "Shape",
    "Timing",
    "candidate",
    "compare",
    "interleave",
    "measure_roof",
    "numpy_threads",
    "rotating",
]
