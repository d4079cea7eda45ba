#!/usr/bin/env python3
"""Opens GeoParquet files of chips with programs that we did not write. Called by run.sh."""

import argparse
import json
import os
import pathlib
import subprocess
import sys

import duckdb
import duckdb_extension_spatial
import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyproj
import shapely

# Columns of every file, in this order; the optional ones may stand between.
COLUMNS = {
    "id": pa.string(),
    "geometry": pa.binary(),
    "bbox": pa.struct([pa.field(corner, pa.float64(), False) for corner in ("xmin", "ymin", "xmax", "ymax")]),
    "datetime": pa.timestamp("us", "UTC"),
    "source": pa.string(),
    "epsg": pa.int32(),
    "x_px": pa.int32(),
    "y_px": pa.int32(),
    "width_px": pa.int32(),
    "height_px": pa.int32(),
    "grid_cell": pa.string(),
    "valid_fraction": pa.float32(),
    "stac_item": pa.string(),
}
OPTIONAL = {"grid_cell", "stac_item"}
NULLABLE = OPTIONAL | {"datetime", "epsg"}
ROW_GROUP_BYTES = 128 << 20
# What gpio 1.7 asks of a 1.1 file; an empty one has no data to ask.
GPIO_CHECKS = 31


class Checks:
    """Counts what held, and says what did not."""

    def __init__(self):
        self.passed, self.failed = 0, 0

    def __call__(self, held, what):
        if held:
            self.passed += 1
        else:
            self.failed += 1
            print(f"  FAILED: {what}")


def check_pyarrow(path, check):
    """Schema, encodings, statistics and metadata. Gives the table."""
    file = pq.ParquetFile(path)
    schema, metadata = file.schema_arrow, file.metadata
    own = [field for field in schema if field.name in COLUMNS]
    vectors = [field for field in schema if field.name not in COLUMNS]
    expected = [name for name in COLUMNS if name not in OPTIONAL or name in schema.names]
    check([field.name for field in own] == expected, f"columns {schema.names}")
    for field in own:
        check(field.type == COLUMNS[field.name], f"{field.name} is {field.type}")
        check(field.nullable == (field.name in NULLABLE), f"{field.name}: nullable is {field.nullable}")
    check(bool(vectors) and vectors[0].name == "embedding", "the first vector is called embedding")
    for field in vectors:
        listed = pa.types.is_fixed_size_list(field.type) and field.type.value_type == pa.float32()
        check(listed and not field.type.value_field.nullable and not field.nullable, f"{field.name} is {field.type}")
    check(metadata.created_by.startswith("dinov3 version "), f"created by {metadata.created_by}")
    check("dinov3" in {key.decode() for key in schema.metadata}, "no provenance")

    row_bytes = sum(4 * field.type.list_size for field in vectors)
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        size_bytes = group.num_rows * row_bytes
        last = number + 1 == metadata.num_row_groups
        check(size_bytes <= ROW_GROUP_BYTES, f"row group {number} has {size_bytes} bytes")
        check(last or size_bytes > 0.8 * ROW_GROUP_BYTES, f"row group {number} has only {size_bytes} bytes")
        for column in map(group.column, range(group.num_columns)):
            name = column.path_in_schema
            check(column.compression == "ZSTD", f"{name} is compressed with {column.compression}")
            if name.startswith("bbox."):
                check(column.is_stats_set and column.statistics.has_min_max, f"{name} has no statistics")
                check(column.has_column_index, f"{name} has no page index")
            if name.endswith(".list.element"):
                check("BYTE_STREAM_SPLIT" in column.encodings, f"{name} is encoded as {column.encodings}")
                check(not column.has_dictionary_page, f"{name} has a dictionary")
    table = file.read()
    check(table.num_rows == metadata.num_rows, "the number of rows")
    table.validate(full=True)
    ids = table["id"].to_pylist()
    check(len(set(ids)) == len(ids), "ids are unique")
    return table


def check_geo(table, check):
    """The key `geo` against the rows."""
    geo = json.loads(table.schema.metadata[b"geo"])
    column = geo["columns"]["geometry"]
    check(geo["version"] == "1.1.0" and geo["primary_column"] == "geometry", f"geo is {geo}")
    check("crs" not in column, "a crs key")
    covering = {corner: ["bbox", corner] for corner in ("xmin", "ymin", "xmax", "ymax")}
    check(column["covering"] == {"bbox": covering}, f"covering is {column['covering']}")
    geometries = shapely.from_wkb(table["geometry"].to_numpy())
    types = sorted({geometry.geom_type for geometry in geometries})
    check(sorted(column["geometry_types"]) == types, f"geometry_types {column['geometry_types']}, rows {types}")
    boxes = np.stack([pa.compute.struct_field(table["bbox"], corner).to_numpy() for corner in covering], 1)
    if len(geometries):
        # Equal, and not only around: a box that is too large costs readers time. An ulp is the reprojection's.
        check(np.allclose(boxes, shapely.bounds(geometries), rtol=0, atol=1e-12), "bbox is not that of the geometry")
        whole = [*boxes[:, :2].min(0), *boxes[:, 2:].max(0)]
        check(column["bbox"] == whole, f"bbox of the file is {column['bbox']}, and of its rows {whole}")
        check(bool(shapely.is_valid(geometries).all()), "a geometry is not valid")
        rings = shapely.get_exterior_ring(shapely.get_parts(geometries))
        check(bool(shapely.is_ccw(rings).all()), "a ring is not counterclockwise")
    else:
        check("bbox" not in column, "a bbox without rows")
    return geometries, boxes


