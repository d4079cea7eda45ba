"""Reads a folder of outputs with the tools that people use and asserts that all of them see the same.

    cargo run -p dinov3-sink --example write_outputs -- /tmp/outputs
    python dev/parity/check_outputs.py /tmp/outputs

Needs numpy, pyarrow, pandas, duckdb, safetensors. Looks at the files that are there: embeddings.{parquet,npy,
safetensors,jsonl} (or any other stem, given as second argument), and map.npy with maps.safetensors.
"""

import json
import sys
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import safe_open
from safetensors.numpy import load_file

FLOAT32 = np.float32


def check_provenance(provenance, failures):
    assert provenance["schema"] == 1, provenance
    assert provenance["columns"]["embedding"]["width"] > 0, provenance
    assert set(provenance["counts"]) == {"done", "failed"}, provenance
    if failures is not None:
        assert provenance["failures"] == failures, "failures differ"


def same(name, found, expected, finite_only=False):
    assert found.dtype == FLOAT32, (name, found.dtype)
    assert found.shape == expected.shape, (name, found.shape, expected.shape)
    if finite_only:
        expected = np.where(np.isfinite(expected), expected, FLOAT32("nan"))
    # Bit for bit, but any NaN is a NaN.
    assert np.array_equal(found, expected, equal_nan=True), name


def read_jsonl(path):
    paths, columns, failures = [], {}, []
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if "error" in row:
            failures.append(row)
            continue
        paths.append(row.pop("path"))
        for name, values in row.items():
            vector = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
            columns.setdefault(name, []).append(vector.astype(FLOAT32))
    return paths, {name: np.stack(rows) for name, rows in columns.items()}, failures


def main():
    folder = Path(sys.argv[1])
    stem = sys.argv[2] if len(sys.argv) > 2 else "embeddings"
    file = lambda extension: folder / f"{stem}.{extension}"
    checked = []

    # pyarrow's reading is what the others are compared with.
    table = pq.read_table(file("parquet"))
    paths = table["path"].to_pylist()
    expected = {}
    for field in table.schema:
        if field.name == "path":
            assert field.type == pa.string() and not field.nullable, field
            continue
        assert pa.types.is_fixed_size_list(field.type) and field.type.value_type == pa.float32(), field
        assert not field.nullable and not field.type.value_field.nullable, field
        flat = table[field.name].combine_chunks().flatten().to_numpy(zero_copy_only=True)
        expected[field.name] = flat.reshape(len(table), field.type.list_size)
    provenance = json.loads(table.schema.metadata[b"dinov3"])
    failures = provenance["failures"]
    check_provenance(provenance, None)
    metadata = pq.ParquetFile(file("parquet")).metadata
    assert json.loads(metadata.metadata[b"dinov3"]) == provenance
    column = metadata.row_group(0).column(1)
    assert column.path_in_schema == "embedding.list.element", column.path_in_schema
    assert column.compression == "ZSTD" and "BYTE_STREAM_SPLIT" in column.encodings, column
    raw = sum(values.nbytes for values in expected.values())
    print(f"pyarrow {pa.__version__}: {len(paths)} rows, {table.column_names},",
          f"{file('parquet').stat().st_size / raw:.3f} of raw size, {metadata.num_row_groups} row groups")

    frame = pd.read_parquet(file("parquet"))
    assert frame["path"].tolist() == paths
    assert frame["embedding"].iloc[0].dtype == FLOAT32
    for name, values in expected.items():
        same(f"pandas {name}", np.stack(frame[name].to_list()), values)
    checked.append(f"pandas {pd.__version__}")

    parquet = str(file("parquet")).replace("'", "''")
    for name, values in expected.items():
        width = values.shape[1]
        rows = duckdb.sql(f"SELECT path, {name}::FLOAT[{width}] AS vector FROM '{parquet}'").fetchnumpy()
        assert list(rows["path"]) == paths
        same(f"duckdb {name}", np.stack(rows["vector"]).astype(FLOAT32), values)
    # A search as users write it: the first image is nearest to itself. Infinities would make a similarity NaN.
    width = expected["embedding"].shape[1]
    nearest = duckdb.sql(
        f"SELECT array_cosine_similarity(embedding::FLOAT[{width}], (SELECT embedding::FLOAT[{width}] FROM '{parquet}'"
        f" LIMIT 1)) AS similarity FROM '{parquet}' WHERE isfinite(list_sum(embedding::FLOAT[])) ORDER BY 1 DESC LIMIT 1"
    ).fetchall()[0][0]
    assert abs(nearest - 1) < 1e-5, nearest
    found = duckdb.sql(f"SELECT value FROM parquet_kv_metadata('{parquet}') WHERE key = 'dinov3'").fetchall()[0][0]
    assert json.loads(found) == provenance
    checked.append(f"duckdb {duckdb.__version__}")

    if file("npy").exists():
        array = np.load(file("npy"), mmap_mode="r")
        same("npy", array, expected["embedding"])
        sidecar = json.loads(Path(f"{file('npy')}.json").read_text(encoding="utf-8"))
        assert sidecar["paths"] == paths and sidecar["failures"] == failures
        check_provenance(sidecar["provenance"], None)
        checked.append(f"numpy {np.__version__}")

    if file("safetensors").exists():
        tensors = load_file(file("safetensors"))
        assert set(tensors) == set(expected), set(tensors)
        for name, values in expected.items():
            same(f"safetensors {name}", tensors[name], values)
        with safe_open(file("safetensors"), "numpy") as opened:
            metadata = opened.metadata()
        assert json.loads(metadata["paths"]) == paths
        check_provenance(json.loads(metadata["dinov3"]), failures)
        checked.append("safetensors")

    if file("jsonl").exists():
        names, columns, failed = read_jsonl(file("jsonl"))
        assert names == paths and failed == failures and set(columns) == set(expected)
        for name, values in expected.items():
            same(f"jsonl {name}", columns[name], values, finite_only=True)
        check_provenance(json.loads(Path(f"{file('jsonl')}.json").read_text(encoding="utf-8")), failures)
        checked.append("json")

    if (folder / "map.npy").exists():
        array = np.load(folder / "map.npy")
        same("map", load_file(folder / "maps.safetensors")["blocks.9"], array)
        checked.append("feature maps")

    leftover = [entry.name for entry in folder.iterdir() if entry.name.endswith(".tmp")]
    assert not leftover, leftover
    print("agree:", ", ".join(checked))


if __name__ == "__main__":
    main()
