"""Folders of dense rasters and of a Zarr store per scene: are they what one scene alone gives, do other programs read them, are
the STAC documents valid, and do killed runs come to the same bytes? Called by check.py (`--only dense-folder`)."""

import itertools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import time

import numpy as np
import pystac
import rasterio
import xarray
import zarr
from rasterio.transform import Affine
from rio_cogeo.cogeo import cog_validate

from common import land, run, write_scene
from plan import check_documents, validator

TIME = ["--datetime", "2026-05-17T10:30:00Z"]
DENSE = ["--dense", "--window", 128, "--overlap", 32, "--dims", 16, *TIME]
CHIPS = ["--chip", 64, "--stride", 48, *TIME]
# What is looked at are files, not numbers, which dense.py compares: a small model does.
TINY = {"architecture": "vit_small_patch16_dinov3", "model_args": {"embed_dim": 64, "depth": 2, "num_heads": 1}}
DECIDED = ["-m", "tiny.json", "--weights", "synthetic:7"]
COG = "image/tiff; application=geotiff; profile=cloud-optimized"
ZARR = "application/vnd.zarr; version=3"


def scenes_in(folder):
    """Two of one name, one with a space, one from the south."""
    up = Affine(10, 0, 409960, 0, 10, 4190000)
    for index, (name, size, transform) in enumerate([("a b.tif", (300, 420), None), ("x/same.tif", (200, 200), None),
                                                     ("y/same.tif", (260, 180), None), ("up.tif", (220, 330), up)]):
        path = folder / "scenes" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        north = Affine(10, 0, 400000 + 3000 * index, 0, -10, 4200000)
        write_scene(path, land(3, *size, 70 + index), transform=transform or north, photometric="RGB", interleave="pixel")
    return pathlib.Path("scenes")


def data_of(folder):
    """Every file by its name, but documents, which tell times, and what only jobs have."""
    names = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in names.items()
            if not name.startswith(".dinov3/") and ("/" in name or not name.endswith(".json"))}


def documents_of(folder):
    """The items without what a clock and a meter say."""
    found = {}
    for path in folder.glob("*.json"):
        document = json.loads(path.read_text())
        for field in ("processing:datetime", "emb:energy"):
            document.get("properties", {}).pop(field, None)
        found[path.name] = document
    return found


def command(binary, scenes, output, options):
    return [str(part) for part in [binary, "scene", "embed", *scenes, *DECIDED, *options, "-o", output]]


def check_items(folder, check, what):
    """What items say of their assets is what other programs find there."""
    count = 0
    for path in sorted(folder.glob("*-*.json")):
        item = pystac.Item.from_file(str(path))
        assets = item.assets
        embeddings = assets["embeddings"]
        facts = embeddings.extra_fields
        data = pathlib.Path(embeddings.get_absolute_href())
        if embeddings.media_type == COG:
            with rasterio.open(data) as raster:
                shape, transform, crs = raster.shape, raster.transform, raster.crs
                bands = raster.count
                values = raster.read()
            with rasterio.open(assets["picture"].get_absolute_href()) as picture:
                check(picture.count == 3 and picture.shape == shape and picture.transform == transform,
                      f"{what}: {item.id}: the picture lies elsewhere")
            for asset in (embeddings, assets["picture"]):
                good, errors, warnings = cog_validate(asset.get_absolute_href(), strict=True, quiet=True)
                check(good and asset.media_type == COG, f"{what}: {asset.href}: rio-cogeo: {errors + warnings}")
        else:
            check(embeddings.media_type == ZARR, f"{what}: {item.id}: {embeddings.media_type}")
            store = xarray.open_zarr(data)
            array = store["embeddings"]
            bands, shape = array.sizes["embedding"], (array.sizes["y"], array.sizes["x"])
            attributes = zarr.open_group(data, mode="r")["embeddings"].attrs
            transform, crs = Affine(*attributes["spatial:transform"]), rasterio.crs.CRS.from_string(attributes["proj:code"])
            values = array.values[0]
            total = sum(file.stat().st_size for file in data.rglob("*") if file.is_file())
            check(facts["file:size"] == total, f"{what}: {item.id}: {facts['file:size']} bytes of {total}")
            check(str(store.time.values[0]).startswith("2026-05-17T10:30"), f"{what}: {item.id}: time")
        check(np.isfinite(values).all(), f"{what}: {item.id}: cells without data")
        check(tuple(facts["proj:shape"]) == shape, f"{what}: {item.id}: {facts['proj:shape']}, {shape}")
        check(np.allclose(facts["proj:transform"], list(transform)[:6], rtol=0, atol=1e-9) and transform.e < 0,
              f"{what}: {item.id}: {facts['proj:transform']}, {transform}")
        check(facts["proj:code"] == f"EPSG:{crs.to_epsg()}", f"{what}: {item.id}: {facts['proj:code']}")
        # The item is of the scene.
        source = pathlib.Path(item.get_single_link("derived_from").get_absolute_href().replace("%20", " "))
        with rasterio.open(source) as scene:
            found = item.properties
            check(tuple(found["proj:shape"]) == scene.shape, f"{what}: {item.id}: of the scene: {found['proj:shape']}")
            check(np.allclose(found["proj:transform"], list(scene.transform)[:6]), f"{what}: {item.id}: of the scene")
        check(found["dinov3:dimensions"] == bands, f"{what}: {item.id}: {bands} bands")
        count += 1
    return count