def window_of(boxes):
    """A box with some rows in it and some not, away from the antimeridian."""
    inside = boxes[boxes[:, 2] - boxes[:, 0] < 180]
    west, south, east, north = inside[len(inside) // 3]
    return (west, south, east + (east - west) / 3, north)


def check_geopandas(path, table, window, check):
    frame = geopandas.read_parquet(path)
    check(len(frame) == table.num_rows, f"GeoPandas sees {len(frame)} rows")
    check(frame.crs == pyproj.CRS("OGC:CRS84"), f"GeoPandas sees {frame.crs}")
    if window is None:
        return 0
    found = geopandas.read_parquet(path, bbox=window)
    # By box, as the covering says.
    columns = [pa.compute.struct_field(table["bbox"], corner).to_numpy() for corner in ("xmin", "ymin", "xmax", "ymax")]
    west, south, east, north = columns
    meets = (west <= window[2]) & (east >= window[0]) & (south <= window[3]) & (north >= window[1])
    check(set(found["id"]) == set(np.array(table["id"])[meets]), f"GeoPandas finds {len(found)} in the window")
    # A few large chips may all meet it.
    check(0 < len(found) < len(frame) or len(frame) < 16, f"the window holds {len(found)} of {len(frame)}")
    return len(found)


def check_duckdb(path, table, geometries, window, connection, check):
    source = connection.read_parquet(str(path))
    types = dict(zip(source.columns, map(str, source.types)))
    check(types["geometry"].startswith("GEOMETRY") and "OGC:CRS84" in types["geometry"], f"geometry: {types['geometry']}")
    count = connection.sql("SELECT count(*) FROM source").fetchone()[0]
    check(count == table.num_rows, f"DuckDB sees {count} rows")
    if window is None:
        return
    box = f"ST_MakeEnvelope({', '.join(map(str, window))})"
    west, south, east, north = window
    exact = int(shapely.intersects(geometries, shapely.box(*window)).sum())
    found = connection.sql(
        f"SELECT count(*) FROM source WHERE bbox.xmin <= {east} AND bbox.xmax >= {west} AND bbox.ymin <= {north} "
        f"AND bbox.ymax >= {south} AND ST_Intersects(geometry, {box})"
    ).fetchone()[0]
    check(found == exact, f"DuckDB finds {found} in the window, shapely {exact}")
    for field in table.schema:
        if not pa.types.is_fixed_size_list(field.type):
            continue
        width = field.type.list_size
        vectors = table[field.name].combine_chunks().flatten().to_numpy().reshape(-1, width).astype(np.float64)
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        query = table.num_rows // 2
        rows = connection.sql(
            f"SELECT id, array_cosine_similarity({field.name}::FLOAT[{width}], (SELECT {field.name}::FLOAT[{width}] "
            f"FROM source WHERE id = '{table['id'][query]}')) AS similarity FROM source ORDER BY similarity DESC, id LIMIT 5"
        ).fetchall()
        best = np.sort(vectors @ vectors[query])[::-1][:5]
        check(rows[0][0] == table["id"][query].as_py() or rows[0][1] > 1 - 1e-6, f"{field.name}: nearest is {rows[0]}")
        found = np.array([similarity for _, similarity in rows])
        check(np.allclose(found, best, atol=1e-5), f"{field.name}: similarities {found}, and by numpy {best}")


def check_gpio(path, rows, check):
    """The validator of the specification. How many of its checks passed."""
    gpio = pathlib.Path(sys.executable).parent / "gpio"
    command = [gpio, "check", "spec", "--json", "--strict", "--sample-size", "0", path]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600)
    check(result.returncode == 0, f"gpio says {result.stdout} {result.stderr}")
    if result.returncode != 0:
        return 0
    report = json.loads(result.stdout)
    passed = report["summary"]["passed"]
    check(report["detected_version"] == "1.1.0" and report["verdict"] == "pass", f"gpio: {report['verdict']}")
    check(len(report["checks"]) >= GPIO_CHECKS, f"gpio ran only {len(report['checks'])} checks")
    check(rows == 0 or passed >= GPIO_CHECKS, f"gpio passed only {passed}")
    return passed


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=pathlib.Path)
    arguments = parser.parse_args()
    os.makedirs(os.environ["HOME"], exist_ok=True)
    connection = duckdb.connect()
    package = pathlib.Path(duckdb_extension_spatial.__path__[0])
    extension = next((package / "extensions").rglob("spatial.duckdb_extension"))
    connection.execute(f"INSTALL '{extension}'")
    connection.execute("LOAD spatial")
    check, gpio_passed, rows = Checks(), 0, 0
    for path in arguments.files:
        table = check_pyarrow(path, check)
        geometries, boxes = check_geo(table, check)
        window = window_of(boxes) if len(boxes) else None
        found = check_geopandas(path, table, window, check)
        check_duckdb(path, table, geometries, window, connection, check)
        passed = check_gpio(path, table.num_rows, check)
        gpio_passed += passed
        rows += table.num_rows
        kinds = ", ".join(json.loads(table.schema.metadata[b"geo"])["columns"]["geometry"]["geometry_types"]) or "no rows"
        print(f"{path.name}: {table.num_rows} rows ({kinds}), {found} in the window, gpio {passed} checks")
    print(
        f"{len(arguments.files)} files, {rows} rows: {check.passed} of {check.passed + check.failed} checks passed, "
        f"and {gpio_passed} of gpio check spec; {check.failed} failed"
    )
    return 1 if check.failed else 0


if __name__ == "__main__":
    sys.exit(main())
