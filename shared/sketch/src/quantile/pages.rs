//! Counts by bin, in pages of 64 bins, as many as hold values: a window of page numbers says where each page lies.

use super::bins::{Bins, OCTAVE_BITS};
use crate::{
    DecodeError,
    bytes::{Reader, Writer, checked_rows},
};

const PAGE_BINS: usize = 1 << OCTAVE_BITS;
/// The place of a page that there is not.
const ABSENT: u16 = u16::MAX;

pub(super) type Page = [u64; PAGE_BINS];

/// Counts of the bins of one sign.
#[derive(Debug, Clone, Default)]
pub(super) struct Pages {
    /// The number of the window's first page.
    first: u32,
    /// Where the pages from `first` on lie in `counts`, or [`ABSENT`]; the first and the last are there.
    places: Vec<u16>,
    counts: Vec<Page>,
}

impl PartialEq for Pages {
    fn eq(&self, other: &Self) -> bool {
        self.ascending().eq(other.ascending())
    }
}

/// The bins of a page that hold values.
pub(super) fn filled(page: u32, counts: &Page) -> impl DoubleEndedIterator<Item = (u32, u64)> {
    let first = page << OCTAVE_BITS;
    counts.iter().enumerate().filter(|&(_, &count)| count > 0).map(move |(at, &count)| (first + at as u32, count))
}

impl Pages {
    /// Counts one value of a bin; `false` where its page is absent, and nothing was done.
    #[inline]
    pub(super) fn increment(&mut self, bin: u32) -> bool {
        let place = self.place(bin >> OCTAVE_BITS);
        let Some(counts) = self.counts.get_mut(place) else { return false };
        counts[bin as usize % PAGE_BINS] += 1;
        true
    }

    /// Counts normal values in turn. Where one's page is absent it stops and says at which: those before are counted.
    pub(super) fn increment_all(&mut self, values: &[f64], bins: Bins) -> Option<usize> {
        let (first, places, counts) = (self.first, self.places.as_slice(), self.counts.as_mut_slice());
        values.iter().position(|&value| {
            let bin = bins.of_normal(value);
            let place = places.get((bin >> OCTAVE_BITS).wrapping_sub(first) as usize).copied().unwrap_or(ABSENT);
            let Some(counts) = counts.get_mut(usize::from(place)) else { return true };
            counts[bin as usize % PAGE_BINS] += 1;
            false
        })
    }

    pub(super) fn has(&self, bin: u32) -> bool {
        self.place(bin >> OCTAVE_BITS) < self.counts.len()
    }

    pub(super) fn add(&mut self, bin: u32, count: u64) {
        self.page(bin >> OCTAVE_BITS)[bin as usize % PAGE_BINS] += count;
    }

    /// Adds a whole page; `false` where there is none of this number, and nothing was done.
    pub(super) fn add_page(&mut self, page: u32, more: &Page) -> bool {
        let place = self.place(page);
        let Some(counts) = self.counts.get_mut(place) else { return false };
        counts.iter_mut().zip(more).for_each(|(count, more)| *count += more);
        true
    }

    /// Joins each even bin with the odd one behind it.
    pub(super) fn join_pairs(&mut self) {
        let before = std::mem::take(self);
        for (bin, count) in before.ascending() {
            self.add(bin >> 1, count);
        }
    }

    /// Starts to load all counts, and where they lie.
    pub(super) fn prefetch(&self) {
        kernels::prefetch_all(&self.places);
        kernels::prefetch_all(self.counts.as_flattened());
    }

    /// How many pages there are.
    pub(super) fn len(&self) -> usize {
        self.counts.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.places.capacity() * size_of::<u16>() + self.counts.capacity() * size_of::<Page>()
    }

    /// How many values were counted.
    pub(super) fn count(&self) -> u64 {
        self.counts.iter().flatten().sum()
    }

    /// The pages, in ascending order of their bins.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (u32, &Page)> {
        let places = self.places.iter().enumerate().filter(|&(_, &place)| place != ABSENT);
        places.map(|(at, &place)| (self.first + at as u32, &self.counts[usize::from(place)]))
    }

    /// The bins that hold values.
    pub(super) fn ascending(&self) -> impl Iterator<Item = (u32, u64)> {
        self.iter().flat_map(|(page, counts)| filled(page, counts))
    }

    pub(super) fn descending(&self) -> impl Iterator<Item = (u32, u64)> {
        self.iter().rev().flat_map(|(page, counts)| filled(page, counts).rev())
    }

    /// Writes how many bins hold values, then each one's distance from the one before and its count.
    pub(super) fn write(&self, writer: &mut Writer) {
        writer.varint(self.ascending().count() as u64);
        let mut next = 0;
        for (bin, count) in self.ascending() {
            writer.varint(u64::from(bin - next));
            writer.varint(count);
            next = bin + 1;
        }
    }

    /// Reads what [`Self::write`] wrote. It holds no more pages than there are numbers of them, whatever it reads.
    pub(super) fn read(reader: &mut Reader<'_>, bins: Bins) -> Result<Self, DecodeError> {
        let len = reader.varint()?;
        let (mut pages, mut next, mut rows) = (Self::default(), 0, 0);
        for _ in 0..len {
            let bin = reader.varint()?.checked_add(next).filter(|&bin| bin < u64::from(bins.end()));
            let bin = bin.ok_or(DecodeError::Invalid("a bin is of no double"))?;
            let count = reader.varint()?;
            if count == 0 {
                return Err(DecodeError::Invalid("a bin without a value is listed"));
            }
            rows = checked_rows(rows, count)?;
            pages.add(bin as u32, count);
            next = bin + 1;
        }
        Ok(pages)
    }

    /// Where a page lies; beyond all pages where it is absent.
    #[inline]
    fn place(&self, page: u32) -> usize {
        let place = self.places.get(page.wrapping_sub(self.first) as usize).copied();
        usize::from(place.unwrap_or(ABSENT))
    }

    /// The page of a number, made where it is absent.
    fn page(&mut self, page: u32) -> &mut Page {
        let mut place = self.place(page);
        if place >= self.counts.len() {
            if self.places.is_empty() {
                self.first = page;
            }
            if page < self.first {
                let missing = (self.first - page) as usize;
                self.places.splice(..0, std::iter::repeat_n(ABSENT, missing));
                self.first = page;
            }
            let at = (page - self.first) as usize;
            if at >= self.places.len() {
                self.places.resize(at + 1, ABSENT);
            }
            place = self.counts.len();
            self.places[at] = place as u16;
            self.counts.push([0; PAGE_BINS]);
        }
        &mut self.counts[place]
    }
}
