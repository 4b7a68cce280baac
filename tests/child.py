"""Python processes of their own, for what one process can see only once: imports, the environment, signals, its end."""

import os
import subprocess
import sys
import textwrap

CLEAN = {k: v for k, v in os.environ.items() if not k.startswith(("EDGECOMP_", "OMP_", "OPENBLAS_"))}


def command(code: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(code)]


def environment(**variables: str) -> dict[str, str]:
    """Ours without what configures edgecomp, and with a NumPy that starts no threads."""
    return {**CLEAN, "OPENBLAS_NUM_THREADS": "1", **variables}


def run_python(code: str, *, timeout: float = 60, **variables: str) -> str:
    """What `code` prints. Fails if it does not exit with 0 in time. Runs away from the checkout, to import what is installed."""
    done = subprocess.run(
        command(code), env=environment(**variables), cwd="/", timeout=timeout, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout.strip()
