//! Well-known binary of polygons, as GeoParquet stores geometries: two dimensions, x first.

use crate::GeoError;
use crate::footprint::Ring;

const LITTLE_ENDIAN: u8 = 1;
const POLYGON: u32 = 3;
const MULTI_POLYGON: u32 = 6;
const GEOMETRY_COLLECTION: u32 = 7;
const POINT_BYTES: usize = 16;
/// Collections within collections.
const MAXIMUM_NESTING: u32 = 16;
/// PostGIS's flags in the kind of a geometry.
const WITH_Z: u32 = 0x8000_0000;
const WITH_M: u32 = 0x4000_0000;
const WITH_SRID: u32 = 0x2000_0000;

/// Polygons of one closed ring each: a Polygon where there is one, else a MultiPolygon.
pub(crate) fn write(polygons: &[Ring]) -> Vec<u8> {
    let points: usize = polygons.iter().map(Vec::len).sum();
    let mut bytes = Vec::with_capacity(9 + 13 * polygons.len() + POINT_BYTES * points);
    let head = |bytes: &mut Vec<u8>, kind: u32, count: usize| {
        bytes.push(LITTLE_ENDIAN);
        bytes.extend(kind.to_le_bytes());
        // An outline has thousands of points at most.
        bytes.extend((count as u32).to_le_bytes());
    };
    if polygons.len() != 1 {
        head(&mut bytes, MULTI_POLYGON, polygons.len());
    }
    for ring in polygons {
        head(&mut bytes, POLYGON, 1);
        bytes.extend((ring.len() as u32).to_le_bytes());
        for (x, y) in ring {
            bytes.extend(x.to_le_bytes());
            bytes.extend(y.to_le_bytes());
        }
    }
    bytes
}

/// Reads a Polygon or a MultiPolygon of two dimensions in either byte order: for each polygon its rings, the outer one
/// first.
///
/// # Errors
/// [`GeoError::BrokenWkb`]: another geometry, a count that exceeds the bytes, or bytes left over.
pub fn read_wkb_polygons(bytes: &[u8]) -> Result<Vec<Vec<Ring>>, GeoError> {
    let mut reader = Reader { bytes, offset: 0, is_little_endian: true };
    let polygons = match reader.head()? {
        POLYGON => vec![reader.rings(0)?],
        MULTI_POLYGON => {
            // 9 bytes: the head of a polygon and the number of its rings.
            let count = reader.count(9)?;
            let mut polygons = Vec::with_capacity(count);
            for _ in 0..count {
                if reader.head()? != POLYGON {
                    return Err(reader.broken("a part of a MultiPolygon is no Polygon"));
                }
                polygons.push(reader.rings(0)?);
            }
            polygons
        }
        _ => return Err(reader.broken("neither a Polygon nor a MultiPolygon of two dimensions")),
    };
    if reader.offset != bytes.len() {
        return Err(reader.broken("bytes are left over"));
    }
    Ok(polygons)
}

/// Reads the polygons of any geometry of areas, in either byte order: Polygons, MultiPolygons and collections of them.
/// Heights and measures (in ISO's way or PostGIS's) are left out.
///
/// # Errors
/// [`GeoError::BrokenWkb`]: points or lines, a count that exceeds the bytes, deep nesting, or bytes left over.
pub fn read_wkb_areas(bytes: &[u8]) -> Result<Vec<Vec<Ring>>, GeoError> {
    let mut reader = Reader { bytes, offset: 0, is_little_endian: true };
    let mut polygons = Vec::new();
    reader.areas(MAXIMUM_NESTING, &mut polygons)?;
    if reader.offset != bytes.len() {
        return Err(reader.broken("bytes are left over"));
    }
    Ok(polygons)
}

struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
    is_little_endian: bool,
}

