"""The thread pool: limits, many callers, forks, signals and the end of the process."""

import signal
import subprocess
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from cases import assert_bits
from child import command, environment, run_python

import edgecomp as ec

M, N, K = 96, 512, 768  # enough work to be handed out
rng = np.random.default_rng(11)
X, W, BIAS = (rng.standard_normal(shape).astype(np.float32) for shape in ((M, K), (N, K), N))
INT8, PACKED = ec.quantize(W), ec.pack(W)

OPS = {
    "int8": lambda x, **o: ec.linear(x, INT8, BIAS, activation="relu", **o),
    "int8 rows": lambda x, **o: ec.linear(ec.quantize_rows(x, **o), INT8, BIAS, **o),
    "int8 output": lambda x, **o: ec.linear(x, INT8, BIAS, out_dtype="int8", out_scale=0.5, **o),
    "int8 as float": lambda x, **o: ec.linear(x, INT8, BIAS, compute="float32", **o),
    "packed": lambda x, **o: ec.linear(x, PACKED, BIAS, activation="gelu", **o),
    "plain": lambda x, **o: ec.linear(x, W, BIAS, **o),
    "matmul_int8": lambda x, **o: ec.matmul_int8(x.astype(np.int8), INT8, **o),
    "quantize_rows": lambda x, **o: ec.quantize_rows(x, **o).q,
}

SETUP = """
    import os, sys, time
    import numpy as np, edgecomp as ec

    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((256, 1024)).astype(np.float32), ec.quantize(rng.standard_normal((1024, 1024)).astype(np.float32))
    y = ec.linear(x, w, threads=1)
    same = lambda: np.array_equal(ec.linear(x, w, threads=4), y)
    workers = lambda: len(os.listdir("/proc/self/task")) - 1
"""


def script(code):
    return textwrap.dedent(SETUP) + textwrap.dedent(code)


def run(code, **options):
    """What `code` prints after SETUP, in a process of its own."""
    return run_python(script(code), **options)


@pytest.mark.parametrize("op", OPS)
def test_every_number_of_threads_gives_the_same_bits(impl, op):
    for rows in (1, 7, M):
        wanted = OPS[op](X[:rows], threads=1)
        for threads in (2, 3, 7, 64, None):
            assert_bits(OPS[op](X[:rows], threads=threads), wanted, threads)


@pytest.mark.parametrize("op", OPS)
def test_sixteen_callers(impl, op):
    """A busy pool runs the call on its caller."""
    inputs = [X[i : i + 33 + i] for i in range(16)]
    wanted = [OPS[op](x, threads=1) for x in inputs]
    with ThreadPoolExecutor(16) as executor:
        for results in [executor.map(OPS[op], inputs) for _ in range(3)]:
            for got, y in zip(results, wanted, strict=True):
                assert_bits(got, y)


def test_callers_with_limits_of_their_own():
    start = threading.Barrier(16)

    def call(n):
        with ec.threads(n):
            start.wait()
            seen = {ec.get_num_threads() for _ in range(50)}
            return seen == {n}, OPS["int8"](X)

    with ThreadPoolExecutor(16) as executor:
        results = list(executor.map(call, range(1, 17)))
    assert all(own for own, _ in results)
    for _, y in results:
        assert_bits(y, OPS["int8"](X, threads=1))


def test_one_context_in_several_threads():
    context, inside = ec.threads(3), threading.Event()

    def other():
        with ec.threads(7):
            with context:
                inside.set()
                assert left.wait(60)
            return ec.get_num_threads()

    left = threading.Event()
    before = ec.get_num_threads()
    with ThreadPoolExecutor(1) as executor:
        with context:
            found = executor.submit(other)
            assert inside.wait(60)
        assert ec.get_num_threads() == before
        left.set()
        assert found.result() == 7


def test_limits(c):
    ec.set_num_threads(5)
    assert ec.get_num_threads() == 5
    with ec.threads(3) as context:
        assert ec.get_num_threads() == 3
        with ec.threads(7):
            assert ec.get_num_threads() == 7
            with context:  # a context may be used again, and inside itself
                assert ec.get_num_threads() == 3
            ec.set_num_threads(6)  # of the process: seen outside
            assert ec.get_num_threads() == 7
        assert ec.get_num_threads() == 3
        with ThreadPoolExecutor(1) as executor:
            assert executor.submit(ec.get_num_threads).result() == 6
    assert ec.get_num_threads() == 6
    with pytest.raises(KeyError), ec.threads(2):
        raise KeyError
    assert ec.get_num_threads() == 6
    ec.set_num_threads(None)
    assert ec.get_num_threads() == ec.info()["threads"] >= 1


