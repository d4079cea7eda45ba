"""Compares dinov3-geo with programs that nobody here wrote: PROJ (pyproj), GEOS (shapely), GeoPandas, utm, mercantile.

The crate answers through its example `transform`; see dev/geo/run.sh.
"""

import argparse
import functools
import json
import math
import random
import re
import subprocess
import sys
import warnings

import geopandas
import mercantile
import numpy
import pyproj
import shapely
import utm
from pyproj import CRS, Geod, Transformer
from pyproj.transformer import TransformerGroup

warnings.simplefilter("ignore")
WGS84 = Geod(ellps="WGS84")

# CRS: the largest distance to PROJ in metres. Series of the authalic latitude are cut off at other terms, Helmert
# transformations have other digits. NAD83 and ETRS89 are WGS 84 here, and in the first of PROJ's transformations.
TRANSFORMED = {
    "EPSG:4326": 1e-6,
    "OGC:CRS84": 1e-6,
    "EPSG:4269": 1e-6,
    "EPSG:32633": 1e-6,
    "EPSG:32733": 1e-6,
    "EPSG:32601": 1e-6,
    "EPSG:32760": 1e-6,
    "EPSG:3857": 1e-6,
    "EPSG:3413": 1e-6,
    "EPSG:3031": 1e-6,
    "EPSG:3035": 2e-3,
    "EPSG:2154": 1e-5,
    "EPSG:5070": 1e-6,
    "EPSG:6933": 2e-3,
    "EPSG:3577": 1e-6,
    "EPSG:2193": 1e-6,
    "EPSG:25832": 1e-6,
    "EPSG:26910": 1e-6,
    "EPSG:26919": 1e-6,
    "EPSG:2263": 1e-6,
    "EPSG:3978": 1e-5,
    "EPSG:27700": 1e-2,
    "EPSG:28992": 1e-2,
    "EPSG:2056": 1e-6,
    "EPSG:21781": 1e-6,
    "+proj=sinu +lon_0=0 +x_0=0 +y_0=0 +R=6371007.181 +units=m +no_defs": 1e-3,
    "+proj=aea +lat_1=29.5 +lat_2=45.5 +lat_0=23 +lon_0=-96 +x_0=0 +y_0=0 +datum=NAD83 +units=m": 1e-6,
}
# Corners further than a millimetre from PROJ's: the series of the authalic latitude, the digits of OSGB36's shift.
CORNERS_M = {"EPSG:27700": 0.01, "EPSG:6933": 2e-3, "EPSG:3035": 2e-3, "EPSG:3571": 0.15}
# The list UNLIKE_EPSG of crates/dinov3-geo/src/crs.rs: further from PROJ than this, in metres.
UNLIKE_EPSG_M = 25.0
# Between PROJ's answer without any shift and one with a shift that PROJ does not know.
LARGEST_SHIFT_M = 1000.0


class Checks:
    def __init__(self, binary):
        self.binary = binary
        self.random = random.Random(20261123)
        self.failures = []
        self.counts = {}
        self.worst = {}

    def ask(self, lines):
        finished = subprocess.run(
            [self.binary], input="\n".join(lines) + "\n", capture_output=True, text=True, check=True
        )
        answers = [json.loads(line) for line in finished.stdout.splitlines()]
        assert len(answers) == len(lines), (len(answers), len(lines))
        return answers

    def expect(self, condition, what):
        if not condition:
            self.failures.append(what)
            print(f"FAILED: {what}")

    def count(self, kind, number=1):
        self.counts[kind] = self.counts.get(kind, 0) + number

    def note(self, kind, error, what):
        if error > self.worst.get(kind, (-1.0, ""))[0]:
            self.worst[kind] = (error, what)

    def places(self, area, number):
        """Random longitudes and latitudes within an area of use."""
        west, south, east, north = area
        east += 360 if east < west else 0
        return [
            ((self.random.uniform(west, east) + 180) % 360 - 180, self.random.uniform(south, north))
            for _ in range(number)
        ]


def flat(points):
    return " ".join(f"{x!r} {y!r}" for x, y in points)


def area_of_use(crs):
    area = crs.area_of_use
    bounds = (area.west, area.south, area.east, area.north) if area else (-180, -80, 180, 80)
    return bounds if min(bounds) >= -180 else None


