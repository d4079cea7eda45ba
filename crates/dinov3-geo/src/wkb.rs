//! Well-known binary of polygons, as GeoParquet stores geometries: two dimensions, x first.

use crate::GeoError;
use crate::footprint::Ring;

const LITTLE_ENDIAN: u8 = 1;
const POLYGON: u32 = 3;
const MULTI_POLYGON: u32 = 6;
const POINT_BYTES: usize = 16;

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
        POLYGON => vec![reader.rings()?],
        MULTI_POLYGON => {
            // 9 bytes: the head of a polygon and the number of its rings.
            let count = reader.count(9)?;
            let mut polygons = Vec::with_capacity(count);
            for _ in 0..count {
                if reader.head()? != POLYGON {
                    return Err(reader.broken("a part of a MultiPolygon is no Polygon"));
                }
                polygons.push(reader.rings()?);
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

    fn rings(&mut self) -> Result<Vec<Ring>, GeoError> {
        let rings = self.count(4)?;
        (0..rings)
            .map(|_| {
                let points = self.count(POINT_BYTES)?;
                (0..points).map(|_| Ok((self.f64()?, self.f64()?))).collect()
            })
            .collect()
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
    fn refuses_every_truncation_and_every_overlong_count() {
        let bytes = write(&squares());
        for end in 0..bytes.len() {
            assert!(read_wkb_polygons(&bytes[..end]).is_err(), "{end}");
        }
        for offset in 0..bytes.len() {
            let mut hostile = bytes.clone();
            hostile[offset] = 0xff;
            // Any answer will do that is no panic and takes no memory.
            let _ = read_wkb_polygons(&hostile);
        }
        assert!(read_wkb_polygons(&[bytes, vec![0]].concat()).is_err());
    }
}
