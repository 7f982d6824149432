//! The store: one thread that writes, any number of readers.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use crossbeam_channel::{Receiver, Sender, TrySendError};
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use crate::in_flight::Holding;

use super::{
    Drawer, Letter,
    files::{Files, Limits, Written},
    line,
};

/// Requests that wait for the writing thread.
const QUEUE_REQUESTS_MAX: usize = 1_024;
/// Requests that share one sync.
const GROUP_REQUESTS_MAX: usize = 256;
/// Files that are synced at one time.
const SYNCS_MAX: usize = 16;
/// Bytes of letters in one page, about.
const PAGE_BYTES_MAX: usize = 4 << 20;

/// Why letters were not kept or could not be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DeadLetterError {
    /// Too many requests wait for the disk.
    #[error("too many letters wait to be written")]
    Busy,
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
    /// The disk failed.
    #[error("disk: {0}")]
    Io(Arc<io::Error>),
    /// No cursor of these letters.
    #[error("not a cursor of these letters")]
    Cursor,
}

impl From<io::Error> for DeadLetterError {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

/// Some letters of a table, the oldest first.
#[derive(Debug)]
pub struct Page {
    /// Letters as JSON objects.
    pub letters: Vec<Box<RawValue>>,
    /// Where the next page starts; `None` at the end.
    pub cursor: Option<String>,
}

struct Put {
    lines: BTreeMap<Drawer, Vec<u8>>,
    /// What they hold of the bytes in flight, also where their request was given up.
    _held: Holding,
    stored: oneshot::Sender<Result<(), DeadLetterError>>,
}

/// The dead letters of all tables.
pub struct DeadLetters {
    files: Arc<Mutex<Files>>,
    queue: Mutex<Option<Sender<Put>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl DeadLetters {
    /// Opens the store in a directory, which is created if need be.
    ///
    /// # Errors
    /// The directory cannot be read or written, or no thread can be started.
    pub fn open(root: &Path, limits: Limits) -> io::Result<Self> {
        let files = Arc::new(Mutex::new(Files::open(root, limits)?));
        let (queue, puts) = crossbeam_channel::bounded(QUEUE_REQUESTS_MAX);
        let for_writer = Arc::clone(&files);
        let writer = thread::Builder::new().name("dead-letters".into()).spawn(move || write_all(&for_writer, &puts))?;
        Ok(Self { files, queue: Mutex::new(Some(queue)), writer: Mutex::new(Some(writer)) })
    }

    /// Keeps letters, whose bytes `held` counts until they are on disk. When this returns they are.
    ///
    /// # Errors
    /// They are not known to be on disk.
    pub(crate) async fn put(
        &self,
        letters: impl IntoIterator<Item = (Drawer, Letter)>,
        held: Holding,
    ) -> Result<(), DeadLetterError> {
        let mut lines = BTreeMap::<Drawer, Vec<u8>>::new();
        for (drawer, letter) in letters {
            line::encode(&letter, lines.entry(drawer).or_default());
        }
        if lines.is_empty() {
            return Ok(());
        }
        let (stored, done) = oneshot::channel();
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match queue.ok_or(DeadLetterError::Closed)?.try_send(Put { lines, _held: held, stored }) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(DeadLetterError::Busy),
            Err(TrySendError::Disconnected(_)) => return Err(DeadLetterError::Closed),
        }
        done.await.unwrap_or(Err(DeadLetterError::Closed))
    }

    /// How many letters of a table there are. Blocks while letters are being synced.
    #[must_use]
    pub fn count(&self, drawer: &Drawer) -> u64 {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).letters(drawer)
    }