impl Reader<'_> {
    fn broken(&self, reason: &'static str) -> GeoError {
        GeoError::BrokenWkb { offset: self.offset, reason }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], GeoError> {
        let rest = self.bytes.get(self.offset..).unwrap_or_default();
        let taken = *rest.first_chunk().ok_or_else(|| self.broken("it ends too early"))?;
        self.offset += N;
        Ok(taken)
    }

    fn u32(&mut self) -> Result<u32, GeoError> {
        let bytes = self.take()?;
        Ok(if self.is_little_endian { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    }

    fn f64(&mut self) -> Result<f64, GeoError> {
        let bytes = self.take()?;
        Ok(if self.is_little_endian { f64::from_le_bytes(bytes) } else { f64::from_be_bytes(bytes) })
    }

    /// Byte order and the kind of geometry.
    fn head(&mut self) -> Result<u32, GeoError> {
        let [order] = self.take()?;
        if order > LITTLE_ENDIAN {
            return Err(self.broken("the byte order is neither 0 nor 1"));
        }
        self.is_little_endian = order == LITTLE_ENDIAN;
        self.u32()
    }

    /// A number of things of at least `bytes_each`, which must still be there.
    fn count(&mut self, bytes_each: usize) -> Result<usize, GeoError> {
        let count = self.u32()? as usize;
        if count > (self.bytes.len() - self.offset) / bytes_each {
            return Err(self.broken("a count exceeds the bytes"));
        }
        Ok(count)
    }

    /// A polygon's rings, of points with so many numbers beside x and y.
    fn rings(&mut self, further: usize) -> Result<Vec<Ring>, GeoError> {
        let rings = self.count(4)?;
        (0..rings)
            .map(|_| {
                let points = self.count(POINT_BYTES + 8 * further)?;
                let mut point = || {
                    let point = (self.f64()?, self.f64()?);
                    (0..further).try_for_each(|_| self.f64().map(drop))?;
                    Ok(point)
                };
                (0..points).map(|_| point()).collect()
            })
            .collect()
    }

    /// The polygons of a geometry in which collections are nested at most so deep.
    fn areas(&mut self, nesting: u32, polygons: &mut Vec<Vec<Ring>>) -> Result<(), GeoError> {
        let kind = self.head()?;
        if kind & WITH_SRID != 0 {
            self.u32()?;
        }
        let plain = kind & !(WITH_Z | WITH_M | WITH_SRID);
        // ISO adds 1000 for Z, 2000 for M, 3000 for both.
        let (iso, plain) = (plain / 1000, plain % 1000);
        let further = match (iso, kind & (WITH_Z | WITH_M)) {
            (0, flags) => flags.count_ones() as usize,
            (1 | 2, 0) => 1,
            (3, 0) => 2,
            _ => return Err(self.broken("it is no geometry that is known")),
        };
        match (plain, nesting.checked_sub(1)) {
            (POLYGON, _) => polygons.push(self.rings(further)?),
            (MULTI_POLYGON | GEOMETRY_COLLECTION, Some(nesting)) => {
                // 9 bytes: the head of a geometry and a count.
                for _ in 0..self.count(9)? {
                    self.areas(nesting, polygons)?;
                }
            }
            (MULTI_POLYGON | GEOMETRY_COLLECTION, None) => return Err(self.broken("collections are nested too deeply")),
            (1 | 4, _) => return Err(self.broken("it is a point, and areas are polygons")),
            (2 | 5, _) => return Err(self.broken("it is a line, and areas are polygons")),
            _ => return Err(self.broken("it is no geometry that is known")),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn squares() -> Vec<Ring> {
        let square = |x: f64| vec![(x, 0.0), (x + 1.0, 0.0), (x + 1.0, 1.0), (x, 0.0)];
        vec![square(0.0), square(-180.0)]
    }

    #[test]
    fn reads_what_it_writes() {
        for polygons in [squares(), squares()[..1].to_vec()] {
            let read = read_wkb_polygons(&write(&polygons)).unwrap();
            assert_eq!(read, polygons.into_iter().map(|ring| vec![ring]).collect::<Vec<_>>());
        }
    }

    #[test]
    fn writes_the_published_layout() {
        let bytes = write(&[vec![(1.0, 2.0)]]);
        assert_eq!(bytes[..13], [1, 3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(bytes[13..], [1f64.to_le_bytes(), 2f64.to_le_bytes()].concat());
    }

    #[test]
    fn areas_may_be_collected_and_have_heights() {
        let flat = write(&squares());
        assert_eq!(read_wkb_areas(&flat).unwrap(), read_wkb_polygons(&flat).unwrap());
        // PostGIS's and ISO's way to write heights.
        for (kind, srid) in [(0xa000_0003_u32, true), (1003, false)] {
            let mut bytes = vec![LITTLE_ENDIAN];
            bytes.extend(kind.to_le_bytes());
            bytes.extend(srid.then_some(4326_u32.to_le_bytes()).into_iter().flatten());
            bytes.extend([1_u32, 2].into_iter().flat_map(u32::to_le_bytes));
            bytes.extend([1.0, 2.0, 300.0, 4.0, 5.0, 600.0_f64].into_iter().flat_map(f64::to_le_bytes));
            let mut collection = vec![LITTLE_ENDIAN, 7, 0, 0, 0, 2, 0, 0, 0];
            collection.extend(bytes.iter().chain(&flat));
            let read = read_wkb_areas(&collection).unwrap();
            assert_eq!(read.len(), 3);
            assert_eq!(read[0], [vec![(1.0, 2.0), (4.0, 5.0)]]);
        }
        for (kind, reason) in [(1, "point"), (2, "line"), (8, "known"), (5003, "known")] {
            let mut bytes = vec![LITTLE_ENDIAN];
            bytes.extend(u32::to_le_bytes(kind));
            assert!(read_wkb_areas(&bytes).unwrap_err().to_string().contains(reason), "{kind}");
        }
        let nested = [LITTLE_ENDIAN, 7, 0, 0, 0, 1, 0, 0, 0].repeat(100_000);
        assert!(read_wkb_areas(&nested).unwrap_err().to_string().contains("deep"));
    }

    #[test]
    fn refuses_every_truncation_and_every_overlong_count() {
        let bytes = write(&squares());
        for end in 0..bytes.len() {
            assert!(read_wkb_polygons(&bytes[..end]).is_err(), "{end}");
        }
        for offset in 0..bytes.len() {
            let mut hostile = bytes.clone();
            hostile[offset] = 0xff;
            // Any answer will do that is no panic and takes no memory.
            let _ = (read_wkb_polygons(&hostile), read_wkb_areas(&hostile));
        }
        assert!(read_wkb_polygons(&[bytes, vec![0]].concat()).is_err());
    }
}