def check_kills(binary, folder, scenes, options, expected, check, what):
    """Killed all over a run, and continued by the same command."""
    output = folder / f"{what}-killed"
    line = command(binary, [scenes], output, [*options, "--batch-size", 1])
    started = time.monotonic()
    run(line, cwd=folder)
    took = time.monotonic() - started
    shutil.rmtree(output)
    kills = 0
    for share in (0.2, 0.3, 0.4, 0.3, 0.2, 0.1, 0.05):
        process = subprocess.Popen(line, stderr=subprocess.DEVNULL, cwd=folder)
        time.sleep(share * took)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
        if process.returncode == 0:
            break
        for marker in (output / ".dinov3" / "units").glob("*.json"):
            files = json.loads(marker.read_text())["files"]
            wrong = [name for name, facts in files.items() if (output / name).stat().st_size != facts["size_bytes"]]
            check(not wrong, f"{what}: a marker of what is not there: {wrong}")
    run(line, cwd=folder)
    check(kills > 0, f"{what}: no run was killed")
    check(data_of(output) == data_of(expected), f"{what}: other bytes after {kills} kills")
    def comparable(place):
        documents = documents_of(place)
        documents.pop("collection.json")
        return {name: json.dumps(document).replace(place.name, "") for name, document in documents.items()}
    check(comparable(output) == comparable(expected), f"{what}: other items after {kills} kills")
    left = [path.name for path in output.iterdir() if path.name.startswith(".") and path.name != ".dinov3"]
    check(not left, f"{what}: hidden files are left: {left}")
    return kills


def check_dense_folder(binary, folder, check):
    scenes = scenes_in(folder)
    (folder / "tiny.json").write_text(json.dumps(TINY))
    valid = validator()
    documents, items, kills, rasters = 0, 0, 0, 0
    forms = {"cogs": DENSE, "dense-stores": [*DENSE, "--format", "zarr"], "chip-stores": [*CHIPS, "--format", "zarr"]}
    for what, options in forms.items():
        whole = folder / what
        run(command(binary, [scenes], f"{what}/", options), cwd=folder)
        documents += check_documents(whole, check, valid, what)
        items += check_items(whole, check, what)
        collection = json.loads((whole / "collection.json").read_text())
        kind = "chip" if what == "chip-stores" else "pixel"
        check(collection["emb:type"] == kind and ("emb:chip_layout" in collection) == (kind == "chip"),
              f"{what}: {collection['emb:type']}")
        # One scene alone, under the name of its unit.
        unit = next(path.stem for path in whole.glob("a_b-*.json"))
        ending = ".tif" if what == "cogs" else ".zarr"
        alone = folder / f"{what}-alone"
        alone.mkdir()
        single = [option for option in options if option not in ("--format", "zarr")]
        run(command(binary, [scenes / "a b.tif"], alone / f"{unit}{ending}", single), cwd=folder)
        expected = data_of(whole)
        for name, content in data_of(alone).items():
            check(expected.get(name) == content, f"{what}: {name}: other bytes than alone")
            rasters += 1
        again = run(command(binary, [scenes], f"{what}/", options), cwd=folder)
        check(" 0 made, 4 from before" in again.stderr, f"{what}: a second time: {again.stderr}")
        kills += check_kills(binary, folder, scenes, options, whole, check, what)
    # By several processes, in all orders.
    for what in ("cogs", "dense-stores"):
        plan = folder / f"{what}.parquet"
        run([binary, "scene", "plan", scenes, *DECIDED, *forms[what], "-o", plan], cwd=folder)
        for order in itertools.permutations(range(3)):
            output = folder / f"{what}-{''.join(map(str, order))}"
            for shard in order:
                run([binary, "scene", "run", "--plan", plan, "--shard", f"{shard}/3", "-o", output], cwd=folder)
            check(data_of(output) == data_of(folder / what), f"{what}: shards in the order {order}: other bytes")
        run([binary, "scene", "merge", output], cwd=folder)
        documents += check_documents(output, check, valid, f"{what}, planned")
        check(documents_of(output)["collection.json"]["emb:type"] == "pixel", f"{what}, planned: collection")
    # Along one basis the components of two scenes are of one space: they come back to the same vectors.
    basis = folder / "basis.safetensors"
    run(command(binary, [scenes / "a b.tif"], folder / "first.tif", [*DENSE, "--pca-basis", basis]), cwd=folder)
    run(command(binary, [scenes], "shared/", [*DENSE, "--pca-basis", basis]), cwd=folder)
    copies = list((folder / "shared").glob("*-pca.safetensors"))
    check(len(copies) == 4 and all(copy.read_bytes() == basis.read_bytes() for copy in copies), "a shared basis: copies")
    with rasterio.open(folder / "first.tif") as one, rasterio.open(next((folder / "shared").glob("a_b-*[0-9a-f].tif"))) as other:
        check((one.read() == other.read()).all(), "a shared basis: other components")
    return (f"folders of rasters and stores: {items} items as GDAL, xarray and pystac find them, {documents} STAC documents valid, "
            f"{rasters} files as of one scene, the same bytes after {kills} kills and in 12 orders of shards")
