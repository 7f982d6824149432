//! Looks into a run whose file is mapped into memory: without a call of the system, and several at a time.
//!
//! 1. Ids are hashes, so that where one stands follows nearly from its value. The page is sought around the place that it
//!    would have among evenly spread fence keys, and the id around the place that it would have within its page: a look
//!    touches about one cache line of fence keys, and one page.
//! 2. A group of looks takes each step together, after the memory for the step was asked for: the misses of a group are
//!    waited for at once.
//! 3. A page is copied and checked at every look, and the copy is what is looked into: the system drops pages when memory is
//!    short, also those that the disk did not take, and what it reads again later may be something else.
//! 4. Where the disk fails to give a page, the system ends the process (SIGBUS): no answer is as bad as a wrong one, and
//!    the next start reads the run through calls that tell what is wrong.

use engine::{RunFault, RunId};
use kernels::prefetch;
use memmap2::Mmap;

use crate::{
    fences::{guess_page, guess_place, pages_of},
    format::{Ids, PAGE_BYTES, PAGE_IDS, Page, is_page_of_ids},
};

/// Looks that are under way together: more misses than a core can wait for at once gain nothing.
const GROUP: usize = 32;

/// Bytes that memory gives at a time.
const CACHE_LINE_BYTES: usize = 64;

/// A run in memory.
pub(crate) struct MappedRun {
    run: RunId,
    bytes: Mmap,
    ids: usize,
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
        Self { run, bytes, ids }
    }

    /// Looks for those of the ascending suspects that are not found yet; `page` is where copies of pages go.
    pub(crate) fn confirm(
        &self,
        fences: &[u64],
        page: &mut Page,
        suspects: &[u128],
        found: &mut [Option<u32>],
    ) -> Result<(), RunFault> {
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
                self.prefetch(pages.start);
            }
            for look in &looks[..count] {
                found[look.suspect] = self.look(fences, page, look, suspects[look.suspect])?;
            }
        }
        Ok(())
    }

    /// Asks for the memory of a page of ids.
    fn prefetch(&self, page: usize) {
        (0..PAGE_BYTES)
            .step_by(CACHE_LINE_BYTES)
            .for_each(|line| prefetch(&self.bytes, (page + 1) * PAGE_BYTES + line));
    }

    fn look(&self, fences: &[u64], page: &mut Page, look: &Look, suspect: u128) -> Result<Option<u32>, RunFault> {
        for at in look.first_page..look.end_page {
            self.copy(at, page)?;
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

    /// Copies a page of ids, and checks the copy.
    fn copy(&self, at: usize, into: &mut Page) -> Result<(), RunFault> {
        let damaged = RunFault::Damaged(self.run);
        let page = self.bytes.get((at + 1) * PAGE_BYTES..).and_then(|rest| rest.first_chunk()).ok_or(damaged)?;
        *into = *page;
        if is_page_of_ids(into, self.run.0, at + 1) { Ok(()) } else { Err(damaged) }
    }
}

fn high(id: u128) -> u64 {
    (id >> 64) as u64
}
