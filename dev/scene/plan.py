#!/usr/bin/env python3
"""Do plan, run, merge and folders give what one file gives, and are the STAC documents valid? Parts of a plan in any order
are compared byte for byte, rows with DuckDB, documents with the extension's own schema as they were written, and
pystac walks the catalogue. An S3 double (moto) holds the same. Called by run.sh with --only plan."""

import argparse
import itertools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

import duckdb
import pystac
from jsonschema import Draft7Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7

from common import MODEL, Checks, add_arguments, land, parse_only, run, write_scene
from rasterio.transform import Affine

HERE = pathlib.Path(__file__).resolve().parent
# The extension's schema refers to STAC core 1.0.0, whose schemas this release has.
CORE = "pystac==1.10.1"
EMBEDDINGS = "https://stac-extensions.github.io/embeddings/v0.0.1/schema.json"


def core_schemas():
    """Every schema of STAC core 1.0.0 and GeoJSON by its address."""
    target = HERE.parent.parent / "target" / CORE.replace("==", "-")
    if not target.exists():
        run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", target, CORE])
    folder = target / "pystac" / "validation" / "jsonschemas"
    schemas = {}
    for path in folder.rglob("*.json"):
        schema = json.loads(path.read_text())
        name = schema.get("$id", "").rstrip("#")
        if "v1.1.0" in str(path):
            continue
        schemas[name or path.name] = schema
        inside = path.relative_to(folder).as_posix()
        if inside.startswith("stac-spec/"):
            kind = path.stem
            part = {"catalog": "catalog-spec", "collection": "collection-spec"}.get(kind, "item-spec")
            schemas[f"https://schemas.stacspec.org/v1.0.0/{part}/json-schema/{path.name}"] = schema
        if inside.startswith("geojson/"):
            schemas[f"https://geojson.org/schema/{path.name}"] = schema
    return schemas


def validator():
    schema = json.loads((HERE / "schemas" / "stac-embeddings-v0.0.1.json").read_text())
    schemas = core_schemas()
    # Expressions of the processing extension: a format and whatever it says.
    schemas["https://stac-extensions.github.io/processing/v1.2.0/schema.json"] = {
        "definitions": {"fields": {"properties": {"processing:expression": {
            "type": "object", "required": ["format", "expression"],
            "properties": {"format": {"type": "string"}}}}}}}
    resources = [(name, Resource.from_contents(schema, DRAFT7)) for name, schema in schemas.items()]
    return Draft7Validator(schema, registry=Registry().with_resources(resources))


def scenes_in(folder):
    """Two of one name, one with a space, one large enough to be divided."""
    sizes = {"a b.tif": (500, 700), "x/same.tif": (300, 300), "y/same.tif": (300, 420), "large.tif": (1500, 900)}
    for index, (name, (height, width)) in enumerate(sizes.items()):
        path = folder / "scenes" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_scene(path, land(3, height, width, 60 + index), transform=Affine(10, 0, 400000 + 3000 * index, 0, -10, 4200000))
    return folder / "scenes"


# A batch decides no result, and a plan does not take it.
PLANNED = [word for word in MODEL if word not in ("--batch-size", "8")]
CUT = ["--chip", 128, "--stride", 100, "--datetime", "2026-05-17T10:30:00Z"]
COLUMNS = "id, geometry, bbox, datetime, source, epsg, x_px, y_px, width_px, height_px, valid_fraction, embedding"


