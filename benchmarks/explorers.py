"""How quickly explorers answer a slider, in JupyterLab in Chromium; writes results/explorers.json.

Beside them, in the same run, the two ways that people use most: ``interactive_output`` with a figure drawn again as an
inline PNG, of one panel and of the signal explorer's own four; and the floor, two pictures made beforehand. A move is
an arrow key on a slider's handle, or what that does to an explorer's slider; it has been answered when the new picture
is in the page, decoded, and the browser is about to paint it.

Run with: python benchmarks/explorers.py (about six minutes; needs Chromium)
"""

import argparse
import json
import platform
import shutil
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client import BlockingKernelClient

sys.path.insert(0, str(Path(__file__).parents[1]))
from deepnet_edu.explorers import EXPLORERS
from deepnet_edu.files import write_atomic
from tests.browser.conftest import CHROMIUM, LAB, WINDOW, chromium, served

RESULTS = Path(__file__).parent / "results" / "explorers.json"
MEDIAN_MS, P95_MS, FIRST_MS, MEASURED_S, GROWTH_MB = 60, 110, 300, 2.0, 20
HELD_S, REPEAT_MS = 5, 33

BASELINE = """import ipywidgets, matplotlib.pyplot as plt, numpy as np
from IPython.display import display
%matplotlib inline
from deepnet_edu import predict
from deepnet_edu.explorers.settings import TOKENS, by_layer, decoder
def draw(depth, panels={panels}):
    found = by_layer(predict(decoder("deepnorm", depth), TOKENS))
    figure, axes = plt.subplots(1 if panels == 1 else 2, 1 if panels == 1 else 2, figsize=(8.2, 5.6), squeeze=False)
    for ax, name in zip(axes.flat, ("variance", "gradient", "token_similarity", "input_share")):
        ax.plot(found["layer"], found[name])
        ax.set(xlim=(0, 2000), xlabel="layer", ylabel=name, title=f"{{depth:,}} layers")
    plt.show()
slider = ipywidgets.IntSlider(1000, 900, 1100)
out = ipywidgets.interactive_output(draw, {{"depth": slider}})
box = ipywidgets.VBox([slider, out])
box.add_class("baseline-{panels}")
box"""

#: A slider and two pictures made beforehand: what the way through JupyterLab and the browser takes by itself.
FLOOR = """floor_slider = ipywidgets.IntSlider(50, readout=False)
pictures = []
for depth in (1000, 989):
    made["signal"].put(depth=depth)
    pictures.append(made["signal"].figure.still(made["signal"]._view))
made["signal"].put(depth=1000)
floor_image = ipywidgets.Image(format="png", value=pictures[0])
floor_slider.observe(lambda change: setattr(floor_image, "value", pictures[change["new"] % 2]), "value")
floor = ipywidgets.VBox([floor_slider, floor_image])
floor.add_class("floor")
floor"""

#: In the page: n moves of the handle, each awaited until its picture is decoded and the next frame comes, in ms.
MOVES = """async ([box, n]) => {
    const own = box.querySelector('.picture');
    const handle = box.querySelector(own ? 'input[type=range]:not([disabled])' : '.noUi-handle');
    const picture = () => own ? own.dataset.drawn : box.querySelector('img')?.src;
    const frame = () => new Promise(done => requestAnimationFrame(done));
    const times = [];
    for (let i = 0; i < n; i++) {
        const before = picture();
        const begin = performance.now();
        await new Promise((done, fail) => {
            const late = setTimeout(() => fail(new Error('no new picture')), 10000);
            const watch = new MutationObserver(() => {
                if (!picture() || picture() === before) return;
                watch.disconnect();
                clearTimeout(late);
                done();
            });
            watch.observe(box, {subtree: true, childList: true, attributes: true,
                attributeFilter: ['src', 'data-drawn']});
            if (own) {
                handle.value = Number(handle.value) + (i % 2 ? 1 : -1);
                handle.dispatchEvent(new InputEvent('input', {bubbles: true}));
            } else {
                const key = i % 2 ? 'ArrowRight' : 'ArrowLeft';
                handle.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true}));
            }
        });
        await box.querySelector('img')?.decode();
        await frame();
        times.push(performance.now() - begin);
        await new Promise(done => setTimeout(done, 60));
    }
    return times;
}"""
HOLD = """async ([box, label, ms, every]) => {
    const handle = [...box.querySelectorAll('input[type=range]')].find(one => one.labels[0].textContent === label);
    const begin = performance.now();
    while (performance.now() - begin < ms) {
        handle.value = Number(handle.value) - 1;
        handle.dispatchEvent(new InputEvent('input', {bubbles: true}));
        await new Promise(done => setTimeout(done, every));
    }
}"""
#: In the page: ms from choosing the last option of the first list to its picture.
CHOOSE = """async box => {
    const list = box.querySelector('select'), picture = box.querySelector('.picture');
    const begin = performance.now();
    list.selectedIndex = list.options.length - 1;
    const drawn = new Promise(done => new MutationObserver(done).observe(picture, {attributeFilter: ['data-drawn']}));
    list.dispatchEvent(new Event('change', {bubbles: true}));
    await drawn;
    await new Promise(done => requestAnimationFrame(done));
    return performance.now() - begin;
}"""


