"""Where scenes come from: files of bands against GDAL's resampling, STAC items as pystac and stac-geoparquet write them,
S3 as moto plays it (with its own checking of credentials), Google's store as gcp-storage-emulator plays it."""

import contextlib
import datetime
import json
import os
import shutil
import threading

import numpy as np
import pystac
import rasterio
from rasterio.enums import Resampling

from common import NORTH_UP, embed, embed_command, land, run, vectors_of, write_scene
from server import SceneServer

COLOURS = ("red", "green", "blue")
TIME = datetime.datetime(2026, 5, 17, 10, 30, 31, 24000, tzinfo=datetime.timezone.utc)


class Recorder:
    """A WSGI program on a free port; records what is asked of it while the block runs."""

    def __init__(self, program):
        self.program, self.lock, self.requests = program, threading.Lock(), []

    def __call__(self, environment, start_response):
        headers = {name[5:].replace("_", "-").lower(): text for name, text in environment.items() if name.startswith("HTTP_")}
        with self.lock:
            self.requests.append((environment["REQUEST_METHOD"], environment["PATH_INFO"], headers))
        return self.program(environment, start_response)

    def __enter__(self):
        from werkzeug.serving import WSGIRequestHandler, make_server

        class Quiet(WSGIRequestHandler):
            def log(self, *_):
                pass

        self.server = make_server("127.0.0.1", 0, self, threaded=True, request_handler=Quiet)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        return self

    def __exit__(self, *_):
        self.server.shutdown()

    @contextlib.contextmanager
    def counted(self):
        """The requests of this block."""
        with self.lock:
            start = len(self.requests)
        asked = []
        yield asked
        with self.lock:
            asked.extend(self.requests[start:])


def chips_of(table):
    """Vectors by the places of their chips: {(source's number, x, y): bytes}."""
    vectors = vectors_of(table)
    columns = zip(table["x_px"].to_pylist(), table["y_px"].to_pylist(), vectors)
    return sorted((x, y, vector.tobytes()) for x, y, vector in columns)


def tiles_of(path):
    with rasterio.open(path) as scene:
        return sum(1 for _ in scene.block_windows(1))


