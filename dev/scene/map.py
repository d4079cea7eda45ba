"""Opens the page of `dinov3 scene map` in a browser and uses it as a person does.

    map.py --binary DINOV3 --sample SCENE.tif [--only chips,patches,...] [--keep FOLDER] [--screenshots FOLDER]

Chromium is driven by Playwright; the page comes from the disk (file://), and any request that leaves it is a failure. What
lights up is compared with numpy over the same quantised vectors, and what those cost with the f32 vectors of the Parquet
file. The last line counts what held.
"""

import argparse
import base64
import json
import pathlib
import re
import shutil
import sys
import tempfile
import time
import warnings

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import rasterio
from common import Checks, MODEL, add_arguments, embed, land, parse_only, run, vectors_of, write_scene
from playwright.sync_api import sync_playwright

# A JPEG lies nowhere.
warnings.filterwarnings("ignore", category=rasterio.errors.NotGeoreferencedWarning)

CLICK_LIMIT_MS = 100
KNOWN = ["chips", "overlap", "patches", "large", "vitl", "keyboard", "hostile"]


class Page:
    """What is in a page, read without a browser."""

    def __init__(self, path):
        self.path, self.html = path, path.read_text()
        self.head = json.loads(self.block("head"))
        count, dims = self.head["count"], self.head["dims"]
        numbers = base64.b64decode(self.block("numbers"))
        offset = 0

        def take(kind, *shape):
            nonlocal offset
            array = np.frombuffer(numbers, kind, int(np.prod(shape)), offset).reshape(shape)
            offset += array.nbytes
            return array

        self.corners = take("<f8", count, 4, 2)
        self.scales = take("<f4", count)
        self.windows = take("<i4", count, 4)
        self.shown = take("<i4", count, 4)
        self.colours = take("u1", count, 3)
        self.levels = take("i1", count, dims)
        assert offset == len(numbers)

    def block(self, name):
        return re.search(rf'id="{name}">(.*?)</script>', self.html, re.S).group(1)

    def ids(self):
        return [self.head["id_prefix"] + rest for rest in self.head["ids"]]

    def similarities(self, query):
        product = self.levels.astype(np.int64) @ self.levels[query].astype(np.int64)
        return product * self.scales.astype(np.float64) * np.float64(self.scales[query])

    def top(self, query, count, leave_out=()):
        scores = self.similarities(query)
        scores[[query, *leave_out]] = -np.inf
        return np.argsort(-scores, kind="stable")[:count], scores

    def touching(self, query):
        x, y, w, h = self.windows.T.astype(np.int64)
        qx, qy, qw, qh = self.windows[query].astype(np.int64)
        return np.flatnonzero((x <= qx + qw) & (qx <= x + w) & (y <= qy + qh) & (qy <= y + h))


class Browser:
    """A page that is open."""

    def __init__(self, chromium, check, path, **context):
        self.check = check
        self.context = chromium.new_context(accept_downloads=True, **context)
        self.page = self.context.new_page()
        self.requests, self.errors = [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda message: message.type in ("error", "warning") and self.errors.append(message.text))
        self.page.on("dialog", lambda dialog: (self.errors.append("a dialog"), dialog.dismiss()))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("html[data-ready=yes]")

    def close(self, what):
        outside = [url for url in self.requests if not url.startswith(("file:", "data:", "blob:"))]
        self.check(not outside and len([url for url in self.requests if url.startswith("file:")]) == 1,
                   f"{what}: the page asked for {self.requests}")
        self.check(not self.errors, f"{what}: {self.errors}")
        self.context.close()

    def listed(self):
        """Cells and similarities of the list, best first."""
        return self.page.eval_on_selector_all(
            "#list button", "all => all.map(b => [Number(b.dataset.cell), Number(b.dataset.similarity)])")

    def place_of(self, page, cell):
        """Where the middle of a cell's painted part is on the screen."""
        box = self.page.locator("#world").bounding_box()
        x, y, w, h = page.shown[cell]
        return (box["x"] + (x + w / 2) / page.head["width_px"] * box["width"],
                box["y"] + (y + h / 2) / page.head["height_px"] * box["height"])

    def click(self, page, cell):
        """Clicks a cell; gives the milliseconds until the next frame was drawn."""
        self.page.evaluate("""() => { window.clicked = new Promise(done => addEventListener('pointerup', event => {
            const start = event.timeStamp;
            requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - start)));
        }, { once: true, capture: true })) }""")
        self.page.mouse.click(*self.place_of(page, cell))
        return self.page.evaluate("window.clicked")