def notebook() -> Any:
    """Explorers at 1,000 layers, and the two baselines."""
    made = nbformat.v4.new_notebook()
    made.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    cells = ["import torch\ntorch.set_num_threads(1)\nfrom deepnet_edu.explorers import EXPLORERS\nmade = {}"]
    for name in EXPLORERS:
        arguments = "depth=1000" if name in ("map", "signal") else ""
        cells.append(f"made[{name!r}] = EXPLORERS[{name!r}]({arguments})\nmade[{name!r}]")
    cells += [BASELINE.format(panels=1), BASELINE.format(panels=4), FLOOR]
    made.cells = [nbformat.v4.new_code_cell(cell) for cell in cells]
    return made


class Kernel:
    """Asks the notebook's own kernel."""

    def __init__(self, runtime: Path) -> None:
        (self.file,) = runtime.glob("kernel-*.json")

    def __call__(self, expression: str) -> Any:
        """The value of a Python expression in it."""
        # Connected again each time: pictures that are not read would fill the queue.
        client = BlockingKernelClient(connection_file=str(self.file))
        client.load_connection_file()
        client.start_channels()
        client.wait_for_ready(timeout=60)
        said: list[str] = []

        def hook(message: dict[str, Any]) -> None:
            if message["msg_type"] == "stream":
                said.append(message["content"]["text"])

        client.execute_interactive(
            f"import json; print(json.dumps({expression}))", store_history=False, output_hook=hook, timeout=60
        )
        client.stop_channels()
        return json.loads("".join(said))


MEMORY = "[int(l.split()[1]) for l in open('/proc/self/status') if l.startswith('VmRSS')][0] / 1000"
THREADS = "[t.name for t in __import__('threading').enumerate() if t.name == 'deepnet_edu explorer']"


def summary(times: list[float]) -> dict[str, float]:
    """Median and 95th percentile, ms."""
    ordered = sorted(times)
    return {
        "median_ms": round(statistics.median(ordered), 1),
        "p95_ms": round(ordered[int(0.95 * len(ordered))], 1),
        "moves": len(ordered),
    }


def measured_after_a_move(page: Any, box: Any, ask: Kernel) -> list[float]:
    """Seconds from a move of α at 1,000 layers to the picture with its measured points."""
    ask("made['signal'].put(residual='deepnorm', depth=1000, constants='free')")
    ask("made['signal'].wait(60)")
    found = []
    for _ in range(8):
        begin = time.perf_counter()
        box.get_by_role("slider", name="α", exact=True).focus()
        page.keyboard.press("ArrowLeft")
        page.wait_for_function(
            "box => box.querySelector('.note').textContent.includes('not measured yet')", arg=box.element_handle()
        )
        page.wait_for_function(
            "box => box.querySelector('.note').textContent.includes('measured just now')", arg=box.element_handle()
        )
        found.append(time.perf_counter() - begin)
    return found


def held_key(page: Any, box: Any, ask: Kernel) -> dict[str, Any]:
    """α held down for five seconds: the picture, the threads, and where both ended."""
    page.evaluate(HOLD, [box.element_handle(), "α", 1000 * HELD_S, REPEAT_MS])
    page.wait_for_function(
        "box => box.querySelector('.note').textContent.includes('measured just now')",
        arg=box.element_handle(),
        timeout=30_000,
    )
    time.sleep(0.5)
    shown = box.locator(".title").text_content() or ""
    alpha = ask("made['signal'].alpha.value")
    return {"ends_on_last_value": f"α = {alpha:.3g}," in shown, "threads_left": ask(THREADS)}