def write_bands(folder, data, coarse=()):
    """A file for each band; those of `coarse` at half the resolution."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for colour, plane in zip(COLOURS, data):
        transform = NORTH_UP
        if colour in coarse:
            plane, transform = plane[1::2, ::2], NORTH_UP * transform.scale(2, 2)
        paths.append(write_scene(folder / f"T33_{colour}.tif", plane[None], transform=transform))
    return paths


def check_bands(binary, folder, check):
    data = land(3, 700, 900, 41)
    whole = write_scene(folder / "whole.tif", data)
    bands = write_bands(folder / "bands", data)
    _, expected = embed(binary, [whole], folder / "whole.parquet")
    names = ",".join(map(str, bands))
    _, found = embed(binary, [], folder / "bands.parquet", "--band-files", names)
    check(chips_of(found) == chips_of(expected), "three files: other vectors than those of one file with three bands")
    patterns = ",".join(f"*_{colour}.tif" for colour in COLOURS)
    _, found = embed(binary, [folder / "bands"], folder / "bands.parquet", "--band-files", patterns)
    check(chips_of(found) == chips_of(expected), "a folder with three files: other vectors")
    # GDAL resamples the coarse band; 8 and 16 bits.
    lines = []
    for dtype, levels, options in (("uint8", 256, ()), ("uint16", 10000, ("--scale", "range 0,9999"))):
        data = land(3, 700, 900, 42, levels, dtype)
        bands = write_bands(folder / f"mixed-{dtype}", data, coarse=("blue",))
        with rasterio.open(bands[2]) as scene:
            fine = scene.read(1, out_shape=(700, 900), resampling=Resampling.bilinear)
        by_gdal = write_scene(folder / f"by-gdal-{dtype}.tif", np.stack([data[0], data[1], fine]))
        _, expected = embed(binary, [by_gdal], folder / "gdal.parquet", *options)
        said, found = embed(binary, [], folder / "mixed.parquet", "--band-files", ",".join(map(str, bands)), *options)
        check("resampled bilinearly from 450 x 350 to 900 x 700 px" in said.stderr, f"{dtype}: nothing is said of resampling")
        same = sum(a == b for a, b in zip(chips_of(found), chips_of(expected)))
        nearest = np.sum(vectors_of(found) * vectors_of(expected), axis=1)
        nearest /= np.linalg.norm(vectors_of(found), axis=1) * np.linalg.norm(vectors_of(expected), axis=1)
        check(same == len(expected), f"{dtype}: {same} of {len(expected)} chips as with GDAL's bilinear, cosine {nearest.min()}")
        lines.append(f"{same} of {len(expected)} {dtype} chips as GDAL resamples")
    print(f"bands: {'; '.join(lines)}", flush=True)
    shifted = write_scene(folder / "shifted.tif", data[:1], transform=NORTH_UP * NORTH_UP.translation(0.5, 0))
    result = run(embed_command(binary, [], folder / "no.parquet", "--band-files", f"{bands[0]},{bands[1]},{shifted}"), codes=(1,))
    check("does not lie on the grid" in result.stderr and "gdalwarp" in result.stderr, f"another grid: {result.stderr}")
    return lines


def write_items(folder, bands, visual):
    """An item, an item collection and a table with relative links, by those who define them."""
    item = pystac.Item("T33", geometry={"type": "Point", "coordinates": [14.0, 37.9]}, bbox=[14, 37.9, 14, 37.9],
                       datetime=TIME, properties={"platform": "sentinel-2a"}, collection="sentinel-2-l2a")
    for colour, path in zip(COLOURS, bands):
        item.add_asset(colour, pystac.Asset(f"./{path.name}", media_type=pystac.MediaType.COG, roles=["data"]))
    item.add_asset("visual", pystac.Asset(f"./{visual.name}", media_type=pystac.MediaType.COG, roles=["visual"]))
    item.add_asset("thumbnail", pystac.Asset("./t.png", media_type=pystac.MediaType.PNG, roles=["thumbnail"]))
    path = folder / "item.json"
    path.write_text(json.dumps(item.to_dict(include_self_link=False)))
    collection = folder / "items.json"
    collection.write_text(json.dumps(pystac.ItemCollection([item]).to_dict()))
    return item, [path, collection]


def check_items(binary, folder, check):
    import stac_geoparquet.arrow

    place = folder / "items"
    data = land(3, 700, 900, 43)
    bands = write_bands(place, data)
    visual = write_scene(place / "TCI.tif", data)
    item, documents = write_items(place, bands, visual)
    absolute = item.to_dict(include_self_link=False)
    for asset in absolute["assets"].values():
        asset["href"] = str(place / asset["href"])
    table = place / "items.parquet"
    batches = stac_geoparquet.arrow.parse_stac_items_to_arrow([absolute])
    stac_geoparquet.arrow.to_parquet(batches, table)
    _, expected = embed(binary, [visual], folder / "visual.parquet")
    for document in [*documents, table]:
        for assets in ((), ("--assets", "red,green,blue"), ("--assets", "role:visual")):
            _, found = embed(binary, [document], folder / "item.parquet", *assets)
            what = f"{document.name} {' '.join(assets)}"
            check(chips_of(found) == chips_of(expected), f"{what}: other vectors than those of the file")
            link = str(document) if document.name == "item.json" else "T33"
            check(set(found["stac_item"].to_pylist()) == {link}, f"{what}: stac_item {set(found['stac_item'].to_pylist())}")
            check(set(found["datetime"].to_pylist()) == {TIME}, f"{what}: datetime {found['datetime'][0]}")
    return [f"{3 * (len(documents) + 1)} ways to name an item"]


def check_web(binary, folder, check):
    place = folder / "items"
    bands = [place / f"T33_{colour}.tif" for colour in COLOURS]
    _, expected = embed(binary, [place / "TCI.tif"], folder / "visual.parquet")
    with SceneServer(folder, latency_s=0.02) as server:
        url = f"{server.url}/items/item.json"
        _, found = embed(binary, [url], folder / "web.parquet", "--assets", "red,green,blue")
        asked = len(server.requests)
    check(chips_of(found) == chips_of(expected), "an item over HTTP: other vectors")
    check(set(found["stac_item"].to_pylist()) == {url}, f"an item over HTTP: {set(found['stac_item'].to_pylist())}")
    tiles = sum(map(tiles_of, bands))
    check(asked <= 1 + 1.1 * tiles + 2 * 3, f"an item over HTTP: {asked} requests for {tiles} tiles of three files")
    print(f"http: an item and three files: {asked} requests, {tiles} tiles", flush=True)
    return [f"HTTP: {asked} requests for an item and {tiles} tiles"]


def aws(url, **more):
    """An environment of which no other credentials come."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("AWS_", "GOOGLE_", "AZURE_"))}
    return kept | {"AWS_ENDPOINT_URL": url, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "eu-central-1"} | more