def horizontal(code):
    crs = CRS.from_epsg(code)
    if crs.is_compound:
        crs = crs.sub_crs_list[0]
    return crs.to_2d() if len(crs.axis_info) == 3 else crs


@functools.cache
def transformers(text):
    """PROJ's ways from and to longitude and latitude: the first that is more than a guess, wherever it is used. Left to
    itself PROJ takes another outside the area of use."""

    def first(source, target):
        known = [
            way
            for way in TransformerGroup(source, target, always_xy=True).transformers
            if "allpark" not in way.description
        ]
        return known[0] if known else Transformer.from_crs(source, target, always_xy=True)

    return first("OGC:CRS84", text), first(text, "OGC:CRS84")


def check_transformations(checks, number):
    for text, tolerance in TRANSFORMED.items():
        area = area_of_use(CRS.from_user_input(text)) or (-180, -80, 180, 80)
        places = checks.places((-125, 24, -66, 49) if text.startswith("+proj=aea") else area, number)
        there, back = transformers(text)
        expected = [there.transform(*place) for place in places]
        # PROJ's own way back is what both directions are compared with: where there is a Helmert transformation, it does
        # not lead to the very place.
        places_by_proj = [back.transform(*xy) for xy in expected]
        forward, inverse = checks.ask(
            [f"from_lon_lat\t{text}\t{flat(places)}", f"to_lon_lat\t{text}\t{flat(expected)}"]
        )
        if "error" in forward or "error" in inverse:
            checks.expect(False, f"{text}: {forward} {inverse}")
            continue
        worst = 0.0
        for place, ours, ours_inverse in zip(places_by_proj, forward["points"], inverse["points"]):
            if ours is None or ours_inverse is None:
                checks.expect(False, f"{text}: no answer at {place}")
                continue
            worst = max(worst, WGS84.inv(*place, *back.transform(*ours))[2], WGS84.inv(*place, *ours_inverse)[2])
        checks.count("transformed points", 2 * len(places))
        checks.note(f"of those allowed {tolerance:g} m from PROJ [m]", worst, text)
        checks.expect(worst <= tolerance, f"{text}: {worst:.3g} m from PROJ, {tolerance} m allowed")
        print(f"  {text[:60]:60} {worst:.2e} m")


def check_all_codes(checks, source):
    """Every code of crs-definitions against PROJ's operations of that code that need no grid."""
    definitions = open(source, encoding="utf-8").read()
    codes = [int(code) for code in re.findall(r"^EPSG_(\d+)\|", definitions, re.MULTILINE)]
    crs_rs = open("crates/dinov3-geo/src/crs.rs", encoding="utf-8").read()
    listed = re.search(r"const UNLIKE_EPSG: \[u16; \d+\] = \[(.*?)\]", crs_rs, re.DOTALL).group(1)
    listed = {int(code) for code in re.findall(r"\d+", listed)}
    strings = dict(re.findall(r'^EPSG_(\d+)\|\d+\|"(.*?)"\|', definitions, re.MULTILINE))
    asked = []
    for code in codes:
        crs = horizontal(code)
        area = area_of_use(CRS.from_epsg(code))
        if crs.is_geocentric or area is None:
            continue
        west, south, east, north = area
        margin = 0.05 * min(north - south, (east - west) % 360 or 360)
        places = checks.places((west + margin, south + margin, east - margin, north - margin), 6)
        asked.append((code, crs, places))
    # A code of the list is refused; its string is not, and shows whether the refusal is deserved.
    lines = [
        f"from_lon_lat\t{strings[str(code)] if code in listed else f'EPSG:{code}'}\t{flat(places)}"
        for code, _, places in asked
    ]
    classes = {}
    for (code, crs, places), answer in zip(asked, checks.ask(lines)):
        if "error" in answer:
            reason = re.sub(r"EPSG:\d+|\(.*\)|the reference system \+.*? (needs|cannot)", r"\1", answer["error"])[:90]
            classes["refused: " + reason] = classes.get("refused: " + reason, 0) + 1
            continue
        try:
            operations = TransformerGroup(crs, "OGC:CRS84", always_xy=True).transformers
        except IndexError:  # pyproj's answer where PROJ finds no operation
            operations = []
        errors = {True: [], False: []}
        for operation in operations:
            ballpark = "allpark" in operation.description
            distances = [
                WGS84.inv(*place, *operation.transform(*xy))[2]
                for place, xy in zip(places, answer["points"])
                if xy is not None and math.isfinite(operation.transform(*xy)[0])
            ]
            if distances:
                errors[ballpark].append(max(distances))
        if None in answer["points"]:
            classes["with points outside the domain"] = classes.get("with points outside the domain", 0) + 1
        known = errors[False]
        error = min(known) if known else min(errors[True], default=math.nan)
        unlike = error > (UNLIKE_EPSG_M if known else LARGEST_SHIFT_M)
        if math.isnan(error):
            kind = "PROJ has no answer"
            deserved = not any(answer["points"])  # our own way there and back does not meet
            checks.expect(code not in listed or deserved, f"EPSG:{code}, {crs.name}: listed, but PROJ has no answer")
        else:
            checks.expect(
                unlike == (code in listed),
                f"EPSG:{code}, {crs.name}: {error:.3g} m from PROJ, listed: {code in listed}",
            )
            if code in listed:
                kind = "refused: unlike EPSG"
            elif not known:
                kind = "accepted, PROJ knows no shift"
            else:
                steps = (1e-3, 0.1, 1.0, 10.0, UNLIKE_EPSG_M, math.inf)
                kind = f"accepted, within {next(step for step in steps if error <= step)} m of PROJ"
                checks.note("any code, where PROJ knows the shift [m]", error, f"EPSG:{code}")
        classes[kind] = classes.get(kind, 0) + 1
    missing = listed - {code for code, _, _ in asked}
    checks.expect(not missing, f"UNLIKE_EPSG has codes that cannot be compared: {missing}")
    checks.count("codes", len(asked))
    for kind, number in sorted(classes.items(), key=lambda item: -item[1]):
        print(f"  {number:5} {kind}")