def free_of_divider(browser, page, cells):
    """Those of the cells that the divider and the buttons do not cover."""
    boxes = [browser.page.locator(name).bounding_box() for name in ("#divider", ".zoom")]
    boxes = [box for box in boxes if box]
    inside = lambda x, y, box: box["x"] <= x <= box["x"] + box["width"] and box["y"] <= y <= box["y"] + box["height"]
    return [cell for cell in cells if not any(inside(*browser.place_of(page, cell), box) for box in boxes)]


def compare_clicks(check, browser, page, what, clicks=8):
    """Clicks some cells; what is listed is what numpy finds. Gives the cells."""
    times = []
    random = np.random.default_rng(3)
    cells = free_of_divider(browser, page, random.permutation(page.head["count"])[:3 * clicks].tolist())[:clicks]
    for cell in cells:
        times.append(browser.click(page, cell))
        wanted, scores = page.top(cell, 10)
        listed = browser.listed()
        check([place for place, _ in listed] == wanted.tolist(), f"{what}: {cell} gives {listed}, numpy {wanted}")
        check(np.array_equal([score for _, score in listed], scores[wanted]), f"{what}: similarities of {cell}")
    print(f"  {what}: {page.head['count']} places in {page.head['dims']} dimensions, page {page.path.stat().st_size / 1e6:.1f} MB, "
          f"recall@10 {page.head['recall']['mean']:.3f}, {len(cells)} clicks, until drawn: {np.median(times):.0f} ms, slowest {max(times):.0f}", flush=True)
    # Of a machine that does other things too, one click in eight may wait.
    check(sorted(times)[-2] <= CLICK_LIMIT_MS, f"{what}: clicks took {times}")
    return cells