def check_s3(binary, folder, check):
    import boto3
    import requests
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

    place = folder / "items"
    scene, bands = place / "TCI.tif", [place / f"T33_{colour}.tif" for colour in COLOURS]
    _, expected = embed(binary, [scene], folder / "visual.parquet")
    output = folder / "s3.parquet"
    with Recorder(DomainDispatcherApplication(create_backend_app)) as server:
        session = dict(endpoint_url=server.url, region_name="eu-central-1", aws_access_key_id="root", aws_secret_access_key="root")
        s3, iam = boto3.client("s3", **session), boto3.client("iam", **session)
        for bucket in ("open-scenes", "closed-scenes"):
            s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
            for path in [scene, *bands, place / "item.json"]:
                s3.upload_file(str(path), bucket, f"items/{path.name}")
        everyone = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::open-scenes/*"}
        s3.put_bucket_policy(Bucket="open-scenes", Policy=json.dumps({"Version": "2012-10-17", "Statement": [everyone]}))
        iam.create_user(UserName="reader")
        reading = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
        iam.put_user_policy(UserName="reader", PolicyName="reads", PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [reading]}))
        key = iam.create_access_key(UserName="reader")["AccessKey"]
        signed = dict(AWS_ACCESS_KEY_ID=key["AccessKeyId"], AWS_SECRET_ACCESS_KEY=key["SecretAccessKey"])

        def read(url, codes, *options, **environment):
            output.unlink(missing_ok=True)
            command = embed_command(binary, [url], output, *options)
            with server.counted() as asked:
                result = run(command, codes=codes, env=aws(server.url, **environment))
            import pyarrow.parquet as pq
            return result.stderr, pq.read_table(output) if output.exists() else None, asked

        tiles = tiles_of(scene)
        # Moto refuses the unsigned what is not public, but fails over them once it checks signatures.
        unsigned = dict(AWS_NO_SIGN_REQUEST="YES")
        url = "s3://closed-scenes/items/TCI.tif"
        said, _, asked = read(url, (1,), **unsigned)
        check(f"{url} may not be read: the store answers 403" in said and len(asked) == 1, f"S3, closed, anonymously: {said.strip()}")
        print(f"s3: closed, anonymously: {said.strip()}", flush=True)
        for what, bucket, environment in (
            ("anonymously", "open-scenes", unsigned),
            ("with a key", "closed-scenes", signed),
            ("at the reader's cost", "closed-scenes", dict(signed, AWS_REQUEST_PAYER="requester")),
        ):
            _, found, asked = read(f"s3://{bucket}/items/TCI.tif", (0,), **environment)
            check(chips_of(found) == chips_of(expected), f"S3 {what}: other vectors")
            check(len(asked) <= 1.1 * tiles + 2, f"S3 {what}: {len(asked)} requests for {tiles} tiles")
            is_signed = [("authorization" in headers) for _, _, headers in asked]
            check(all(is_signed) if "KEY" in "".join(environment) else not any(is_signed), f"S3 {what}: signed {is_signed}")
            pays = [headers.get("x-amz-request-payer") == "requester" for _, _, headers in asked]
            check(all(pays) if "AWS_REQUEST_PAYER" in environment else not any(pays), f"S3 {what}: pays {pays}")
            check({method for method, _, _ in asked} == {"GET"}, f"S3 {what}: {[method for method, _, _ in asked]}")
            print(f"s3: {what}: {len(asked)} requests, {tiles} tiles", flush=True)
            # From here on, moto checks signatures and policies.
            requests.post(f"{server.url}/moto-api/reset-auth", data="0", timeout=30)
        _, found, asked = read("s3://closed-scenes/it*/TC?.tif", (0,), **signed)
        check(chips_of(found) == chips_of(expected), "S3, a pattern: other vectors")
        check(set(found["source"].to_pylist()) == {"s3://closed-scenes/items/TCI.tif"}, "S3, a pattern: another source")
        said, found, _ = read("s3://closed-scenes/", (0, 3), "--scale", "range 0,10000", **signed)
        sources = set(found["source"].to_pylist())
        names = {f"s3://closed-scenes/items/{path.name}" for path in (scene, *bands)}
        check(sources == names, f"S3, a bucket: {sources}")
        said, found, _ = read("s3://closed-scenes/nothing/", (1,), **signed)
        check("no scenes found in s3://closed-scenes/nothing/" in said, f"S3, an empty folder: {said.strip()}")
        url = "s3://closed-scenes/items/item.json"
        _, found, asked = read(url, (0,), "--assets", "red,green,blue", **signed)
        check(chips_of(found) == chips_of(expected), "S3, an item: other vectors")
        check(set(found["stac_item"].to_pylist()) == {url}, "S3, an item: another link")
        tiles = sum(map(tiles_of, bands))
        check(len(asked) <= 1 + 1.1 * tiles + 2 * 3, f"S3, an item: {len(asked)} requests for {tiles} tiles")
        for colour in COLOURS:
            own = [path for _, path, _ in asked if path.endswith(f"_{colour}.tif")]
            check(len(own) <= 1.1 * tiles / 3 + 2, f"S3, an item: {len(own)} requests of {colour}")
        print(f"s3: an item and three files: {len(asked)} requests, {tiles} tiles", flush=True)
        counts = f"S3: {len(asked)} requests for an item and {tiles} tiles"
        for what, url, environment, words in (
            ("an unknown key", "s3://closed-scenes/items/TCI.tif", dict(signed, AWS_ACCESS_KEY_ID="AKIAUNKNOWN"), ["may not be read", "InvalidAccessKeyId"]),
            ("a wrong secret", "s3://closed-scenes/items/TCI.tif", dict(signed, AWS_SECRET_ACCESS_KEY="wrong-secret"), ["may not be read", "SignatureDoesNotMatch"]),
            ("no such key", "s3://closed-scenes/items/other.tif", signed, ["does not exist"]),
            ("no such bucket", "s3://no-such-scenes/items/TCI.tif", signed, ["does not exist", "bucket"]),
        ):
            said, found, asked = read(url, (1,), **environment)
            check(all(word in said for word in words), f"S3, {what}: {said.strip()}")
            check(url in said and len(said.strip().splitlines()) <= 2, f"S3, {what}: not one line with the address: {said}")
            check("secret" not in said.lower().replace("aws_secret_access_key", ""), f"S3, {what}: a secret is shown: {said}")
            check(found is None and len(asked) <= 2, f"S3, {what}: {len(asked)} requests")
            print(f"s3: {what}: {said.strip().splitlines()[-1]}", flush=True)
    return [counts]