def windows(checks, number):
    """(CRS, transform, window): random ones in each CRS, and the hard ones."""
    regions = {
        "EPSG:32633": (10, 0.5, 18, 83.5),
        "EPSG:32733": (10, -79.5, 18, -0.5),
        "EPSG:32601": (-180, 1, -174, 80),
        "EPSG:32760": (174, -79, 180, -1),
        "EPSG:3857": (-180, -80, 180, 80),
        "EPSG:3413": (-180, 60, 180, 89.9),
        "EPSG:3031": (-180, -89.9, 180, -60),
        "EPSG:4326": (-180, -88, 180, 88),
        "EPSG:3035": (-8, 35, 38, 70),
        "EPSG:2154": (-4, 42, 8, 51),
        "EPSG:5070": (-124, 25, -67, 49),
        "EPSG:6933": (-180, -80, 180, 80),
        "EPSG:27700": (-6, 50, 1, 58),
        "EPSG:26910": (-126, 30, -120, 60),
        "EPSG:3577": (115, -42, 152, -12),
        "EPSG:3571": (-180, 55, 180, 89.9),
    }
    rng = checks.random
    for crs, area in regions.items():
        there = Transformer.from_crs("OGC:CRS84", crs, always_xy=True)
        for _ in range(number):
            x, y = there.transform(*checks.places(area, 1)[0])
            size = rng.choice([0.3, 0.6, 10.0, 30.0, 250.0]) / (111_320 if crs == "EPSG:4326" else 1)
            angle = rng.choice([0.0, 0.0, rng.uniform(-math.pi, math.pi)])
            flip = rng.choice([-1, -1, 1])
            a, d = size * math.cos(angle), size * math.sin(angle)
            transform = (a, d * -flip, x, d, a * flip, y)
            window = (rng.randint(-300, 300), rng.randint(-300, 300), rng.randint(1, 1024), rng.randint(1, 1024))
            yield crs, transform, window
    north_up = lambda x, y, size: (size, 0.0, x, 0.0, -size, y)
    for crs in ("EPSG:3413", "EPSG:3031", "EPSG:3571", "EPSG:3995"):
        for size in (0.6, 10.0, 1000.0):
            grid = north_up(-2000 * size, 2000 * size, size)
            yield crs, grid, (0, 0, 4000, 4000)  # the pole inside
            yield crs, grid, (1900, 1700, 512, 512)  # inside, beside the middle
            yield crs, grid, (2000, 2000, 256, 256)  # on each corner
            yield crs, grid, (1744, 2000, 256, 256)
            yield crs, grid, (1744, 1744, 256, 256)
            yield crs, grid, (2000, 1744, 256, 256)
            yield crs, grid, (2000, 1900, 256, 256)  # on each edge
            yield crs, grid, (1744, 1900, 256, 256)
            yield crs, grid, (1900, 2000, 256, 256)
            yield crs, grid, (1900, 1744, 256, 256)
            yield crs, grid, (2001, 1900, 256, 256)  # a pixel beside
            yield crs, grid, (1743, 1900, 256, 256)
            yield crs, north_up(-2000.3 * size, 2000.3 * size, size), (2000, 1900, 256, 256)  # a fraction beside
        turned = (70.0, 70.0, -100_000.0, 70.0, -70.0, 0.0)
        yield crs, turned, (0, 0, 1500, 1500)
    yield "EPSG:3857", north_up(19_900_000.0, 5_000_000.0, 100.0), (0, 0, 3000, 3000)  # across the antimeridian
    yield "EPSG:3857", north_up(-20_037_508.342789244, 20_037_508.342789244, 156543.03392804097), (
        0,
        0,
        256,
        256,
    )  # all of it
    yield "EPSG:3857", north_up(-20_037_508.342789244, 20_037_508.342789244, 156543.03392804097), (0, 0, 128, 128)
    yield "EPSG:6933", north_up(17_000_000.0, 5_000_000.0, 1000.0), (0, 0, 900, 900)
    yield "EPSG:4326", north_up(-180.0, 90.0, 0.1), (0, 0, 3600, 1800)
    yield "EPSG:4326", north_up(0.0, 90.0, 0.25), (0, 0, 1440, 720)
    yield "EPSG:4326", north_up(179.0, 10.0, 0.01), (0, 0, 200, 200)
    yield "EPSG:4326", north_up(170.0, 10.0, 0.01), (0, 0, 1000, 200)  # up to 180
    yield "EPSG:4326", north_up(180.0, 10.0, 0.01), (0, 0, 100, 200)  # from 180 on
    yield "EPSG:4326", (0.01, 0.004, 179.0, -0.004, -0.01, 10.0), (0, 0, 200, 200)
    yield "EPSG:32601", north_up(100_000.0, 4_200_000.0, 10.0), (0, 0, 10980, 10980)
    yield "EPSG:32601", north_up(166_021.4431, 100_000.0, 10.0), (0, 0, 100, 20_000)  # along the antimeridian
    yield "EPSG:32660", north_up(700_000.0, 8_000_000.0, 10.0), (0, 0, 10980, 10980)
    yield "EPSG:3832", north_up(2_900_000.0, 1_000_000.0, 500.0), (0, 0, 1500, 1500)
    yield "EPSG:32633", north_up(499_980.0, 9_300_000.0, 60.0), (0, 0, 1830, 1830)
    yield "EPSG:3035", north_up(2_500_000.0, 5_500_000.0, 1000.0), (0, 0, 4000, 4000)  # a continent
    yield "EPSG:3413", north_up(-3_850_000.0, 5_850_000.0, 12_500.0), (0, 0, 608, 896)  # NSIDC's whole grid
    yield "+proj=sinu +lon_0=0 +x_0=0 +y_0=0 +R=6371007.181 +units=m +no_defs", north_up(
        1_111_950.5, 5_559_752.6, 463.3127
    ), (0, 0, 2400, 2400)


