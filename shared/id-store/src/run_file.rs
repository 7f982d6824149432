//! A run as a file: writing it from the front, looking into it, and reading it from the front.

use std::{io, sync::Arc};

use engine::{RunFault, RunId};

use crate::{
    fences::{guess_place, pages_of},
    files::{NewRunFile, RunFile, RunFiles},
    format::{
        Ids, Layout, PAGE_BYTES, PAGE_FENCES, PAGE_IDS, Page, fences_of_page, head, ids_of_head, is_page_of_ids,
        page_of_fences, page_of_ids,
    },
    mapped::MappedRun,
    run::Run,
};

/// Pages that are written or read at a time where that is in order.
const PAGES_AT_ONCE: usize = 64;

/// The name of a run's file.
pub(crate) fn name_of(run: RunId) -> String {
    format!("{:020}{SUFFIX}", run.0)
}

/// The run that a file's name says; `None`: it is none of ours.
pub(crate) fn run_of(name: &str) -> Option<RunId> {
    name.strip_suffix(SUFFIX)?.parse().ok().map(RunId)
}

const SUFFIX: &str = ".run";

/// A run that is written, and open.
pub(crate) struct RunOnDisk {
    run: RunId,
    file: Arc<dyn RunFile>,
    ids: usize,
    /// The high half of the first id of each page.
    fences: Vec<u64>,
    /// Its bytes, where the file layer has them in memory.
    mapped: Option<MappedRun>,
}

impl RunOnDisk {
    fn new(run: RunId, file: Arc<dyn RunFile>, ids: usize, fences: Vec<u64>) -> Self {
        let length = Layout::of(ids).pages * PAGE_BYTES;
        let mapped = file.map().filter(|bytes| bytes.len() == length).map(|bytes| MappedRun::new(run, bytes, ids));
        Self { run, file, ids, fences, mapped }
    }

    /// Opens a run of an earlier life. Its head, its length and its fence keys are checked.
    pub(crate) fn open(files: &dyn RunFiles, run: RunId) -> Result<Self, RunFault> {
        let file = files.open(&name_of(run)).map_err(|error| fault(run, &error))?;
        let mut page = [0; PAGE_BYTES];
        file.read_exact_at(&mut page, 0).map_err(|error| fault(run, &error))?;
        let ids = ids_of_head(&page, run.0).ok_or(RunFault::Damaged(run))?;
        let layout = Layout::of(ids);
        if file.size().map_err(|error| fault(run, &error))? != (layout.pages * PAGE_BYTES) as u64 {
            return Err(RunFault::Damaged(run));
        }
        let mut fences = Vec::with_capacity(layout.id_pages);
        for number in 1 + layout.id_pages..layout.pages {
            file.read_exact_at(&mut page, (number * PAGE_BYTES) as u64).map_err(|error| fault(run, &error))?;
            let left = layout.id_pages - fences.len();
            fences.extend(fences_of_page(&page, run.0, number, left).ok_or(RunFault::Damaged(run))?);
        }
        Ok(Self::new(run, file, ids, fences))
    }

    pub(crate) fn ids(&self) -> usize {
        self.ids
    }

    /// Bytes of memory.
    pub(crate) fn bytes(&self) -> usize {
        self.fences.capacity() * size_of::<u64>()
    }

    pub(crate) fn sync(&self) -> Result<(), RunFault> {
        self.file.sync().map_err(|error| fault(self.run, &error))
    }

