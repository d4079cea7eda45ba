"""Zarr stores that several processes make: plan, run and merge give the bytes of one process in every order of shards, after
kills too, and zarr-python and xarray read the same. Called by check.py (`--only zarr-jobs`)."""

import itertools
import json
import shutil
import signal
import subprocess

import numpy as np
import pyarrow.parquet as pq
import xarray
import zarr
from rasterio.transform import Affine

from common import land, run, write_scene

CUT = ["--chip", 16, "--stride", 1, "--datetime", "2026-05-17"]
# So wide that a shard holds 2880 chips of one row.
TINY = {"architecture": "vit_small_patch16_dinov3", "model_args": {"embed_dim": 256, "depth": 1, "num_heads": 4}}


def files_of(store):
    """Every file of a store by its name, but those that only jobs have."""
    names = {path.relative_to(store).as_posix(): path for path in store.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in names.items() if not name.startswith(".dinov3/")}


def check_same(check, what, one, other):
    one, other = files_of(one), files_of(other)
    check(set(one) == set(other), f"{what}: other files: {sorted(set(one) ^ set(other))[:5]}")
    differ = [name for name in set(one) & set(other) if one[name] != other[name]]
    check(not differ, f"{what}: other bytes: {sorted(differ)[:5]}")
    return len(one)


def scenes_in(folder):
    """Several shards beside each other, several from the south, and numbers that need all their digits."""
    folder.mkdir(exist_ok=True)
    write_scene(folder / "wide.tif", land(3, 16, 6000, 90))
    write_scene(folder / "up.tif", land(3, 3100, 16, 91), transform=Affine(10, 0, 400123.4567891, 0, 10, 4200000.1))
    degrees = Affine(0.00026949458523585647, 0, 12.123456789012345, 0, -0.00026949458523585647, -33.3)
    write_scene(folder / "degrees.tif", land(3, 40, 50, 92), crs="EPSG:4326", transform=degrees)
    return sorted(folder.iterdir())


def check_zarr_jobs(binary, folder, check):
    scenes = scenes_in(folder / "job-scenes")
    model = folder / "tiny.json"
    model.write_text(json.dumps(TINY))
    decided = ["-m", model, "--weights", "synthetic:7", *CUT, "--pool", "token,avg"]
    one, table = folder / "one.zarr", folder / "one.parquet"
    run([binary, "scene", "embed", *scenes, *decided, "-o", one])
    run([binary, "scene", "embed", *scenes, *decided, "-o", table])
    plan = folder / "zarr-plan.parquet"
    run([binary, "scene", "plan", *scenes, *decided, "--format", "zarr", "-o", plan])
    units = pq.read_table(plan).to_pylist()
    check(len(units) == 6, f"zarr jobs: {len(units)} units of 6")
    rows = pq.read_table(table)
    check(sum(unit["chips"] for unit in units) == len(rows), "zarr jobs: the plan has other chips than the file")
    command = [binary, "scene", "run", "--plan", plan]
    files = 0
    for order in itertools.permutations(range(3)):
        store = folder / f"jobs-{''.join(map(str, order))}.zarr"
        for shard in order:
            run([*command, "--shard", f"{shard}/3", "--batch-size", 5 + shard, "-o", store])
        run([binary, "scene", "merge", store])
        files = check_same(check, f"zarr jobs: shards in the order {order}", one, store)
        again = run([*command, "-o", store]).stderr
        check(" 0 made, 6 from before" in again, f"zarr jobs: a second time: {again}")

    # Other readers: the same vectors as the rows of the file.
    opened = zarr.open_group(store, mode="r", use_consolidated=True)
    walked = zarr.open_group(store, mode="r", use_consolidated=False)
    cells = 0
    for scene in scenes:
        of_scene = rows.filter(np.array(rows["source"].to_pylist()) == str(scene))
        y, x = of_scene["y_px"].to_numpy(), of_scene["x_px"].to_numpy()
        for column, name in (("embedding", "embeddings"), ("embedding_avg", "embeddings_avg")):
            array = opened[f"{scene.stem}/{name}"]
            place = (array.shape[2] - 1 - y if scene.stem == "up" else y, x)
            wanted = of_scene[column].combine_chunks().flatten().to_numpy().reshape(len(of_scene), -1)
            found = np.ascontiguousarray(array[0][:, place[0], place[1]].T)
            check(found.tobytes() == wanted.tobytes(), f"zarr jobs: {scene.stem}: {name} in zarr-python")
            check(walked[f"{scene.stem}/{name}"].metadata.to_dict() == array.metadata.to_dict(), f"zarr jobs: {name}: metadata")
            cells += len(wanted)
        shares = opened[f"{scene.stem}/valid_fraction"][0][place]
        check(shares.tobytes() == of_scene["valid_fraction"].to_numpy().tobytes(), f"zarr jobs: {scene.stem}: valid_fraction")
    tree = xarray.open_datatree(store, engine="zarr")
    check(sorted(tree.children) == sorted(scene.stem for scene in scenes), "zarr jobs: groups in xarray's tree")
    for scene in scenes:
        found = tree[scene.stem].embeddings
        check(found.dims == ("time", "embedding", "y", "x")
              and found.values.tobytes() == opened[f"{scene.stem}/embeddings"][:].tobytes(), f"zarr jobs: {scene.stem} in xarray")
    tree.close()

    # Killed, and before the rest is there: a scene's group can be read, with NaN where nothing is yet.
    killed, kills = folder / "killed-jobs.zarr", 0
    for moment in (0.15, 0.4, 0.7, 1.0, 1.3):
        process = subprocess.Popen(list(map(str, [*command, "-o", killed])), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(moment)
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
        for group in killed.glob("*/zarr.json"):
            values = zarr.open_group(killed, mode="r", path=group.parent.name)["embeddings"][0]
            check(values.shape[0] == 256, f"zarr jobs: {group} after a kill")
    run([*command, "-o", killed])
    run([binary, "scene", "merge", killed])
    check_same(check, "zarr jobs: killed and continued", one, killed)
    left = [path.name for path in (killed / ".dinov3/parts").iterdir() if not path.name.endswith(".json")]
    check(not left, f"zarr jobs: left over: {left}")

    # One shard of six is missing: said, and NaN for readers.
    shutil.rmtree(killed / "wide/embeddings/c")
    said = run([binary, "scene", "merge", killed], codes=(3,)).stderr
    check("embeddings/c/0/0/0/0 has gone" in said, f"zarr jobs: a missing object: {said}")
    run([*command, "-o", killed])
    run([binary, "scene", "merge", killed])
    check_same(check, "zarr jobs: mended", one, killed)
    return (f"zarr jobs: 6 units in 6 orders of 3 shards, {files} files with the bytes of one process; {cells} vectors in "
            f"zarr {zarr.__version__} and xarray {xarray.__version__}; {kills} kills")