def check_footprints(checks, number, tolerance_px):
    cases = list(windows(checks, number))
    lines = [
        f"footprint\t{crs}\t" + " ".join(repr(float(value)) for value in (*transform, *window, tolerance_px))
        for crs, transform, window in cases
    ]
    kinds = {"Polygon": 0, "MultiPolygon": 0}
    vertices = 0
    for case, answer in zip(cases, checks.ask(lines)):
        crs, transform, window = case
        if "error" in answer:
            checks.expect(False, f"footprint {case}: {answer['error']}")
            continue
        geometry = shapely.from_wkb(bytes.fromhex(answer["wkb"]))
        kinds[geometry.geom_type] += 1
        vertices += shapely.get_num_coordinates(geometry)
        checks.expect(geometry.is_valid, f"footprint {case}: {shapely.is_valid_reason(geometry)}")
        parts = list(geometry.geoms) if geometry.geom_type == "MultiPolygon" else [geometry]
        checks.expect(all(part.exterior.is_ccw for part in parts), f"footprint {case}: runs clockwise")
        west, south, east, north = geometry.bounds
        checks.expect(west >= -180 and east <= 180 and south >= -90 and north <= 90, f"footprint {case}: out of range")
        if geometry.geom_type == "Polygon":
            checks.expect(list(geometry.bounds) == answer["bbox"], f"footprint {case}: box {answer['bbox']}")
        else:
            left, right = max(part.bounds[0] for part in parts), min(part.bounds[2] for part in parts)
            full = answer["bbox"] == [-180, south, 180, north] and (left <= right)
            checks.expect(
                full or answer["bbox"] == [left, south, right, north], f"footprint {case}: box {answer['bbox']}"
            )
        check_outline(checks, case, parts, answer, tolerance_px)
    checks.count("footprints", len(cases))
    print(
        f"  {kinds['Polygon']} polygons, {kinds['MultiPolygon']} multipolygons, {vertices / len(cases):.1f} points each"
    )


