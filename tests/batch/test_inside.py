"""What was not handled in a kernel is reported: threads, tasks, pools and processes that died while the cells
continued.

The kernel's extension is loaded into a Python of its own here, which takes a fraction of a kernel's start.
"""

import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from deepnet_edu.course.places import ROOT

PRELUDE = """
import asyncio, concurrent.futures as futures, gc, json, multiprocessing, sys, threading, types, _thread
from deepnet_edu.batch import inside
shell = types.SimpleNamespace()
inside.load_ipython_extension(shell)
def bad(*_):
    raise RuntimeError("lost")
async def abad():
    bad()
class Own(threading.Thread):
    run = bad
def run(thread):
    thread.start()
    thread.join()
"""
#: What is said, by what happens.
TOLD = {
    "run(threading.Thread(target=bad, name='loader'))": "the thread loader raised RuntimeError: lost",
    "run(Own(name='mine', daemon=True))": "the thread mine raised RuntimeError: lost",
    "run(threading.Timer(0, bad))": "raised RuntimeError: lost",
    "run(threading.Thread(target=len, name='built in'))": "the thread built in raised TypeError: len() takes exactly",
    "_thread.start_new_thread(bad, ()); __import__('time').sleep(0.3)": "a thread raised RuntimeError: lost",
    "futures.wait([futures.ThreadPoolExecutor().submit(bad)])": "a pool raised RuntimeError: lost, and nothing asked",
    "with futures.ThreadPoolExecutor() as pool: futures.wait([pool.submit(bad)])": "work in a pool raised",
    "from multiprocessing.pool import ThreadPool; ThreadPool(1).apply_async(bad).wait()": "work in a pool raised",
    "run(multiprocessing.get_context('fork').Process(target=bad, name='child'))": "the process child ended with exit",
    "async def main(): global t; t = asyncio.create_task(abad()); await asyncio.sleep(0.01)\nasyncio.run(main())": (
        "the asyncio task abad raised RuntimeError: lost, and nothing awaited it"
    ),
    "async def main(): asyncio.create_task(abad()); await asyncio.sleep(0.01); gc.collect()\nasyncio.run(main())": (
        "the asyncio task abad raised RuntimeError: lost"
    ),
    "async def main(): asyncio.get_running_loop().call_soon(bad); await asyncio.sleep(0.01)\nasyncio.run(main())": (
        "a callback of asyncio raised RuntimeError: lost"
    ),
    "import os; os.environ[inside.GPU] = '0, H'; torch = types.ModuleType('torch'); sys.modules['torch'] = torch\n"
    "torch.version = types.SimpleNamespace(cuda=None)\n"
    "torch.cuda = types.SimpleNamespace(is_available=lambda: False, is_initialized=lambda: False)": (
        "it fell back to the CPU: PyTorch, which is built without CUDA, cannot use its GPU (0, H)"
    ),
}
FINE = [
    "run(threading.Thread(target=len, args=('',)))",
    "run(threading.Thread(target=sys.exit))",
    "try: futures.ThreadPoolExecutor().submit(bad).result()\nexcept RuntimeError: pass",
    "print(futures.ThreadPoolExecutor().submit(bad).exception(), file=sys.stderr)",
    "futures.Future().cancel()",
    "from multiprocessing.pool import ThreadPool\ntry: ThreadPool(1).map(bad, [1])\nexcept RuntimeError: pass",
    "from multiprocessing.pool import ThreadPool; ThreadPool(1).apply_async(bad, error_callback=print).wait()",
    "p = multiprocessing.get_context('fork').Process(target=bad); run(p); assert p.exitcode == 1",
    "p = multiprocessing.get_context('fork').Process(target=len, args=('',)); run(p)",
    "async def main(): await asyncio.gather(abad(), return_exceptions=True)\nasyncio.run(main())",
    "async def main():\n    t = asyncio.create_task(abad())\n    try: await t\n    except RuntimeError: pass\n"
    "asyncio.run(main())",
    "async def main():\n    loop = asyncio.get_running_loop()\n    try: await loop.run_in_executor(None, bad)\n"
    "    except RuntimeError: pass\nasyncio.run(main())",
    "async def main(): t = asyncio.create_task(asyncio.sleep(9)); await asyncio.sleep(0); t.cancel()\n"
    "asyncio.run(main())",
    "class Gone: __del__ = bad\nGone()",
]


def told(*cells: str) -> list[list[str]]:
    """What each of several programs leaves behind, one after the other in a process each is forked from."""
    program = f"""{PRELUDE}
import os
for cell in json.loads(sys.stdin.read()):
    read, write = os.pipe()
    if os.fork() == 0:
        try:
            exec(cell, globals())
            os.write(write, json.dumps(shell.deepnet_edu_end()["faults"]).encode())
        except BaseException as error:
            os.write(write, json.dumps([repr(error)]).encode())
        os._exit(0)
    os.close(write)
    print(os.fdopen(read).read(), flush=True)
    os.wait()
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(cells),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
        check=True,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("[")]
    assert len(lines) == len(cells), done.stderr
    return [json.loads(line) for line in lines]


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_what_died_unseen_is_told_and_what_was_handled_is_not() -> None:
    found = told(*TOLD, *FINE)
    for (cell, said), faults in zip(TOLD.items(), found, strict=False):
        assert [said in one for one in faults] == [True], (cell, faults)
    assert dict(zip(FINE, found[len(TOLD) :], strict=True)) == {cell: [] for cell in FINE}


def test_what_a_data_set_left_out_is_told_once_whatever_becomes_of_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    from deepnet_edu.batch import inside
    from deepnet_edu.data import BytePairs, Translations, left_out

    monkeypatch.setattr(left_out, "SAID", [])
    assert inside.end()["notes"] == []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(2):
            Translations([("a", "b"), ("c", "d" * 9), ("e", "f")], BytePairs(), max_length=5)
    assert inside.end()["notes"] == ["1 of 3 pairs have more tokens than max_length=5 and were left out."]


def test_the_kernels_own_tasks_alarm_nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from deepnet_edu.batch import inside

    def error(*files: str) -> BaseException:
        """An exception that passed through functions in these files."""
        source, names = "def f(): raise OSError('gone')\n", {}
        for file in reversed(files):
            exec(compile(source, file, "exec"), names)
            names["g"] = names["f"]
            source = "def f(g=g): g()\n"
        with pytest.raises(OSError, match="gone") as raised:
            names["f"]()
        found = raised.value
        assert found.__traceback__ is not None
        return found.with_traceback(found.__traceback__.tb_next)  # without this file's frame

    library = inside._STDLIB[0]
    kernels = f"{library}/site-packages/ipykernel/iostream.py"
    assert inside._is_the_kernels(error(f"{library}/asyncio/events.py", kernels))
    assert not inside._is_the_kernels(error(f"{library}/asyncio/events.py"))
    assert not inside._is_the_kernels(error(f"{library}/asyncio/events.py", "/tmp/ipykernel_7/1.py", kernels))
    assert not inside._is_the_kernels(OSError("never raised"))