def run(moves: int) -> dict[str, Any]:
    """Drive JupyterLab once."""
    folder = Path(tempfile.mkdtemp(prefix="explorers_"))
    workspace = folder / "workspace"
    try:
        with (
            served(["lab", "00", "--workspace", str(workspace)], LAB, folder) as url,
            chromium() as browser,
        ):
            page = browser.new_page(viewport=WINDOW)
            nbformat.write(notebook(), workspace / "bench.ipynb")
            page.goto(url.replace("00_a_thousand_layers", "bench"))
            page.get_by_text("Python 3").first.wait_for(timeout=60_000)
            page.get_by_role("menuitem", name="Run", exact=True).click()
            page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
            page.locator(".floor img").wait_for(timeout=120_000)
            time.sleep(3)
            ask = Kernel(folder / "runtime")
            boxes = {name: page.locator(".deepnet-edu-explorer").nth(i) for i, name in enumerate(EXPLORERS)}
            boxes |= {f"interactive_output, {n} panel{'s' * (n > 1)}": page.locator(f".baseline-{n}") for n in (1, 4)}
            boxes["floor: two pictures made beforehand"] = page.locator(".floor")
            result: dict[str, Any] = {"rows": {}}
            for name, box in boxes.items():
                box.scroll_into_view_if_needed()
                page.evaluate(MOVES, [box.element_handle(), 10])  # warm
                result["rows"][name] = summary(page.evaluate(MOVES, [box.element_handle(), moves]))
                print(f"{name:>35}: {result['rows'][name]}", flush=True)
            boxes["constants"].scroll_into_view_if_needed()
            result["encoder_decoder_first_ms"] = round(page.evaluate(CHOOSE, boxes["constants"].element_handle()))
            boxes["signal"].scroll_into_view_if_needed()
            times = measured_after_a_move(page, boxes["signal"], ask)
            result["measured_s"] = {"median": round(statistics.median(times), 2), "worst": round(max(times), 2)}
            result["held_key"] = held_key(page, boxes["signal"], ask)
            print(result["measured_s"], result["held_key"], flush=True)
            ask("made['signal'].put(constants='own')")
            for moves_made in (10, 500):  # the first ones make a model, which is kept
                before = ask(MEMORY)
                page.evaluate(MOVES.replace("60)", "5)"), [boxes["signal"].element_handle(), moves_made])
                ask("made['signal'].wait(60)")
            result["memory_mb"] = {"before": before, "after_500_moves": ask(MEMORY)}
            print(result["memory_mb"], flush=True)
            return result
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Measure, compare with the targets, and keep the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moves", type=int, default=100)
    arguments = parser.parse_args()
    if CHROMIUM is None:
        sys.exit("This benchmark needs Chromium: apt install chromium")
    result = run(arguments.moves)
    mine = {name: row for name, row in result["rows"].items() if name in EXPLORERS}
    result["targets_met"] = {
        f"median at most {MEDIAN_MS} ms": all(row["median_ms"] <= MEDIAN_MS for row in mine.values()),
        f"95th percentile at most {P95_MS} ms": all(row["p95_ms"] <= P95_MS for row in mine.values()),
        f"encoder-decoder's first picture within {FIRST_MS} ms": result["encoder_decoder_first_ms"] <= FIRST_MS,
        f"measured points within {MEASURED_S:g} s": result["measured_s"]["median"] <= MEASURED_S,
        "held key ends on the last value, no thread left": (
            result["held_key"]["ends_on_last_value"] and not result["held_key"]["threads_left"]
        ),
        f"memory grows by at most {GROWTH_MB} MB": (
            result["memory_mb"]["after_500_moves"] - result["memory_mb"]["before"] <= GROWTH_MB
        ),
    }
    record = {
        "what": "slider to redrawn picture at 1,000 layers, JupyterLab in Chromium",
        "command": "python benchmarks/explorers.py",
        "date": datetime.now(UTC).date().isoformat(),
        "device": "CPU",
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "matplotlib", "ipywidgets", "jupyterlab")},
        },
        **result,
    }
    write_atomic(RESULTS, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    for target, met in result["targets_met"].items():
        print(f"{'ok' if met else 'MISSED':>6}  {target}")


if __name__ == "__main__":
    main()