def check_outline(checks, case, parts, answer, tolerance_px):
    crs, (a, b, c, d, e, f), (x_px, y_px, width, height) = case
    to_xy, to_lon_lat = transformers(crs)
    inverse = numpy.linalg.inv(numpy.array([[a, b], [d, e]]))
    origin = numpy.array([a * x_px + b * y_px + c, d * x_px + e * y_px + f])
    middle = numpy.array([width / 2, height / 2])
    period = {
        "EPSG:4326": 360.0,
        "EPSG:3857": 2 * 20037508.342789244,
        "EPSG:6933": 2 * 17367530.445161372,
        "EPSG:3832": 2 * 20037508.342789244,
    }.get(crs)

    def pixels(lon_lat):
        """PROJ's way back; of all the places where the projection repeats itself, the one in or nearest to the window."""
        xy = numpy.column_stack(to_xy.transform(lon_lat[:, 0], lon_lat[:, 1]))
        if period:
            candidates = [xy + [shift * period, 0] for shift in (-1, 0, 1)]
            found = [(inverse @ (candidate - origin).T).T for candidate in candidates]
            outside = [numpy.maximum(numpy.abs(pixel - middle) - middle, 0).sum(axis=1) for pixel in found]
            return numpy.choose(numpy.argmin(outside, axis=0)[:, None], found)
        return (inverse @ (xy - origin).T).T

    area_px = 0.0
    worst = 0.0
    for part in parts:
        ring = numpy.array(part.exterior.coords)
        steps = numpy.linspace(0, 1, 12, endpoint=False)
        line = ring[:-1, None, :] + (ring[1:] - ring[:-1])[:, None, :] * steps[None, :, None]
        # Cuts along the antimeridian and the lines to and through the pole are no edges of the window.
        cut = (numpy.abs(ring[:-1, 0]) == 180) & (numpy.abs(ring[1:, 0]) == 180)
        polar = (numpy.abs(ring[:-1, 1]) == 90) & (numpy.abs(ring[1:, 1]) == 90)
        edge = line[~(cut | polar)].reshape(-1, 2)
        pixel = pixels(edge)
        col, row = pixel[:, 0], pixel[:, 1]
        beyond = numpy.maximum(numpy.abs(pixel - middle) - middle, 0)
        inside = numpy.minimum.reduce([col, width - col, row, height - row])
        distance = numpy.where(beyond.sum(axis=1) > 0, numpy.hypot(beyond[:, 0], beyond[:, 1]), inside)
        worst = max(worst, float(numpy.abs(distance).max(initial=0)) if numpy.isfinite(distance).all() else math.inf)
        # Cuts count for the area: a hair inside, so that PROJ does not take them to the other side.
        area_px += abs(shoelace(pixels(line.reshape(-1, 2) * [1 - 1e-13, 1])))
    checks.note("outline off the window's edge [px]", worst, f"{crs} {case[2]}")
    # Within a decimetre of its pole, LAEA's inverse loses half of the digits, in PROJ too.
    rounding_px = 0.15 / math.hypot(a, d) if crs == "EPSG:3571" else 0.004
    checks.expect(worst <= tolerance_px + rounding_px, f"footprint {case}: {worst:.3g} px off")
    expected = width * height
    allowed = 2 * tolerance_px * (width + height) + 1e-6 * expected
    if answer["bbox"][2] - answer["bbox"][0] == 360 and crs == "EPSG:4326":
        area_px = expected  # a box, and PROJ's way back does not tell one end of it from the other
    mean_width = abs(area_px - expected) / (2 * (width + height))
    checks.note("area, as a mean width around the outline [px]", mean_width, f"{crs} {case[2]}")
    checks.expect(
        abs(area_px - expected) <= allowed, f"footprint {case}: {area_px:.3f} square pixels, {expected} expected"
    )
    corners = numpy.array([[0, 0], [0, height], [width, height], [width, 0]], dtype=float)
    corner_xy = (numpy.array([[a, b], [d, e]]) @ corners.T).T + origin
    lon, lat = to_lon_lat.transform(corner_xy[:, 0], corner_xy[:, 1])
    points = numpy.concatenate([numpy.array(part.exterior.coords) for part in parts])
    for corner_lon, corner_lat in zip(lon, lat):
        if abs(corner_lat) > 90 - 1e-9:
            continue
        apart = numpy.hypot(
            ((points[:, 0] - corner_lon + 180) % 360 - 180) * math.cos(math.radians(corner_lat)),
            points[:, 1] - corner_lat,
        )
        error_m = float(apart.min()) * 111_320
        checks.note("corner to PROJ [m]", error_m, f"{crs} {case[2]}")
        checks.expect(error_m <= CORNERS_M.get(crs, 1e-3), f"footprint {case}: corner {error_m} m off")
    centre = to_lon_lat.transform(*(numpy.array([[a, b], [d, e]]) @ middle + origin))
    if abs(centre[1]) < 90 - 1e-9:
        error_m = WGS84.inv(*centre, *answer["centre"])[2]
        checks.expect(error_m <= 0.01, f"footprint {case}: centre {error_m} m off")