def test_explain_says_how_many(impl):
    for threads in (1, 2, 16):
        for w in (INT8, PACKED, W):
            assert 1 <= ec.explain(X, w, threads=threads).threads <= threads
            assert ec.explain(X[:1, :1], w[:, :1] if w is W else ec.quantize(W[:, :1]), threads=threads).threads == 1
    with ec.threads(1):
        assert ec.explain(X, INT8).threads == 1


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({"EDGECOMP_NUM_THREADS": "3", "OMP_NUM_THREADS": "2"}, 3),
        ({"EDGECOMP_NUM_THREADS": " 4 "}, 4),
        ({"EDGECOMP_NUM_THREADS": "", "OMP_NUM_THREADS": "7,2"}, 7),
        ({"OMP_NUM_THREADS": "nonsense"}, None),
        ({}, None),
    ],
)
def test_environment(c, variables, wanted):
    code = "import edgecomp as ec; print(ec.get_num_threads(), ec.info()['threads'], ec.info()['machine']['cores'])"
    got, said, cores = map(int, run_python(code, **variables).split())
    assert got == said == (wanted or cores)


def test_affinity_is_the_default(c):
    code = "import os, edgecomp as ec; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); print(ec.get_num_threads())"
    assert run_python(code) == "1"


def test_a_limit_of_one_starts_no_thread(c):
    assert run("ec.linear(x, w)\nprint(workers())", EDGECOMP_NUM_THREADS="1") == "0"
    assert run("with ec.threads(1): ec.linear(x, w)\nprint(workers())", EDGECOMP_NUM_THREADS="4") == "0"


def test_workers_leave_signals_to_the_program(c):
    code = """
    assert same()
    blocked = []
    for task in os.listdir("/proc/self/task"):
        if int(task) != os.getpid():
            status = open(f"/proc/self/task/{task}/status").read()
            blocked.append(int(status.split("SigBlk:")[1].split()[0], 16))
    print(0 < len(blocked) <= 3 or ec.info()["machine"]["cores"] == 1)
    print(all(mask >> signal - 1 & 1 for mask in blocked for signal in (1, 2, 3, 10, 14, 15, 17)))
    """
    assert run(code) == "True\nTrue"


def test_forked_children_compute(c):
    """Eight children of a process whose pool is in use, each with a pool of its own."""
    code = """
    import multiprocessing, warnings
    warnings.simplefilter("ignore")  # Python 3.12 warns of any fork beside threads

    def child(i, results):
        good = all(same() for _ in range(5))
        results.put((i, good and (workers() > 0 or ec.info()["machine"]["cores"] == 1)))

    assert same()
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    children = [context.Process(target=child, args=(i, results)) for i in range(8)]
    for process in children:
        process.start()
        assert same()
    print(sorted(results.get(timeout=50) for _ in children) == [(i, True) for i in range(8)])
    for process in children:
        process.join(50)
    print([process.exitcode for process in children], same())
    """
    assert run(code) == f"True\n{[0] * 8} True"


def test_a_fork_while_another_thread_computes(c):
    """The child's pool is not busy, and its parent's goes on."""
    code = """
    import threading, warnings
    warnings.simplefilter("ignore")
    stop = threading.Event()

    def keep_busy():
        while not stop.is_set():
            same()

    thread = threading.Thread(target=keep_busy)
    thread.start()
    good = 0
    for _ in range(20):
        pid = os.fork()
        if pid == 0:
            os._exit(0 if same() else 1)
        good += os.waitpid(pid, 0)[1] == 0
    stop.set()
    thread.join()
    print(good, same())
    """
    assert run(code) == "20 True"


def test_keyboard_interrupt(c):
    """It is raised when the running call returns; the pool then works as before."""
    code = """
    import signal
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts its background jobs without
    x = np.ones((1024, 1024), np.float32)
    ec.set_backend("c", isa="scalar")
    try:
        print("ready", flush=True)
        while True:
            ec.linear(x, w, threads=2)
    except KeyboardInterrupt:
        x = x[:256]
        y = ec.linear(x, w, threads=1)
        print("interrupted", same(), flush=True)
    """
    with subprocess.Popen(command(script(code)), env=environment(), cwd="/", stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGINT)
            output, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, output) == (0, "interrupted True\n")


@pytest.mark.parametrize("leave", ["pass", "sys.exit(0)", "os._exit(0)", "raise SystemExit"])
def test_the_process_ends_with_the_pool_alive(c, leave):
    code = f"""
    import threading
    assert same()
    threading.Thread(target=lambda: [same() for _ in range(10**6)], daemon=True).start()
    time.sleep(0.05)
    same()
    {leave}
    """
    run(code, timeout=30)


def test_threadpoolctl(c):
    code = """
    import threadpoolctl
    ec.register_threadpoolctl()
    ec.register_threadpoolctl()
    find = lambda: [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "edgecomp"]
    (pool,) = find()
    print(pool["internal_api"], pool["prefix"], pool["num_threads"] == ec.get_num_threads(), pool["version"] == ec.__version__)
    ec.set_num_threads(4)
    with threadpoolctl.threadpool_limits(limits=2, user_api="edgecomp"):
        print(ec.get_num_threads(), find()[0]["num_threads"], same())
    with threadpoolctl.threadpool_limits(limits=1):
        print(ec.get_num_threads())
    print(ec.get_num_threads())
    """
    assert run(code).split() == ["edgecomp", "_edgecomp_c", "True", "True", "2", "2", "True", "1", "4"]


def test_threadpoolctl_imported_first(c):
    code = """
    import threadpoolctl, edgecomp
    print([pool["user_api"] for pool in threadpoolctl.threadpool_info()].count("edgecomp"))
    """
    assert run_python(code) == "1"
