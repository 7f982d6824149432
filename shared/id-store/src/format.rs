//! The bytes of a run, version 1. Little-endian.
//!
//! A file is a head of 4,096 bytes, then blocks of 4,096 bytes.
//!
//! | at | bytes | of the head |
//! |---|---|---|
//! | 0 | 4 | magic `TNR1` |
//! | 4 | 4 | version |
//! | 8 | 8 | the run |
//! | 16 | 8 | ids in it |
//! | 24 | 16 | the least id |
//! | 40 | 16 | the greatest id |
//! | 4,088 | 8 | xxh3-64 of what comes before it, seeded with the run |
//!
//! | at | bytes | of block `n` |
//! |---|---|---|
//! | 0 | 16 each | up to 204 ids, ascending strictly |
//! | 3,264 | 4 each | their contents |
//! | 4,080 | 4 | how many there are: 204 in all blocks but the last |
//! | 4,088 | 8 | xxh3-64 of what comes before it, seeded with the run and `n`: a block that is read from another place is noticed |

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Bytes of the head, and of a block.
pub(crate) const BLOCK_BYTES: usize = 4_096;
/// Ids of a block.
pub(crate) const BLOCK_IDS: usize = 204;

const MAGIC: [u8; 4] = *b"TNR1";
const VERSION: u32 = 1;
const CONTENTS_AT: usize = BLOCK_IDS * ID_BYTES;
const ID_BYTES: usize = size_of::<u128>();
const CONTENT_BYTES: usize = size_of::<u32>();
const COUNT_AT: usize = CONTENTS_AT + BLOCK_IDS * CONTENT_BYTES;
const CHECKSUM_AT: usize = BLOCK_BYTES - size_of::<u64>();
const _: () = assert!(COUNT_AT + size_of::<u32>() <= CHECKSUM_AT);

/// A head or a block.
pub(crate) type Block = [u8; BLOCK_BYTES];

/// The head of a run with at least one id.
pub(crate) fn head(run: u64, ids: &[u128]) -> Block {
    let mut head = [0; BLOCK_BYTES];
    head[..4].copy_from_slice(&MAGIC);
    head[4..8].copy_from_slice(&VERSION.to_le_bytes());
    head[8..16].copy_from_slice(&run.to_le_bytes());
    head[16..24].copy_from_slice(&(ids.len() as u64).to_le_bytes());
    head[24..40].copy_from_slice(&ids[0].to_le_bytes());
    head[40..56].copy_from_slice(&ids[ids.len() - 1].to_le_bytes());
    seal(&mut head, run, None);
    head
}

/// Fills a block with at most [`BLOCK_IDS`] ids.
pub(crate) fn fill(block: &mut Block, run: u64, number: u64, ids: &[u128], contents: &[u32]) {
    block.fill(0);
    for (bytes, id) in block.chunks_exact_mut(ID_BYTES).zip(ids) {
        bytes.copy_from_slice(&id.to_le_bytes());
    }
    for (bytes, content) in block[CONTENTS_AT..COUNT_AT].chunks_exact_mut(CONTENT_BYTES).zip(contents) {
        bytes.copy_from_slice(&content.to_le_bytes());
    }
    block[COUNT_AT..COUNT_AT + 4].copy_from_slice(&(ids.len() as u32).to_le_bytes());
    seal(block, run, Some(number));
}

fn seal(block: &mut Block, run: u64, number: Option<u64>) {
    let sum = checksum(block, run, number);
    block[CHECKSUM_AT..].copy_from_slice(&sum.to_le_bytes());
}

fn checksum(block: &Block, run: u64, number: Option<u64>) -> u64 {
    let place = number.map_or(0, |number| number + 1);
    xxh3_64_with_seed(&block[..CHECKSUM_AT], run.rotate_left(32) ^ place)
}

/// A block that was read and is what was written.
pub(crate) struct Checked<'a> {
    ids: &'a [[u8; ID_BYTES]],
    contents: &'a [[u8; CONTENT_BYTES]],
}

/// Checks a block. `None`: it is not what was written there.
pub(crate) fn check(block: &Block, run: u64, number: u64) -> Option<Checked<'_>> {
    let (rest, sum) = block.split_last_chunk::<8>()?;
    if u64::from_le_bytes(*sum) != checksum(block, run, Some(number)) {
        return None;
    }
    let count = u32::from_le_bytes(*rest[COUNT_AT..].first_chunk()?) as usize;
    let ids = rest[..CONTENTS_AT].as_chunks().0.get(..count)?;
    Some(Checked { ids, contents: rest[CONTENTS_AT..COUNT_AT].as_chunks().0 })
}

impl Checked<'_> {
    /// The content of an id, if it is in the block.
    pub(crate) fn find(&self, id: u128) -> Option<u32> {
        let at = self.ids.binary_search_by_key(&id, |bytes| u128::from_le_bytes(*bytes)).ok()?;
        Some(u32::from_le_bytes(self.contents[at]))
    }
}