def shoelace(points):
    x, y = points[:, 0] - points[0, 0], points[:, 1] - points[0, 1]
    return 0.5 * float(numpy.sum(x * numpy.roll(y, -1) - numpy.roll(x, -1) * y))


def check_hilbert(checks, number):
    for extent in ((-180, -90, 180, 90), (11.2, 47.9, 11.9, 48.3)):
        points = [
            (checks.random.uniform(extent[0], extent[2]), checks.random.uniform(extent[1], extent[3]))
            for _ in range(number)
        ]
        (answer,) = checks.ask([f"hilbert\t-\t{' '.join(map(str, extent))} {flat(points)}"])
        expected = geopandas.GeoSeries(shapely.points(points)).hilbert_distance(total_bounds=extent, level=16)
        different = int((expected.to_numpy() != numpy.array(answer["indices"])).sum())
        checks.expect(different == 0, f"Hilbert: {different} of {number} differ from GeoPandas in {extent}")
        checks.count("Hilbert indices", number)


def major_tom_grid(distance_km, lon, lat):
    """The published construction, row by row and with searches, where the crate has a closed form."""
    radius_km = 6378.137
    rows = math.ceil(math.pi * radius_km / distance_km)
    up = numpy.arange(-(rows // 2), (rows + 1) // 2) * (180.0 / rows)
    row = int(numpy.searchsorted(up, lat, side="right")) - 1
    south = up[row]
    if abs(south) > 85:
        return None
    columns = math.ceil(2 * math.pi * radius_km * math.cos(math.radians(south)) / distance_km)
    right = numpy.arange(-(columns // 2), (columns + 1) // 2) * (360.0 / columns)
    column = int(numpy.searchsorted(right, lon, side="right")) - 1  # -1 is the last one, which reaches across 180
    row_number = int(round(south * rows / 180))
    column_number = int(round(right[column] * columns / 360))
    name = f"{abs(row_number)}{'D' if row_number < 0 else 'U'}_{abs(column_number)}{'L' if column_number < 0 else 'R'}"
    return name, right[column], south


def check_grids(checks, number):
    places = checks.places((-180, -89, 180, 89), number) + [(180.0, 12.0), (-180.0, 12.0), (0.0, 0.0)]
    for distance_km in (1, 10, 33.3, 100):
        (answer,) = checks.ask([f"major_tom\t{distance_km}\t{flat(places)}"])
        for (lon, lat), ours in zip(places, answer["cells"]):
            expected = major_tom_grid(distance_km, -180.0 if lon == 180.0 else lon, lat)
            same = (
                ours is expected
                if expected is None or ours is None
                else (
                    ours[0] == expected[0] and abs(ours[1] - expected[1]) < 1e-9 and abs(ours[2] - expected[2]) < 1e-9
                )
            )
            checks.expect(same, f"Major TOM {distance_km} km at {lon} {lat}: {ours}, expected {expected}")
        checks.count("Major TOM cells", len(places))
    places = checks.places((-180, -79.9, 180, 83.9), number) + checks.places((-1, 55, 45, 83.9), number)
    (answer,) = checks.ask([f"utm\t-\t{flat(places)}"])
    for (lon, lat), code in zip(places, answer["codes"]):
        expected = (32600 if lat >= 0 else 32700) + utm.latlon_to_zone_number(lat, lon)
        checks.expect(code == expected, f"UTM zone at {lon} {lat}: {code}, expected {expected}")
    checks.count("UTM zones", len(places))
    for zoom in (0, 5, 12, 18, 24):
        places = checks.places((-180, -85, 180, 85), number)
        (answer,) = checks.ask([f"tile\t{zoom}\t{flat(places)}"])
        for (lon, lat), tile in zip(places, answer["tiles"]):
            expected = mercantile.tile(lon, lat, zoom)
            checks.expect(tile == f"{expected.z}/{expected.x}/{expected.y}", f"tile at {lon} {lat}: {tile}, {expected}")
        checks.count("tiles", number)


def crs_definitions_source():
    metadata = json.loads(
        subprocess.run(
            ["cargo", "metadata", "--format-version", "1", "--locked"], capture_output=True, text=True, check=True
        ).stdout
    )
    (package,) = [package for package in metadata["packages"] if package["name"] == "crs-definitions"]
    return package["manifest_path"].replace("Cargo.toml", "src/defs.rs")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", required=True, help="the crate's example `transform`")
    parser.add_argument("--quick", action="store_true", help="fewer points, and not every code")
    parser.add_argument("--golden", action="store_true", help="print the table of tests/golden.rs and end")
    arguments = parser.parse_args()
    print(
        f"pyproj {pyproj.__version__} with PROJ {pyproj.proj_version_str}, shapely {shapely.__version__} with GEOS "
        f"{shapely.geos_version_string}, GeoPandas {geopandas.__version__}"
    )
    if arguments.golden:
        return print_golden()
    checks = Checks(arguments.binary)
    factor = 1 if arguments.quick else 10
    print("transformations")
    check_transformations(checks, 100 * factor)
    print("footprints")
    check_footprints(checks, 10 * factor, 0.05)
    check_hilbert(checks, 500 * factor)
    check_grids(checks, 300 * factor)
    if not arguments.quick:
        print("every code of crs-definitions")
        check_all_codes(checks, crs_definitions_source())
    for kind, (error, what) in checks.worst.items():
        print(f"worst {kind}: {error:.2e} ({what})")
    counts = ", ".join(f"{number} {kind}" for kind, number in checks.counts.items())
    print(f"{'FAILED' if checks.failures else 'ok'}: {len(checks.failures)} failures; {counts}")
    return 1 if checks.failures else 0


def print_golden():
    places = {
        "EPSG:32633": (13.377, 52.516),
        "EPSG:32733": (18.42, -33.92),
        "EPSG:3857": (-122.45, 37.75),
        "EPSG:3413": (-51.7, 64.18),
        "EPSG:3031": (166.67, -77.85),
        "EPSG:4326": (179.5, -16.5),
        "EPSG:3035": (4.9, 52.37),
        "EPSG:2154": (2.35, 48.85),
        "EPSG:5070": (-93.26, 44.98),
        "EPSG:6933": (-60.02, -3.12),
        "EPSG:27700": (-0.1276, 51.5072),
        "EPSG:26910": (-122.45, 37.75),
        "EPSG:3577": (149.13, -35.28),
        "EPSG:2193": (174.76, -41.28),
        "EPSG:2263": (-73.98, 40.75),
        "EPSG:3995": (15.6, 78.2),
    }
    for text, (lon, lat) in places.items():
        x, y = Transformer.from_crs("OGC:CRS84", text, always_xy=True).transform(lon, lat)
        print(f"    ({text[5:]}, ({lon}, {lat}), ({x!r}, {y!r})),")
    return 0


if __name__ == "__main__":
    sys.exit(main())