def check_recall(check, page, ids, vectors, what):
    """The recall that the page tells is that of its vectors against f32."""
    exact = vectors.astype(np.float64)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    check(ids == page.ids(), f"{what}: ids")
    count, places = len(ids), page.head["recall"]["places"]
    found = []
    for query in (np.arange(places) * count // places).tolist():
        scores = exact @ exact[query]
        scores[query] = -np.inf
        wanted = set(np.argsort(-scores, kind="stable")[:10].tolist())
        found.append(len(wanted & set(page.top(query, 10)[0].tolist())) / min(10, count - 1))
    # Equal to f32's rounding: near the tenth place two may change.
    check(abs(np.mean(found) - page.head["recall"]["mean"]) < 0.004,
          f"{what}: recall {page.head['recall']['mean']}, numpy {np.mean(found)}")


def make(binary, folder, sample, name, embed_options=(), map_options=()):
    parquet, html = folder / f"{name}.parquet", folder / f"{name}.html"
    _, table = embed(binary, [sample], parquet, *embed_options)
    run([binary, "scene", "map", html, "--embeddings", parquet, *map_options])
    return Page(html), table


def chips(check, chromium, arguments, folder, shots):
    page, table = make(arguments.binary, folder, arguments.sample, "chips")
    check_recall(check, page, table["id"].to_pylist(), vectors_of(table), "chips")
    again = folder / "again.html"
    run([arguments.binary, "scene", "map", again, "--embeddings", folder / "chips.parquet"])
    check(again.read_bytes() == page.path.read_bytes(), "chips: the same command gives other bytes")
    # The picture is the scene: 2048 pixels of 2048, but for JPEG.
    jpeg = base64.b64decode(re.search(r'data:image/jpeg;base64,([^"]*)', page.html).group(1))
    with rasterio.open(arguments.sample) as scene, rasterio.MemoryFile(jpeg) as memory, memory.open() as picture:
        off = np.abs(scene.read().astype(int) - picture.read())
    check(off.mean() < 4, f"chips: the picture is off by {off.mean():.1f} levels")
    # A smaller one is made of means; from the file's own overviews, which GDAL would have made alike.
    run([arguments.binary, "scene", "map", again, "--embeddings", folder / "chips.parquet", "--overview", "300"])
    jpeg = base64.b64decode(re.search(r'data:image/jpeg;base64,([^"]*)', again.read_text()).group(1))
    with rasterio.open(arguments.sample) as scene, rasterio.MemoryFile(jpeg) as memory, memory.open() as picture:
        small = scene.read(out_shape=(3, 300, 300), resampling=rasterio.enums.Resampling.average).astype(int)
        off = np.abs(small - picture.read())
    check(off.mean() < 6, f"chips: the small picture is off by {off.mean():.1f} levels")
    browser = Browser(chromium, check, page.path, viewport={"width": 1440, "height": 900}, color_scheme="light")
    shots(browser, "light-start")
    # The slider, by hand.
    box = browser.page.locator("#divider").bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    clip = lambda: browser.page.evaluate("getComputedStyle(document.getElementById('features')).clipPath")
    before = clip()
    browser.page.mouse.move(*middle)
    browser.page.mouse.down()
    browser.page.mouse.move(middle[0] - 200, middle[1], steps=8)
    browser.page.mouse.up()
    check(clip() != before, "chips: the slider moves nothing")
    moved = browser.page.locator("#divider").bounding_box()
    check(abs(moved["x"] - box["x"] + 200) < 1.5, f"chips: the slider is at {moved}, was at {box}")
    check(browser.listed() == [], "chips: dragging chose a place")
    cells = compare_clicks(check, browser, page, "chips")
    shots(browser, "light-chosen")
    # Without neighbours, and more of them.
    browser.page.check("#apart")
    wanted, _ = page.top(cells[-1], 10, page.touching(cells[-1]))
    check([cell for cell, _ in browser.listed()] == wanted.tolist(), "chips: those that touch are not left out")
    browser.page.uncheck("#apart")
    browser.page.select_option("#count", "25")
    check([cell for cell, _ in browser.listed()] == page.top(cells[-1], 25)[0].tolist(), "chips: 25 of them")
    # The download: ids, and corners where PROJ has them (dev/scene/check.py compares the footprints of the same file).
    with browser.page.expect_download() as download:
        browser.page.click("#download")
    collection = json.loads(pathlib.Path(download.value.path()).read_text())
    ids = [feature["id"] for feature in collection["features"]]
    check(ids == [page.ids()[cell] for cell in [cells[-1], *page.top(cells[-1], 25)[0]]], "chips: ids of the download")
    boxes = {row["id"]: row["bbox"] for row in table.select(["id", "bbox"]).to_pylist()}
    for feature in collection["features"]:
        ring = np.array(feature["geometry"]["coordinates"][0])
        box = boxes[feature["id"]]
        wanted = [box["xmin"], box["ymin"], box["xmax"], box["ymax"]]
        check(np.allclose([*ring.min(0), *ring.max(0)], wanted, atol=1e-7), f"chips: {feature['id']} lies at {ring}")
        area = np.sum(ring[:-1, 0] * ring[1:, 1] - ring[1:, 0] * ring[:-1, 1])
        check(area > 0 and np.array_equal(ring[0], ring[-1]), f"chips: the ring of {feature['id']}")
    # What is copied.
    browser.page.click("#copy-id")
    browser.page.wait_for_selector("html[data-copied]")
    check(browser.page.evaluate("document.documentElement.dataset.copied") == ids[0], "chips: the id is not copied")
    # A chip of the list is chosen by a click.
    first = browser.listed()[0][0]
    browser.page.click("#list button >> nth=0")
    check([cell for cell, _ in browser.listed()] == page.top(first, 25)[0].tolist(), "chips: a click into the list")
    # The address leads back.
    address = browser.page.url
    browser.page.goto("about:blank")
    browser.page.goto(address)
    browser.page.wait_for_selector("html[data-ready=yes]")
    check([cell for cell, _ in browser.listed()] == page.top(first, 10)[0].tolist(), "chips: the address leads elsewhere")
    browser.requests[:] = browser.requests[:1]
    browser.close("chips")


def overlap(check, chromium, arguments, folder, shots):
    page, table = make(arguments.binary, folder, arguments.sample, "overlap", ["--chip", "128", "--stride", "64"])
    check_recall(check, page, table["id"].to_pylist(), vectors_of(table), "overlap")
    check(page.head["dims"] == 128 and page.head["recall"]["mean"] > 0.95, f"overlap: {page.head['recall']}")
    browser = Browser(chromium, check, page.path, viewport={"width": 1440, "height": 900}, color_scheme="dark")
    shots(browser, "dark-start")
    compare_clicks(check, browser, page, "overlap")
    shots(browser, "dark-chosen")
    # Closer, and moved by hand: a click still finds the place under it.
    for _ in range(3):
        browser.page.click("#zoom-in")
    box = browser.page.locator("#stage").bounding_box()
    start = (box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.4)
    before = browser.listed()
    browser.page.mouse.move(*start)
    browser.page.mouse.down()
    browser.page.mouse.move(start[0] + 60, start[1] + 40, steps=6)
    browser.page.mouse.up()
    check(browser.listed() == before, "overlap: moving the map chose a place")
    inside = [cell for cell in range(page.head["count"])
              if box["x"] + 60 < browser.place_of(page, cell)[0] < box["x"] + box["width"] - 80
              and box["y"] + 60 < browser.place_of(page, cell)[1] < box["y"] + box["height"] - 120]
    cell = free_of_divider(browser, page, inside)[3]
    browser.click(page, cell)
    check([found for found, _ in browser.listed()] == page.top(cell, 10)[0].tolist(), "overlap: a click into the closer map")
    shots(browser, "dark-close")
    browser.close("overlap")
    phone = Browser(chromium, check, page.path, viewport={"width": 390, "height": 844}, device_scale_factor=2,
                    has_touch=True, is_mobile=True, color_scheme="light")
    wide = phone.page.evaluate("document.documentElement.scrollWidth")
    check(wide <= 390, f"overlap: the page is {wide} px wide on a phone")
    cell = free_of_divider(phone, page, [page.head["count"] // 3 + 7])[0]
    phone.page.touchscreen.tap(*phone.place_of(page, cell))
    check([found for found, _ in phone.listed()] == page.top(cell, 10)[0].tolist(), "overlap: a tap")
    shots(phone, "phone", full_page=True)
    phone.close("overlap, phone")


def patches(check, chromium, arguments, folder, shots):
    """Every patch of the sample scene, 128 x 128, and the vectors that GDAL reads from the dense raster."""
    raster, html = folder / "patches.tif", folder / "patches.html"
    run([arguments.binary, "scene", "embed", "--dense", arguments.sample, *MODEL, "--dims", "all", "--no-picture", "-o", raster])
    run([arguments.binary, "scene", "map", html, "--embeddings", raster])
    page = Page(html)
    with rasterio.open(raster) as dataset:
        vectors = dataset.read().reshape(dataset.count, -1).T
    rows, columns = (axis.ravel() for axis in np.mgrid[0:128, 0:128])
    ids = [f"{arguments.sample}#xywh={16 * x},{16 * y},16,16" for x, y in zip(columns, rows)]
    check_recall(check, page, ids, vectors, "patches")
    browser = Browser(chromium, check, html, viewport={"width": 1440, "height": 900}, color_scheme="light")
    shots(browser, "patches-start")
    compare_clicks(check, browser, page, "patches")
    # A patch of the river, without its neighbours.
    browser.page.check("#apart")
    river = int(np.flatnonzero((page.windows[:, 0] == 16 * 40) & (page.windows[:, 1] == 16 * 52))[0])
    browser.click(page, river)
    wanted, _ = page.top(river, 10, page.touching(river))
    check([cell for cell, _ in browser.listed()] == wanted.tolist(), "patches: without neighbours")
    shots(browser, "patches-chosen")
    browser.page.check("input[value=features]", force=True)
    shots(browser, "patches-features")
    browser.close("patches")
    phone = Browser(chromium, check, html, viewport={"width": 390, "height": 844}, device_scale_factor=2, has_touch=True,
                    is_mobile=True, color_scheme="dark")
    check(river in free_of_divider(phone, page, [river]), "patches: the divider covers the river")
    phone.page.touchscreen.tap(*phone.place_of(page, river))
    shots(phone, "phone-patches")
    phone.close("patches, phone")


def large(check, chromium, arguments, folder, shots):
    """2048 x 2048 pixels at ViT-L: 16,384 places in 1024 dimensions, as chips of 16 pixels, whose vectors are made up."""
    path = folder / "large.parquet"
    run([arguments.binary, "scene", "embed", arguments.sample, *MODEL, "--chip", "16", "-o", folder / "some.parquet"])
    own = pq.read_table(folder / "some.parquet")
    random = np.random.default_rng(5)
    dims = 1024
    y, x = (own[axis].to_numpy() // 16 for axis in ("y_px", "x_px"))
    spectrum = random.normal(size=(dims, dims)) * (1 / np.sqrt(1 + np.arange(dims)))[:, None]
    smooth = np.stack([np.sin(x / random.uniform(2, 40) + y / random.uniform(2, 40) + random.uniform(0, 6)) for _ in range(dims)], 1)
    vectors = (smooth @ spectrum + 8 * random.normal(size=dims)).astype(np.float32)
    field = pa.field("element", pa.float32(), False)
    values = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), type=pa.list_(field, dims))
    table = own.set_column(own.schema.get_field_index("embedding"), pa.field("embedding", values.type, False), values)
    pq.write_table(table.replace_schema_metadata(own.schema.metadata), path)
    for name, options in (("large", []), ("large-full", ["--dims", "1024"])):
        html = folder / f"{name}.html"
        start = time.monotonic()
        run([arguments.binary, "scene", "map", html, arguments.sample, "--embeddings", path, *options])
        page = Page(html)
        print(f"  {name}: made in {time.monotonic() - start:.1f} s")
        check(html.stat().st_size <= 30e6, f"{name}: {html.stat().st_size} bytes")
        check_recall(check, page, table["id"].to_pylist(), vectors_of(table), name)
        browser = Browser(chromium, check, html, viewport={"width": 1440, "height": 900}, color_scheme="light")
        compare_clicks(check, browser, page, name)
        shots(browser, name)
        browser.close(name)
    refused = run([arguments.binary, "scene", "map", folder / "no.html", arguments.sample, "--embeddings", path,
                   "--max-page", "2MB"], codes=(1,))
    check("--max-page" in refused.stderr and not (folder / "no.html").exists(), f"large: {refused.stderr}")


def vitl(check, chromium, arguments, folder, shots):
    """2048 x 2048 pixels at ViT-L itself: its chips, and every patch."""
    model = ["-m", "vit_large_patch16_dinov3.sat493m", *MODEL[2:]]
    for name, options in (("chips.parquet", []), ("patches.tif", ["--dense", "--dims", "all", "--no-picture"])):
        vectors, html = folder / f"vitl-{name}", folder / f"vitl-{name}.html"
        start = time.monotonic()
        run([arguments.binary, "scene", "embed", arguments.sample, *model, *options, "-o", vectors])
        embedded = time.monotonic()
        run([arguments.binary, "scene", "map", html, "--embeddings", vectors])
        page = Page(html)
        print(f"  ViT-L, {name}: embedded in {embedded - start:.0f} s, mapped in {time.monotonic() - embedded:.1f} s")
        check(page.head["full_dims"] == 1024 and page.head["dims"] <= 128, f"ViT-L, {name}: {page.head['full_dims']}")
        check(html.stat().st_size <= 30e6, f"ViT-L, {name}: {html.stat().st_size} bytes")
        browser = Browser(chromium, check, html, viewport={"width": 1440, "height": 900}, color_scheme="light")
        compare_clicks(check, browser, page, f"ViT-L, {name}")
        shots(browser, f"vitl-{name}")
        browser.close(f"ViT-L, {name}")


def keyboard(check, chromium, arguments, folder, shots):
    page, _ = make(arguments.binary, folder, arguments.sample, "keyboard")
    browser = Browser(chromium, check, page.path, viewport={"width": 1200, "height": 800}, color_scheme="light")
    browser.page.focus("#stage")
    cell_at = lambda column, row: int(np.flatnonzero((page.windows[:, 0] == 256 * column) & (page.windows[:, 1] == 256 * row))[0])
    for key in ("ArrowRight", "Enter"):
        browser.page.keyboard.press(key)
    # The first arrow finds the middle: the first of the four around it.
    chosen = int(page.head["ids"].index(browser.page.url.split("#")[1].replace("%2C", ",")))
    check([cell for cell, _ in browser.listed()] == page.top(chosen, 10)[0].tolist(), "keyboard: Enter")
    column, row = page.windows[chosen][:2] // 256
    for key in ("ArrowLeft", "ArrowLeft", "ArrowDown", "Enter"):
        browser.page.keyboard.press(key)
    wanted = cell_at(column - 2, row + 1)
    check([cell for cell, _ in browser.listed()] == page.top(wanted, 10)[0].tolist(), "keyboard: arrows")
    shots(browser, "keyboard")
    browser.page.keyboard.press("Tab")
    check(browser.page.evaluate("document.activeElement.id") == "divider", "keyboard: Tab leads to the slider")
    for key in ("ArrowLeft", "Home", "ArrowRight", "End"):
        browser.page.keyboard.press(key)
    check(browser.page.get_attribute("#divider", "aria-valuenow") == "100", "keyboard: the slider")
    browser.page.focus("#stage")
    browser.page.keyboard.press("Escape")
    check(browser.listed() == [] and browser.page.is_visible("#start"), "keyboard: Escape")
    # Light and dark by the button.
    browser.page.click("#theme")
    check(browser.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(15, 18, 22)", "keyboard: dark")
    browser.close("keyboard")


def hostile(check, chromium, arguments, folder, shots):
    """A scene whose name would like to be a program."""
    name = "a<script>alert(1)<\\script>\"'<img src=x onerror=alert(2)>&amp;{{js}}.tif"
    scene = write_scene(folder / name, land(3, 300, 420, 4))
    page, _ = make(arguments.binary, folder, scene, "hostile", ["--chip", "64"])
    browser = Browser(chromium, check, page.path, viewport={"width": 1000, "height": 700}, color_scheme="light")
    check(browser.page.text_content("h1") == re.split(r"[\\/]", str(scene))[-1], f"hostile: the heading is {browser.page.text_content('h1')}")
    check(browser.page.title().startswith(str(scene)), f"hostile: the title is {browser.page.title()}")
    check(browser.page.evaluate("document.querySelectorAll('script').length") == 2, "hostile: another script")
    check(browser.page.evaluate("document.querySelectorAll('img').length") == 1, "hostile: another picture")
    compare_clicks(check, browser, page, "hostile")
    # The policy: what a page could be made to do, it may not.
    browser.errors.clear()
    blocked = browser.page.evaluate("""async () => {
        const script = document.createElement('script');
        script.textContent = 'window.broken = 1';
        document.body.append(script);
        const loaded = await new Promise(done => {
            const image = new Image();
            image.onload = () => done(true);
            image.onerror = () => done(false);
            image.src = 'https://example.org/x.png';
        });
        return [window.broken === undefined, !loaded];
    }""")
    check(blocked == [True, True], f"hostile: the policy lets through {blocked}")
    browser.errors.clear()
    browser.requests[:] = [url for url in browser.requests if "example.org" not in url]
    browser.close("hostile")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, KNOWN)
    parser.add_argument("--screenshots", type=pathlib.Path, help="leave pictures of the page in this folder")
    parser.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("google-chrome"), help="the browser")
    arguments = parser.parse_args()
    chosen = parse_only(arguments.only, KNOWN)
    # Scenes are named by their paths: a short one.
    arguments.binary, arguments.sample = arguments.binary.resolve(), arguments.sample.resolve()
    check = Checks()

    def shots(browser, name, **options):
        if arguments.screenshots:
            arguments.screenshots.mkdir(parents=True, exist_ok=True)
            browser.page.mouse.move(5, 5)
            browser.page.wait_for_timeout(400)
            browser.page.screenshot(path=arguments.screenshots / f"{name}.png", **options)

    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        folder = arguments.keep or pathlib.Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        chromium = playwright.chromium.launch(executable_path=arguments.chromium, args=["--no-sandbox", "--disable-gpu"])
        print(f"Chromium {chromium.version}", flush=True)
        for name in chosen:
            globals()[name](check, chromium, arguments, folder, shots)
        chromium.close()
    print(f"{check.passed} of {check.passed + check.failed} checks passed; {check.failed} failed")
    return 1 if check.failed else 0


if __name__ == "__main__":
    sys.exit(main())