    /// Looks for ascending suspects. Where the file is not in memory, each page that may hold one is read once, into `page`.
    pub(crate) fn confirm(
        &self,
        page: &mut Page,
        suspects: &[u128],
        found: &mut [Option<u32>],
    ) -> Result<(), RunFault> {
        if let Some(mapped) = &self.mapped {
            return mapped.confirm(&self.fences, page, suspects, found);
        }
        let mut in_page = None;
        for (suspect, found) in suspects.iter().zip(found).filter(|(_, found)| found.is_none()) {
            let high = (suspect >> 64) as u64;
            // Pages may begin with the same high half: then each of them may hold the suspect.
            for at in pages_of(&self.fences, high) {
                if in_page != Some(at) {
                    self.read_page(page, at)?;
                    in_page = Some(at);
                }
                *found = Ids::of(page).find(*suspect, guess_place(&self.fences, at, high, PAGE_IDS));
                if found.is_some() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Shows all ids to `each`, ascending, some at a time.
    pub(crate) fn scan(&self, each: &mut dyn FnMut(&[u128])) -> Result<(), RunFault> {
        let mut ids = Vec::with_capacity(PAGES_AT_ONCE * PAGE_IDS);
        let mut pages = vec![[0; PAGE_BYTES]; PAGES_AT_ONCE];
        let (mut at, mut seen) = (0, 0);
        while at < self.fences.len() {
            let read = self.read_pages(&mut pages, at)?;
            ids.clear();
            pages[..read].iter().for_each(|page| ids.extend(Ids::of(page).iter().map(|(id, _)| id)));
            each(&ids);
            (at, seen) = (at + read, seen + ids.len());
        }
        if seen == self.ids { Ok(()) } else { Err(RunFault::Damaged(self.run)) }
    }

    fn read_page(&self, page: &mut Page, at: usize) -> Result<(), RunFault> {
        self.read_pages(std::slice::from_mut(page), at).map(drop)
    }

    /// Reads and checks pages of ids from the one at `at` on, as many as there are and fit; says how many.
    fn read_pages(&self, pages: &mut [Page], at: usize) -> Result<usize, RunFault> {
        let count = pages.len().min(self.fences.len() - at);
        let position = ((at + 1) * PAGE_BYTES) as u64;
        let read = self.file.read_exact_at(pages[..count].as_flattened_mut(), position);
        read.map_err(|error| fault(self.run, &error))?;
        let mut numbered = pages[..count].iter().zip(at + 1..);
        let sound = numbered.all(|(page, number)| is_page_of_ids(page, self.run.0, number));
        if sound { Ok(count) } else { Err(RunFault::Damaged(self.run)) }
    }
}

/// A file that ends too early is damaged; anything else may pass.
fn fault(run: RunId, error: &io::Error) -> RunFault {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => RunFault::Damaged(run),
        io::ErrorKind::NotFound => RunFault::Unknown(run),
        kind => RunFault::Io(kind),
    }
}

/// Writes a run whose ids come in ascending order.
pub(crate) struct RunWriter {
    run: RunId,
    file: Box<dyn NewRunFile>,
    /// Ids that were announced.
    ids: usize,
    /// Those of the page that is being filled.
    page_ids: Vec<u128>,
    page_contents: Vec<u32>,
    /// Pages that wait to be written together.
    pages: Vec<Page>,
    fences: Vec<u64>,
    pushed: usize,
}

impl RunWriter {
    /// Begins the file of a run with `ids` ids.
    pub(crate) fn create(files: &dyn RunFiles, run: RunId, ids: usize) -> io::Result<Self> {
        let file = files.create(&name_of(run))?;
        let mut pages = Vec::with_capacity(PAGES_AT_ONCE);
        pages.push(head(run.0, ids));
        let fences = Vec::with_capacity(Layout::of(ids).id_pages);
        let (page_ids, page_contents) = (Vec::with_capacity(PAGE_IDS), Vec::with_capacity(PAGE_IDS));
        Ok(Self { run, file, ids, page_ids, page_contents, pages, fences, pushed: 0 })
    }

    pub(crate) fn push(&mut self, id: u128, content: u32) -> io::Result<()> {
        self.page_ids.push(id);
        self.page_contents.push(content);
        self.pushed += 1;
        if self.page_ids.len() == PAGE_IDS { self.end_page() } else { Ok(()) }
    }

    fn end_page(&mut self) -> io::Result<()> {
        let Some(first) = self.page_ids.first() else { return Ok(()) };
        self.fences.push((first >> 64) as u64);
        let page = page_of_ids(self.run.0, self.fences.len(), &self.page_ids, &self.page_contents);
        self.page_ids.clear();
        self.page_contents.clear();
        self.put(page)
    }

    fn put(&mut self, page: Page) -> io::Result<()> {
        self.pages.push(page);
        if self.pages.len() < PAGES_AT_ONCE {
            return Ok(());
        }
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.append(self.pages.as_flattened())?;
        self.pages.clear();
        Ok(())
    }

    /// Ends the file.
    ///
    /// # Errors
    /// As the system has it; or not as many ids came as the head of the file announced.
    pub(crate) fn finish(mut self) -> io::Result<RunOnDisk> {
        if self.pushed != self.ids {
            let Self { pushed, ids, .. } = self;
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{pushed} ids came instead of {ids}")));
        }
        self.end_page()?;
        let fences = std::mem::take(&mut self.fences);
        for (at, part) in fences.chunks(PAGE_FENCES).enumerate() {
            self.put(page_of_fences(self.run.0, 1 + fences.len() + at, part))?;
        }
        self.flush()?;
        Ok(RunOnDisk::new(self.run, self.file.finish()?, self.ids, fences))
    }
}

/// Reads a run from the front, id by id.
pub(crate) struct RunReader {
    run: Arc<Run>,
    pages: Vec<Page>,
    /// The next page to read.
    page: usize,
    ids: Vec<(u128, u32)>,
    /// The next of `ids`.
    next: usize,
}

impl RunReader {
    /// Reads a run that is on disk.
    pub(crate) fn new(run: Arc<Run>) -> Result<Self, RunFault> {
        let pages = vec![[0; PAGE_BYTES]; PAGES_AT_ONCE];
        let mut reader = Self { run, pages, page: 0, ids: Vec::new(), next: 0 };
        reader.refill()?;
        Ok(reader)
    }

    /// The id to come; `None` at the end.
    pub(crate) fn peek(&self) -> Option<(u128, u32)> {
        self.ids.get(self.next).copied()
    }

    pub(crate) fn advance(&mut self) -> Result<(), RunFault> {
        self.next += 1;
        if self.next < self.ids.len() { Ok(()) } else { self.refill() }
    }

    fn refill(&mut self) -> Result<(), RunFault> {
        let disk = self.run.on_disk().ok_or(RunFault::Unknown(self.run.id))?;
        self.next = 0;
        self.ids.clear();
        if self.page < disk.fences.len() {
            let read = disk.read_pages(&mut self.pages, self.page)?;
            self.pages[..read].iter().for_each(|page| self.ids.extend(Ids::of(page).iter()));
            self.page += read;
        }
        Ok(())
    }
}