def data_of(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.parquet")}


def same_rows(database, one, other):
    """Rows of `one` that `other` lacks, and the other way around."""
    query = f"SELECT count(*) FROM (SELECT {COLUMNS} FROM read_parquet('{{}}') EXCEPT ALL SELECT {COLUMNS} FROM read_parquet('{{}}'))"
    return [database.sql(query.format(a, b)).fetchone()[0] for a, b in ((one, other), (other, one))]


def check_documents(folder, check, valid, what):
    documents = [folder / "collection.json", *folder.glob("*-*.json")]
    for path in documents:
        errors = sorted(valid.iter_errors(json.loads(path.read_text())), key=str)
        check(not errors, f"{what}: {path.name}: {errors[0].message[:300] if errors else ''}")
    collection = pystac.Collection.from_file(str(folder / "collection.json"))
    items = list(collection.get_items())
    check(len(items) == len(documents) - 1, f"{what}: pystac finds {len(items)} items of {len(documents) - 1}")
    for item in items:
        data = pathlib.Path(item.assets["embeddings"].get_absolute_href())
        # A Zarr store is a folder.
        parts = [part for part in data.rglob("*") if part.is_file()] if data.is_dir() else [data]
        check(data.exists() and sum(part.stat().st_size for part in parts) == item.assets["embeddings"].extra_fields["file:size"],
              f"{what}: {item.id}: the asset is not there")
        check(item.get_root() is not None and item.get_collection() is not None, f"{what}: {item.id}: no way up")
        for link in item.get_links("derived_from"):
            check(pathlib.Path(urllib.parse.unquote(link.get_absolute_href())).exists(), f"{what}: {item.id}: {link.href} is not there")
    return len(documents)


def run_plan(binary, folder, plan, shard, output):
    return run([binary, "scene", "run", "--plan", plan, *(["--shard", shard] if shard else []), "-o", output], cwd=folder)


def check_plan(binary, folder, check):
    scenes = scenes_in(folder)
    valid, database = validator(), duckdb.connect()
    name = scenes.relative_to(folder)
    single = folder / "single.parquet"
    run([binary, "scene", "embed", name, *MODEL, *CUT, "-o", single], cwd=folder)

    run([binary, "scene", "embed", name, *MODEL, *CUT, "-o", "folder/"], cwd=folder)
    whole = folder / "folder"
    check(same_rows(database, single, whole / "*.parquet") == [0, 0], "a folder: other rows than one file")
    check(len(data_of(whole)) == 4, f"a folder: {len(data_of(whole))} files of 4 scenes")
    documents = check_documents(whole, check, valid, "a folder")

    plan = folder / "plan.parquet"
    run([binary, "scene", "plan", name, *PLANNED, *CUT, "--unit-chips", 40, "-o", plan], cwd=folder)
    units, chips, divided = database.sql(
        f"SELECT count(*), sum(chips), count(first_y_px) FROM '{plan}' WHERE error IS NULL").fetchone()
    rows = database.sql(f"SELECT count(*) FROM '{single}'").fetchone()[0]
    check(chips == rows and divided > 3 and units > 5, f"plan: {units} units, {divided} parts, {chips} chips of {rows}")
    run_plan(binary, folder, plan, None, "one")
    expected = data_of(folder / "one")
    check(len(expected) == units, f"run: {len(expected)} files of {units} units")
    for turn, order in enumerate(itertools.permutations(range(3))):
        output = folder / f"parts-{turn}"
        for shard in order:
            run_plan(binary, folder, plan, f"{shard}/3", output)
        check(data_of(output) == expected, f"shards in the order {order}: other bytes")
        again = run_plan(binary, folder, plan, "1/3", output)
        check(" 0 made," in again.stderr, f"shards: a second time: {again.stderr}")
    merged = folder / "merged.parquet"
    run([binary, "scene", "merge", "parts-0", "--parquet", merged], cwd=folder)
    documents += check_documents(folder / "parts-0", check, valid, "shards")
    check(same_rows(database, single, merged) == [0, 0], "merged: other rows than one file")
    ids = [database.sql(f"SELECT id FROM '{path}'").fetchall() for path in (single, merged)]
    check(ids[0] == ids[1], "merged: another order than one file")
    check(same_rows(database, single, folder / "parts-0" / "*-*.parquet") == [0, 0], "parts: other rows than one file")
    items = [path for (path,) in database.sql(f"SELECT DISTINCT stac_item FROM '{merged}'").fetchall()]
    check(len(items) == units and all((folder / urllib.parse.unquote(item)).exists() for item in items), f"merged: items {items[:3]}")

    layouts = {"regular_grid": [], "variable_grid": ["--edges", "shift"], "named_grid": ["--grid", "utm"]}
    for layout, options in layouts.items():
        cut = [*CUT[:2], *CUT[-2:], *options]
        run([binary, "scene", "embed", name / "a b.tif", *MODEL, *cut, "-o", f"{layout}/"], cwd=folder)
        documents += check_documents(folder / layout, check, valid, layout)
        found = json.loads((folder / layout / "collection.json").read_text())["emb:chip_layout"]
        check(found["layout_type"] == layout, f"{layout}: {found}")
    return (f"plan: {units} units in 6 orders of 3 shards, the same bytes; {rows} rows as in one file; "
            f"{documents} STAC documents valid")


def check_store(binary, folder, check):
    """The same into an S3 double."""
    port = 5077
    moto = subprocess.Popen([sys.executable, "-m", "moto.server", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(100):
            try:
                urllib.request.urlopen(url, timeout=1)
                break
            except OSError:
                time.sleep(0.1)
        settings = {"AWS_ENDPOINT": url, "AWS_ALLOW_HTTP": "true", "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret",
                    "AWS_REGION": "us-east-1"}
        import boto3
        client = boto3.client("s3", endpoint_url=url, aws_access_key_id="key", aws_secret_access_key="secret", region_name="us-east-1")
        client.create_bucket(Bucket="results")
        environment = os.environ | settings
        plan = folder / "plan.parquet"
        command = [binary, "scene", "run", "--plan", plan, "-o", "s3://results/some/place", "--scratch", "scratch"]
        for shard in ("1/2", "0/2"):
            run([*command, "--shard", shard], cwd=folder, env=environment)
        run([binary, "scene", "merge", "s3://results/some/place", "--scratch", "scratch"], cwd=folder, env=environment)
        found = {}
        for page in client.get_paginator("list_objects_v2").paginate(Bucket="results"):
            for entry in page.get("Contents", []):
                if entry["Key"].endswith(".parquet") and "/.dinov3/" not in entry["Key"]:
                    found[entry["Key"].rsplit("/", 1)[1]] = client.get_object(Bucket="results", Key=entry["Key"])["Body"].read()
        check(found == data_of(folder / "one"), f"S3: {len(found)} objects, other bytes than files")
        keys = [entry["Key"] for entry in client.list_objects_v2(Bucket="results").get("Contents", [])]
        check("some/place/collection.json" in keys, "S3: no collection")
        gone = next(key for key in keys if key.endswith(".parquet") and "/.dinov3/" not in key)
        client.delete_object(Bucket="results", Key=gone)
        result = run([binary, "scene", "merge", "s3://results/some/place", "--scratch", "scratch"], (3,), cwd=folder, env=environment)
        check("has gone" in result.stderr, f"S3: a missing object: {result.stderr}")
        result = run(command, cwd=folder, env=environment)
        check(" 1 made," in result.stderr, f"S3: just the missing one: {result.stderr}")
        return f"S3: {len(found)} objects with the bytes of files"
    finally:
        moto.terminate()
        moto.wait()


def main():
    known = ("plan",)
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser, known)
    arguments = parser.parse_args()
    parse_only(arguments.only, known)
    binary, check = arguments.binary.resolve(), Checks()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.keep or pathlib.Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        print(check_plan(binary, folder, check), flush=True)
        print(check_store(binary, folder, check), flush=True)
    print(f"{check.passed} of {check.passed + check.failed} checks passed; {check.failed} failed")
    return 1 if check.failed else 0


if __name__ == "__main__":
    sys.exit(main())