    /// At most `limit` letters of a table from `cursor` on, the oldest first. Blocks on the disk.
    ///
    /// # Errors
    /// The cursor is none of ours, or the disk failed.
    pub fn page(&self, drawer: &Drawer, cursor: Option<&str>, limit: usize) -> Result<Page, DeadLetterError> {
        let (number, offset) = cursor.map_or(Ok((0, 0)), decode_cursor)?;
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner).from(drawer, number);
        let mut page = Page { letters: Vec::new(), cursor: None };
        let mut page_bytes = 0;
        for (file, path, bytes) in files {
            // A file that the cursor named and that has left meanwhile is passed over: reading goes on with the next.
            let from = if file == number { offset } else { 0 };
            let Some(mut lines) = Lines::open(&path, from, bytes)? else { continue };
            loop {
                let at = lines.at;
                let Some(line) = lines.next()? else { break };
                if page.letters.len() >= limit || page_bytes >= PAGE_BYTES_MAX {
                    page.cursor = Some(encode_cursor(file, at));
                    return Ok(page);
                }
                page_bytes += line.len();
                match line::decode(line) {
                    Some(letter) => page.letters.push(letter),
                    None => tracing::error!(path = %path.display(), at, "a dead letter is damaged"),
                }
            }
        }
        Ok(page)
    }

    /// Writes what is queued, then refuses more. Blocks on the disk.
    pub fn close(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if writer.is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the writer of dead letters panicked");
        }
    }
}

impl Drop for DeadLetters {
    fn drop(&mut self) {
        self.close();
    }
}

/// Lines of a file up to a length, from a position that must be a line's start.
struct Lines {
    reader: io::Take<BufReader<File>>,
    at: u64,
    line: Vec<u8>,
}

impl Lines {
    fn open(path: &PathBuf, from: u64, bytes: u64) -> Result<Option<Self>, DeadLetterError> {
        let mut file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        if from > bytes {
            return Err(DeadLetterError::Cursor);
        }
        if from > 0 {
            let mut before = [0];
            file.seek(SeekFrom::Start(from - 1))?;
            file.read_exact(&mut before)?;
            if before != *b"\n" {
                return Err(DeadLetterError::Cursor);
            }
        }
        Ok(Some(Self { reader: BufReader::new(file).take(bytes - from), at: from, line: Vec::new() }))
    }

    fn next(&mut self) -> io::Result<Option<&[u8]>> {
        self.line.clear();
        let read = self.reader.read_until(b'\n', &mut self.line)?;
        self.at += read as u64;
        Ok((read > 0).then(|| self.line.strip_suffix(b"\n").unwrap_or(&self.line)))
    }
}

fn write_all(files: &Mutex<Files>, puts: &Receiver<Put>) {
    while let Ok(first) = puts.recv() {
        let group: Vec<_> = std::iter::once(first).chain(puts.try_iter().take(GROUP_REQUESTS_MAX - 1)).collect();
        let mut lines = BTreeMap::<&Drawer, Vec<u8>>::new();
        for (drawer, more) in group.iter().flat_map(|put| &put.lines) {
            lines.entry(drawer).or_default().extend_from_slice(more);
        }
        let failed = write_group(files, &lines);
        for put in group {
            let error = put.lines.keys().find_map(|drawer| failed.get(drawer));
            // Nobody waits where the request was given up; the letters are kept all the same.
            let _ = put.stored.send(error.cloned().map_or(Ok(()), Err));
        }
    }
}

/// Writes the lines of a group, then syncs all of it, some files at a time, then shows it. Returns what failed.
fn write_group(files: &Mutex<Files>, lines: &BTreeMap<&Drawer, Vec<u8>>) -> BTreeMap<Drawer, DeadLetterError> {
    let lock = || files.lock().unwrap_or_else(PoisonError::into_inner);
    let mut failed = BTreeMap::new();
    let mut fail = |drawer: &Drawer, error: io::Error| {
        tracing::error!(%error, "dead letters cannot be written");
        failed.insert(drawer.clone(), DeadLetterError::from(error));
    };
    let mut written = Vec::with_capacity(lines.len());
    for (drawer, lines) in lines {
        match lock().write(drawer, lines) {
            Ok(unsynced) => written.push(unsynced),
            Err(error) => fail(drawer, error),
        }
    }
    // Not under the lock: who reads letters does not wait for the disk to take others.
    let synced = sync_all(&written);
    for (written, synced) in written.iter().zip(synced) {
        match lock().synced(written, synced) {
            Ok(0) => {}
            Ok(left) => metrics::counter!("truenow_dead_letters_dropped_total").increment(left),
            Err(error) => fail(written.drawer(), error),
        }
    }
    failed
}

