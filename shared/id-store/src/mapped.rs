//! Looks into a run whose file is mapped into memory: without a call of the system, and several at a time.
//!
//! 1. Ids are hashes, so that where one stands follows nearly from its value. The page is sought around the place that it
//!    would have among evenly spread fence keys, and the id around the place that it would have within its page: a look
//!    touches about one cache line of fence keys, two of ids and one of contents.
//! 2. A group of looks takes each step together, after the memory for the step was asked for: the misses of a group are
//!    waited for at once.
//! 3. A page is checked when it is looked into for the first time since the file was mapped. From then on it is memory like
//!    any other.
//! 4. Where the disk fails to give a page, the system ends the process (SIGBUS): no answer is as bad as a wrong one, and
//!    the next start reads the run through calls that tell what is wrong.

use std::sync::atomic::{AtomicU64, Ordering};

use engine::{RunFault, RunId};
use kernels::prefetch;
use memmap2::Mmap;

use crate::{
    fences::{guess_page, guess_place, pages_of},
    format::{Ids, PAGE_BYTES, PAGE_IDS, Page, is_page_of_ids, place_of_content, place_of_id},
};

/// Looks that are under way together: more misses than a core can wait for at once gain nothing.
const GROUP: usize = 32;

/// A run in memory.
pub(crate) struct MappedRun {
    run: RunId,
    bytes: Mmap,
    ids: usize,
    /// A bit for each page of ids: it was found to be as it was written.
    checked: Box<[AtomicU64]>,
}

/// A look under way: the place of the suspect, and the pages that may hold it.
#[derive(Clone, Copy, Default)]
struct Look {
    suspect: usize,
    first_page: usize,
    end_page: usize,
}

impl MappedRun {
    /// `bytes`: the whole file of a run of `ids` ids.
    pub(crate) fn new(run: RunId, bytes: Mmap, ids: usize) -> Self {
        let words = ids.div_ceil(PAGE_IDS).div_ceil(u64::BITS as usize);
        Self { run, bytes, ids, checked: (0..words).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Bytes of memory that are its own: pages of the file are the system's.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.checked)
    }

    /// Looks for those of the ascending suspects that are not found yet.
    pub(crate) fn confirm(&self, fences: &[u64], suspects: &[u128], found: &mut [Option<u32>]) -> Result<(), RunFault> {
        let mut next = 0;
        while next < suspects.len() {
            let (mut looks, mut count) = ([Look::default(); GROUP], 0);
            while count < GROUP && next < suspects.len() {
                if found[next].is_none() {
                    looks[count].suspect = next;
                    prefetch(fences, guess_page(fences, high(suspects[next])));
                    count += 1;
                }
                next += 1;
            }
            for look in &mut looks[..count] {
                let suspect = suspects[look.suspect];
                let pages = pages_of(fences, high(suspect));
                (look.first_page, look.end_page) = (pages.start, pages.end);
                self.prefetch(fences, pages.start, suspect);
            }
            for look in &looks[..count] {
                found[look.suspect] = self.look(fences, look, suspects[look.suspect])?;
            }
        }
        Ok(())
    }

    fn prefetch(&self, fences: &[u64], page: usize, suspect: u128) {
        let place = guess_place(fences, page, high(suspect), self.ids_of(page));
        let start = (page + 1) * PAGE_BYTES;
        // Ids stand within three places of the guess in two of three looks.
        prefetch(&self.bytes, start + place_of_id(place.saturating_sub(3)));
        prefetch(&self.bytes, start + place_of_id(place + 3));
        prefetch(&self.bytes, start + place_of_content(place));
    }

    fn look(&self, fences: &[u64], look: &Look, suspect: u128) -> Result<Option<u32>, RunFault> {
        for at in look.first_page..look.end_page {
            let page = self.checked_page(at)?;
            let count = self.ids_of(at);
            let found = Ids::first(page, count).find(suspect, guess_place(fences, at, high(suspect), count));
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// How many ids a page holds: all hold as many as they can but the last.
    fn ids_of(&self, page: usize) -> usize {
        (self.ids - (page * PAGE_IDS).min(self.ids)).min(PAGE_IDS)
    }

    fn checked_page(&self, at: usize) -> Result<&Page, RunFault> {
        let damaged = RunFault::Damaged(self.run);
        let page = self.bytes.get((at + 1) * PAGE_BYTES..).and_then(|rest| rest.first_chunk()).ok_or(damaged)?;
        let (word, bit) = (&self.checked[at / u64::BITS as usize], 1 << (at % u64::BITS as usize));
        // Relaxed: the bit stands for bytes that do not change, and says nothing about any other memory.
        if word.load(Ordering::Relaxed) & bit == 0 {
            if !is_page_of_ids(page, self.run.0, at + 1) {
                return Err(damaged);
            }
            word.fetch_or(bit, Ordering::Relaxed);
        }
        Ok(page)
    }
}

fn high(id: u128) -> u64 {
    (id >> 64) as u64
}