def dated(url):
    """A WSGI program that asks another server, and adds the version that Google's store tells and its emulator does not."""
    import requests

    dates = [("Last-Modified", "Sun, 17 May 2026 10:30:31 GMT"), ("ETag", '"the-only-version"')]

    def program(environment, start_response):
        asked = {"Range": environment["HTTP_RANGE"]} if "HTTP_RANGE" in environment else {}
        reply = requests.get(url + environment["PATH_INFO"], headers=asked, timeout=30)
        kept = [(name, text) for name, text in reply.headers.items() if name.lower() in ("content-range", "content-length")]
        start_response(f"{reply.status_code} {reply.reason}", [*kept, *dates])
        return [reply.content]

    return program


def check_google(binary, folder, check):
    from gcp_storage_emulator.server import create_server

    scene = folder / "items" / "TCI.tif"
    server = create_server("127.0.0.1", 0, in_memory=True, default_bucket="scenes")
    server.start()
    url = "http://{}:{}".format(*server._api._httpd.server_address)
    with contextlib.ExitStack() as stack:
        stack.callback(server.stop)
        front = stack.enter_context(Recorder(dated(url)))
        import requests
        upload = f"{url}/upload/storage/v1/b/scenes/o?uploadType=media&name=items/TCI.tif"
        requests.post(upload, data=scene.read_bytes(), timeout=30).raise_for_status()
        key = {"gcs_base_url": front.url, "disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}
        environment = aws(url, GOOGLE_SERVICE_ACCOUNT_KEY=json.dumps(key))
        result = run(embed_command(binary, ["gs://scenes/items/TCI.tif"], folder / "gs.parquet"), codes=(0, 1), env=environment)
        import pyarrow.parquet as pq
        _, expected = embed(binary, [scene], folder / "visual.parquet")
        if check(result.returncode == 0, f"gs://: {result.stderr.strip()}"):
            check(chips_of(pq.read_table(folder / "gs.parquet")) == chips_of(expected), "gs://: other vectors")
        missing = run(embed_command(binary, ["gs://scenes/other.tif"], folder / "no.parquet"), codes=(1,), env=environment)
        check("gs://scenes/other.tif does not exist" in missing.stderr, f"gs://: {missing.stderr.strip()}")
        tiles, asked = tiles_of(scene), len(front.requests) - 1
        check(asked <= 1.1 * tiles + 2, f"gs://: {asked} requests for {tiles} tiles")
    return [f"gs://: {asked} requests for {tiles} tiles"]


def check_sources(binary, folder, check):
    told = []
    place = folder / "sources"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for part in (check_bands, check_items, check_web, check_s3, check_google):
        told += part(binary, place, check)
    return "; ".join(told)