/// Syncs files side by side: a disk takes the syncs of many files for little more than that of one.
fn sync_all(written: &[Written]) -> Vec<io::Result<()>> {
    let share = written.len().div_ceil(SYNCS_MAX).max(1);
    let sync = |some: &[Written]| some.iter().map(Written::sync).collect::<Vec<_>>();
    thread::scope(|scope| {
        let mut parts = written.chunks(share);
        // The first part is this thread's: a single file needs no other.
        let first = parts.next().unwrap_or_default();
        let others: Vec<_> = parts
            .map(|part| {
                (part, thread::Builder::new().name("dead-letter-sync".into()).spawn_scoped(scope, || sync(part)))
            })
            .collect();
        let mut synced = sync(first);
        for (part, thread) in others {
            // Where the system gives no thread, or one panicked, the syncs are done here.
            let done = thread.ok().and_then(|thread| thread.join().ok());
            synced.extend(done.unwrap_or_else(|| sync(part)));
        }
        synced
    })
}

fn encode_cursor(file: u64, at: u64) -> String {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&file.to_le_bytes());
    bytes[8..].copy_from_slice(&at.to_le_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

fn decode_cursor(text: &str) -> Result<(u64, u64), DeadLetterError> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| DeadLetterError::Cursor)?;
    let bytes: [u8; 16] = bytes.try_into().map_err(|_| DeadLetterError::Cursor)?;
    let (file, at) = bytes.split_at(8);
    let word = |half: &[u8]| u64::from_le_bytes(half.try_into().expect("half of sixteen bytes"));
    Ok((word(file), word(at)))
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;

    use types::{ErrorCode, TableName, TenantId, Timestamp};

    use super::*;

    fn drawer(table: &str) -> Drawer {
        Drawer::new(TenantId(1), TableName::new("shop", table)).unwrap()
    }

    fn letter(n: usize) -> Letter {
        Letter {
            received: Timestamp(n as i64),
            code: ErrorCode::InvalidArgument,
            message: format!("letter {n}"),
            event: RawValue::from_string(format!("{{\"n\":{n}}}")).unwrap(),
        }
    }

    fn read_all(store: &DeadLetters, drawer: &Drawer, limit: usize) -> Vec<String> {
        let (mut messages, mut cursor) = (Vec::new(), None);
        loop {
            let page = store.page(drawer, cursor.as_deref(), limit).unwrap();
            assert!(page.letters.len() <= limit);
            for letter in page.letters {
                let value: serde_json::Value = serde_json::from_str(letter.get()).unwrap();
                messages.push(value["message"].as_str().unwrap().to_owned());
            }
            match page.cursor {
                Some(next) => cursor = Some(next),
                None => return messages,
            }
        }
    }

    /// Goal: letters survive a restart in order, page by page, each table and tenant with its own; a line that a crash
    /// cut off is removed and what follows is appended after the whole ones.
    #[tokio::test]
    async fn letters_survive_restarts_and_torn_tails() {
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits { file_bytes: 500, ..Limits::default() };
        let expected: Vec<_> = (0..20).map(|n| format!("letter {n}")).collect();
        {
            let store = DeadLetters::open(dir.path(), limits).unwrap();
            for n in 0..20 {
                store
                    .put([(drawer("events"), letter(n)), (drawer("other"), letter(100 + n))], Holding::nothing())
                    .await
                    .unwrap();
            }
            assert_eq!(read_all(&store, &drawer("events"), 7), expected);
        }
        let newest = newest_file(&dir.path().join("1/shop/events"));
        let file = OpenOptions::new().write(true).open(&newest).unwrap();
        file.set_len(file.metadata().unwrap().len() - 5).unwrap();
        let store = DeadLetters::open(dir.path(), limits).unwrap();
        assert_eq!(read_all(&store, &drawer("events"), 3), expected[..19]);
        assert_eq!(store.count(&drawer("events")), 19);
        store.put([(drawer("events"), letter(20))], Holding::nothing()).await.unwrap();
        assert_eq!(read_all(&store, &drawer("events"), 1_000).last().unwrap(), "letter 20");
        assert_eq!(read_all(&store, &drawer("other"), 1_000).len(), 20);
        assert_eq!((store.count(&drawer("events")), store.count(&drawer("other"))), (20, 20));
        let stranger = Drawer { tenant: TenantId(2), ..drawer("events") };
        assert!(read_all(&store, &stranger, 10).is_empty());
    }

    /// Goal: neither one table nor ever new tables outgrow the limits; the oldest letters leave first.
    #[tokio::test]
    async fn the_oldest_leave_by_size() {
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits { file_bytes: 300, table_bytes_max: 1_200, store_bytes_max: 40_000 };
        let store = DeadLetters::open(dir.path(), limits).unwrap();
        for n in 0..100 {
            store.put([(drawer("events"), letter(n))], Holding::nothing()).await.unwrap();
        }
        let kept = read_all(&store, &drawer("events"), 1_000);
        assert!((5..20).contains(&kept.len()), "{}", kept.len());
        assert_eq!(store.count(&drawer("events")), kept.len() as u64);
        assert_eq!(kept.last().unwrap(), "letter 99");
        for n in 0..50 {
            store.put([(drawer(&format!("t{n}")), letter(n))], Holding::nothing()).await.unwrap();
        }
        assert!(std::fs::read_dir(dir.path().join("1/shop")).unwrap().count() <= 10);
        assert!(read_all(&store, &drawer("t0"), 10).is_empty());
        assert_eq!(read_all(&store, &drawer("t49"), 10), ["letter 49"]);
    }

    /// Goal: letters of many tables in one request, new tables and old ones, all are there when it is answered, and after a
    /// restart; a table that cannot be written fails alone.
    #[tokio::test]
    async fn many_tables_share_a_group() {
        let dir = tempfile::tempdir().unwrap();
        let tables: Vec<_> = (0..100).map(|n| drawer(&format!("t{n}"))).collect();
        {
            let store = DeadLetters::open(dir.path(), Limits::default()).unwrap();
            for round in 0..2 {
                let letters = tables.iter().map(|drawer| (drawer.clone(), letter(round)));
                store.put(letters.collect::<Vec<_>>(), Holding::nothing()).await.unwrap();
            }
            // A file where the table's directory should be.
            std::fs::write(dir.path().join("1/shop/blocked"), "").unwrap();
            let both = [(drawer("blocked"), letter(1)), (drawer("t0"), letter(2))];
            assert!(matches!(store.put(both, Holding::nothing()).await, Err(DeadLetterError::Io(_))));
            std::fs::remove_file(dir.path().join("1/shop/blocked")).unwrap();
            store.put([(drawer("blocked"), letter(3))], Holding::nothing()).await.unwrap();
        }
        let store = DeadLetters::open(dir.path(), Limits::default()).unwrap();
        assert_eq!(read_all(&store, &tables[0], 10), ["letter 0", "letter 1", "letter 2"]);
        for drawer in &tables[1..] {
            assert_eq!(read_all(&store, drawer, 10), ["letter 0", "letter 1"]);
        }
        assert_eq!(read_all(&store, &drawer("blocked"), 10), ["letter 3"]);
    }

    /// Goal: a made-up cursor is an error, never a panic or a half letter.
    #[tokio::test]
    async fn cursors_are_distrusted() {
        let dir = tempfile::tempdir().unwrap();
        let store = DeadLetters::open(dir.path(), Limits::default()).unwrap();
        store.put([(drawer("events"), letter(1))], Holding::nothing()).await.unwrap();
        for cursor in ["", "!", "AAAA", &encode_cursor(1, 3), &encode_cursor(1, u64::MAX)] {
            assert!(matches!(store.page(&drawer("events"), Some(cursor), 1), Err(DeadLetterError::Cursor)), "{cursor}");
        }
        store.close();
        assert!(matches!(
            store.put([(drawer("events"), letter(1))], Holding::nothing()).await,
            Err(DeadLetterError::Closed)
        ));
    }

    fn newest_file(dir: &Path) -> PathBuf {
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).max().unwrap()
    }
}
