//! The runs of one partition.

use std::{collections::HashMap, fmt, io, path::Path};

use engine::{IdRuns, RunFault, RunId};

use crate::{
    files::{DiskFiles, RunFile, RunFiles},
    format::{BLOCK_BYTES, BLOCK_IDS, Block, check, fill, head},
};

/// Blocks that are filled before they are written: bounds what is copied at a time.
const WRITE_BLOCKS: usize = 64;

/// The directory of runs cannot be made or emptied.
#[derive(Debug, thiserror::Error)]
#[error("prepare the directory of id runs")]
pub struct OpenError(#[from] io::Error);

/// Runs in files. One per partition, in a directory of its own.
pub struct IdStore {
    files: Box<dyn RunFiles>,
    runs: HashMap<RunId, Run>,
    next: u64,
    block: Box<Block>,
}

struct Run {
    file: Box<dyn RunFile>,
    /// The first id of each block.
    fences: Vec<u128>,
}

impl fmt::Debug for IdStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdStore").field("runs", &self.runs.len()).finish_non_exhaustive()
    }
}

impl IdStore {
    /// An empty store in a directory of the local disk; files that are there from an earlier life are removed.
    ///
    /// # Errors
    /// As the system has it.
    pub fn open_on_disk(dir: &Path) -> Result<Self, OpenError> {
        Ok(Self::new(Box::new(DiskFiles::open_empty(dir)?)))
    }

    /// An empty store over a directory without files.
    #[must_use]
    pub fn new(files: Box<dyn RunFiles>) -> Self {
        Self { files, runs: HashMap::new(), next: 0, block: Box::new([0; BLOCK_BYTES]) }
    }

    fn write(&mut self, run: RunId, ids: &[u128], contents: &[u32]) -> io::Result<Run> {
        let head = head(run.0, ids);
        let mut buffer = vec![[0; BLOCK_BYTES]; WRITE_BLOCKS.min(ids.len().div_ceil(BLOCK_IDS))];
        let mut writer = BlockWriter { run, ids, contents, number: 0, buffer: &mut buffer };
        let file = self.files.write(&name_of(run), &mut |sink| {
            sink(&head)?;
            while let Some(blocks) = writer.next() {
                sink(blocks)?;
            }
            Ok(())
        })?;
        Ok(Run { file, fences: ids.chunks(BLOCK_IDS).map(|block| block[0]).collect() })
    }
}

/// Makes a run's blocks, some at a time.
struct BlockWriter<'a> {
    run: RunId,
    ids: &'a [u128],
    contents: &'a [u32],
    number: u64,
    buffer: &'a mut [Block],
}

impl BlockWriter<'_> {
    /// The next blocks; `None` after the last.
    fn next(&mut self) -> Option<&[u8]> {
        let mut filled = 0;
        for block in self.buffer.iter_mut().take_while(|_| !self.ids.is_empty()) {
            let count = self.ids.len().min(BLOCK_IDS);
            let (ids, contents);
            (ids, self.ids) = self.ids.split_at(count);
            (contents, self.contents) = self.contents.split_at(count);
            fill(block, self.run.0, self.number, ids, contents);
            self.number += 1;
            filled += 1;
        }
        (filled > 0).then(|| self.buffer[..filled].as_flattened())
    }
}

fn name_of(run: RunId) -> String {
    format!("{:016}.run", run.0)
}

impl IdRuns for IdStore {
    fn write_run(&mut self, ids: &[u128], contents: &[u32]) -> Result<RunId, RunFault> {
        let run = RunId(self.next);
        self.next += 1;
        match self.write(run, ids, contents) {
            Ok(written) => {
                self.runs.insert(run, written);
                Ok(run)
            }
            Err(error) => {
                tracing::error!(run = run.0, ids = ids.len(), %error, "a run of ids cannot be written; memory keeps it");
                // What there is of it takes room that may be the very thing that is lacking.
                let _ = self.files.remove(&name_of(run));
                Err(RunFault::Io(error.kind()))
            }
        }
    }

    fn confirm(&mut self, run: RunId, suspects: &[u128], found: &mut [Option<u32>]) -> Result<(), RunFault> {
        let Self { runs, block, .. } = self;
        let Run { file, fences } = runs.get(&run).ok_or(RunFault::Unknown(run))?;
        let mut suspects = suspects.iter().zip(found).peekable();
        while let Some((suspect, _)) = suspects.peek() {
            // The block of the last fence that is not greater; before the first there is nothing.
            let Some(number) = fences.partition_point(|fence| *fence <= **suspect).checked_sub(1) else {
                suspects.next();
                continue;
            };
            let position = (number as u64 + 1) * BLOCK_BYTES as u64;
            file.read_exact_at(block.as_mut_slice(), position).map_err(|error| fault(run, &error))?;
            let ids = check(block, run.0, number as u64).ok_or(RunFault::Damaged(run))?;
            let end = fences.get(number + 1).copied();
            let in_block = |id: &u128| end.is_none_or(|end| *id < end);
            while let Some((suspect, found)) = suspects.next_if(|(suspect, _)| in_block(suspect)) {
                if let Some(content) = ids.find(*suspect) {
                    *found = Some(content);
                }
            }
        }
        Ok(())
    }

    fn drop_run(&mut self, run: RunId) {
        if self.runs.remove(&run).is_some()
            && let Err(error) = self.files.remove(&name_of(run))
        {
            tracing::warn!(run = run.0, %error, "the file of a run that is no longer needed cannot be removed");
        }
    }
}

/// A file that ends too early is damaged; anything else may pass.
fn fault(run: RunId, error: &io::Error) -> RunFault {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => RunFault::Damaged(run),
        kind => RunFault::Io(kind),
    }
}
