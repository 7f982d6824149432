//! The bytes of a run, version 2. Little-endian.
//!
//! A file is pages of 1,024 bytes: a head, pages of ids, then pages of fence keys. The last 8 bytes of each are the xxh3-64
//! of what comes before them, seeded with the run and the number of the page, so that a page that is read from another
//! place is noticed.
//!
//! | at | bytes | of the head, page 0 |
//! |---|---|---|
//! | 0 | 4 | magic `TNRN` |
//! | 4 | 4 | version |
//! | 8 | 8 | the run |
//! | 16 | 8 | ids in it |
//!
//! | at | bytes | of a page of ids |
//! |---|---|---|
//! | 0 | 16 each | up to 50 ids, ascending strictly |
//! | 800 | 4 each | their contents |
//! | 1,000 | 4 | how many there are: 50 in all pages but the last |
//!
//! | at | bytes | of a page of fence keys |
//! |---|---|---|
//! | 0 | 8 each | up to 127 fence keys: the high half of the first id of each page of ids |

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Bytes of a page.
pub(crate) const PAGE_BYTES: usize = 1_024;
/// Ids of a page.
pub(crate) const PAGE_IDS: usize = 50;
/// Fence keys of a page.
pub(crate) const PAGE_FENCES: usize = CHECKSUM_AT / size_of::<u64>();

const MAGIC: [u8; 4] = *b"TNRN";
const VERSION: u32 = 2;
const ID_BYTES: usize = size_of::<u128>();
const CONTENT_BYTES: usize = size_of::<u32>();
const CONTENTS_AT: usize = PAGE_IDS * ID_BYTES;
const COUNT_AT: usize = CONTENTS_AT + PAGE_IDS * CONTENT_BYTES;
const CHECKSUM_AT: usize = PAGE_BYTES - size_of::<u64>();
const _: () = assert!(COUNT_AT + size_of::<u32>() <= CHECKSUM_AT);

/// One page.
pub(crate) type Page = [u8; PAGE_BYTES];

/// Where the pages of a run with so many ids lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Pages of ids; they begin at page 1.
    pub(crate) id_pages: usize,
    /// All pages.
    pub(crate) pages: usize,
}

impl Layout {
    pub(crate) fn of(ids: usize) -> Self {
        let id_pages = ids.div_ceil(PAGE_IDS);
        Self { id_pages, pages: 1 + id_pages + id_pages.div_ceil(PAGE_FENCES) }
    }
}

/// The head of a run.
pub(crate) fn head(run: u64, ids: usize) -> Page {
    let mut page = [0; PAGE_BYTES];
    page[..4].copy_from_slice(&MAGIC);
    page[4..8].copy_from_slice(&VERSION.to_le_bytes());
    page[8..16].copy_from_slice(&run.to_le_bytes());
    page[16..24].copy_from_slice(&(ids as u64).to_le_bytes());
    seal(&mut page, run, 0);
    page
}

/// How many ids a head says that there are. `None`: it is not that of the run.
pub(crate) fn ids_of_head(page: &Page, run: u64) -> Option<usize> {
    let number = |at: usize| page[at..].first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    let known = page[..4] == MAGIC && page[4..8] == VERSION.to_le_bytes();
    (known && is_sealed(page, run, 0) && number(8)? == run).then_some(number(16)? as usize)
}

/// A page of at most [`PAGE_IDS`] ids.
pub(crate) fn page_of_ids(run: u64, number: usize, ids: &[u128], contents: &[u32]) -> Page {
    let mut page = [0; PAGE_BYTES];
    for (bytes, id) in page.chunks_exact_mut(ID_BYTES).zip(ids) {
        bytes.copy_from_slice(&id.to_le_bytes());
    }
    for (bytes, content) in page[CONTENTS_AT..COUNT_AT].chunks_exact_mut(CONTENT_BYTES).zip(contents) {
        bytes.copy_from_slice(&content.to_le_bytes());
    }
    page[COUNT_AT..COUNT_AT + 4].copy_from_slice(&(ids.len() as u32).to_le_bytes());
    seal(&mut page, run, number);
    page
}

/// A page of at most [`PAGE_FENCES`] fence keys.
pub(crate) fn page_of_fences(run: u64, number: usize, fences: &[u64]) -> Page {
    let mut page = [0; PAGE_BYTES];
    for (bytes, fence) in page.chunks_exact_mut(size_of::<u64>()).zip(fences) {
        bytes.copy_from_slice(&fence.to_le_bytes());
    }
    seal(&mut page, run, number);
    page
}

/// The fence keys of a page, at most `count`. `None`: it is not what was written there.
pub(crate) fn fences_of_page(page: &Page, run: u64, number: usize, count: usize) -> Option<impl Iterator<Item = u64>> {
    let fences = page[..CHECKSUM_AT].as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes));
    is_sealed(page, run, number).then(|| fences.take(count))
}

fn seal(page: &mut Page, run: u64, number: usize) {
    let sum = checksum(page, run, number);
    page[CHECKSUM_AT..].copy_from_slice(&sum.to_le_bytes());
}

fn is_sealed(page: &Page, run: u64, number: usize) -> bool {
    page[CHECKSUM_AT..] == checksum(page, run, number).to_le_bytes()
}

fn checksum(page: &Page, run: u64, number: usize) -> u64 {
    xxh3_64_with_seed(&page[..CHECKSUM_AT], run.rotate_left(32) ^ number as u64)
}

/// Whether a page of ids is what was written there.
pub(crate) fn is_page_of_ids(page: &Page, run: u64, number: usize) -> bool {
    is_sealed(page, run, number)
}

/// What a page of ids holds.
pub(crate) struct Ids<'a> {
    ids: &'a [[u8; ID_BYTES]],
    contents: &'a [[u8; CONTENT_BYTES]],
}

impl<'a> Ids<'a> {
    /// The ids of a page that was checked.
    pub(crate) fn of(page: &'a Page) -> Self {
        Self::first(page, page[COUNT_AT..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes) as usize))
    }

    /// The first `count` ids of a page that was checked: all that it holds.
    #[inline]
    pub(crate) fn first(page: &'a Page, count: usize) -> Self {
        let (ids, contents) = (page[..CONTENTS_AT].as_chunks().0, page[CONTENTS_AT..COUNT_AT].as_chunks().0);
        Self { ids: &ids[..count.min(PAGE_IDS)], contents }
    }

    /// The content of an id, if it is in the page; it is sought from `guess` on, where it probably is.
    #[inline]
    pub(crate) fn find(&self, id: u128, guess: usize) -> Option<u32> {
        let of = |bytes: &[u8; ID_BYTES]| u128::from_le_bytes(*bytes);
        let (before, after) = self.ids.split_at(guess.min(self.ids.len()));
        let at = match after.first() {
            Some(there) if of(there) <= id => before.len() + after.iter().position(|there| of(there) >= id)?,
            _ => before.iter().rposition(|there| of(there) <= id)?,
        };
        (of(&self.ids[at]) == id).then(|| u32::from_le_bytes(self.contents[at]))
    }

    /// All of them, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u128, u32)> {
        let contents = self.contents.iter().map(|bytes| u32::from_le_bytes(*bytes));
        self.ids.iter().map(|bytes| u128::from_le_bytes(*bytes)).zip(contents)
    }
}
