//! The bytes of a manifest, version 2. Little-endian.
//!
//! | bytes | |
//! |---|---|
//! | 4, 4 | magic `TNC1`, version |
//! | 4 | the format of the pieces ([`engine::FORMAT`]) |
//! | 4, 8, 8 | partition, generation, the offset of the record that comes next |
//! | 16 | the log that the state was made of; version 1 does not have it, and is read all the same |
//! | 4, then 8 each | runs of ids that the pieces refer to |
//! | 4, then | pieces: kind (1), number of parts (4), and for each part |
//! | 8, 8, 8 | pack, position in it, length |
//! | 8, 8 | items of the piece up to the end of the part; checksum of its bytes |
//! | 8 | xxh3-64 of what comes before it, seeded with partition and generation |

use engine::{FORMAT, PieceKind, RunId};
use types::{LogIdentity, Offset, PartitionId};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

const MAGIC: [u8; 4] = *b"TNC1";
const VERSION: u32 = 2;
/// The version before, which does not say which log it is of.
const VERSION_1: u32 = 1;

/// A checkpoint: where the parts of its pieces lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Manifest {
    pub(super) partition: PartitionId,
    pub(super) generation: u64,
    pub(super) next_offset: Offset,
    /// `None`: of version 1.
    pub(super) log: Option<LogIdentity>,
    pub(super) runs: Vec<RunId>,
    pub(super) pieces: Vec<PieceParts>,
}

/// Why some bytes are no manifest of here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoManifest {
    /// They are not what was written.
    Damaged,
    /// They are what another version wrote.
    Version,
}

/// A piece and its parts, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PieceParts {
    pub(super) kind: PieceKind,
    pub(super) parts: Vec<Part>,
}

/// Some items of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) pack: u64,
    pub(super) position: u64,
    pub(super) length: u64,
    /// The piece's items up to the end of this part.
    pub(super) end: u64,
    pub(super) checksum: u64,
}

/// The checksum of a part that lies at a place.
pub(super) fn part_checksum(partition: PartitionId, pack: u64, position: u64, bytes: &[u8]) -> u64 {
    xxh3_64_with_seed(bytes, seed(&[u64::from(partition.0), pack, position]))
}

fn seed(place: &[u64]) -> u64 {
    let bytes: Vec<u8> = place.iter().flat_map(|number| number.to_le_bytes()).collect();
    xxh3_64(&bytes)
}

impl Manifest {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let u32 = |out: &mut Vec<u8>, value: u32| out.extend_from_slice(&value.to_le_bytes());
        let u64 = |out: &mut Vec<u8>, value: u64| out.extend_from_slice(&value.to_le_bytes());
        out.extend_from_slice(&MAGIC);
        let version = if self.log.is_some() { VERSION } else { VERSION_1 };
        [version, FORMAT, self.partition.0].into_iter().for_each(|value| u32(&mut out, value));
        [self.generation, self.next_offset.0].into_iter().for_each(|value| u64(&mut out, value));
        out.extend(self.log.iter().flat_map(|log| log.0.to_le_bytes()));
        u32(&mut out, self.runs.len() as u32);
        self.runs.iter().for_each(|run| u64(&mut out, run.0));
        u32(&mut out, self.pieces.len() as u32);
        for piece in &self.pieces {
            out.push(piece.kind as u8);
            u32(&mut out, piece.parts.len() as u32);
            for part in &piece.parts {
                let Part { pack, position, length, end, checksum } = *part;
                [pack, position, length, end, checksum].into_iter().for_each(|value| u64(&mut out, value));
            }
        }
        let checksum = xxh3_64_with_seed(&out, seed(&[self.partition.0.into(), self.generation]));
        u64(&mut out, checksum);
        out
    }

    /// A manifest that is what was written for this partition and generation.
    pub(super) fn decode(bytes: &[u8], partition: PartitionId, generation: u64) -> Result<Self, NoManifest> {
        let (body, checksum) = bytes.split_last_chunk::<8>().ok_or(NoManifest::Damaged)?;
        if xxh3_64_with_seed(body, seed(&[partition.0.into(), generation])) != u64::from_le_bytes(*checksum) {
            return Err(NoManifest::Damaged);
        }
        let mut left = Bytes(body);
        // Whoever writes another version keeps the checksum, the magic and where the versions are.
        if left.array() != Some(MAGIC) {
            return Err(NoManifest::Damaged);
        }
        let versions = left.u32().zip(left.u32());
        let Some((version @ (VERSION_1 | VERSION), FORMAT)) = versions else { return Err(NoManifest::Version) };
        Self::decode_body(left, version, partition, generation).ok_or(NoManifest::Damaged)
    }

    fn decode_body(mut left: Bytes<'_>, version: u32, partition: PartitionId, generation: u64) -> Option<Self> {
        if left.u32()? != partition.0 || left.u64()? != generation {
            return None;
        }
        let next_offset = Offset(left.u64()?);
        let log = if version == VERSION { Some(LogIdentity(u128::from_le_bytes(left.array()?))) } else { None };
        let runs = left.list(|left| left.u64().map(RunId))?;
        let pieces = left.list(|left| {
            let kind = PieceKind::from_number(left.u8()?)?;
            Some(PieceParts { kind, parts: left.list(Bytes::part)? })
        })?;
        left.0.is_empty().then_some(Self { partition, generation, next_offset, log, runs, pieces })
    }

    /// All parts.
    pub(super) fn parts(&self) -> impl Iterator<Item = &Part> {
        self.pieces.iter().flat_map(|piece| &piece.parts)
    }
}

/// Bytes that are left to read.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (value, left) = self.0.split_first_chunk()?;
        self.0 = left;
        Some(*value)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(|[value]| value)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn part(&mut self) -> Option<Part> {
        let [pack, position, length, end, checksum] = [self.u64()?, self.u64()?, self.u64()?, self.u64()?, self.u64()?];
        Some(Part { pack, position, length, end, checksum })
    }

    /// A list that grows with what is there, whatever it claims.
    fn list<T>(&mut self, mut take: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.u32()?;
        let mut list = Vec::new();
        for _ in 0..count {
            list.push(take(self)?);
        }
        Some(list)
    }
}
