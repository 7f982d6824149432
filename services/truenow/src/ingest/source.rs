//! Opens a file or stdin, unpacks it by its name, and counts what was read of it.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use crate::failure::Failure;

const BUFFER_BYTES: usize = 256 << 10;
/// zstd files may ask for a window of up to this many bytes, as a power of two.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// An open source.
pub(crate) struct Source {
    /// Its unpacked bytes.
    pub(crate) reader: Box<dyn BufRead + Send>,
    /// Bytes of the packed file; `None` for stdin.
    pub(crate) size: Option<u64>,
    /// Bytes of the packed file that were read so far. Relaxed: shown to a person, nothing depends on it.
    pub(crate) read: Arc<AtomicU64>,
}

/// Whether a path means stdin.
pub(crate) fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// The file's name without directory and without `.gz` or `.zst`.
pub(crate) fn plain_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.trim_end_matches(".gz").trim_end_matches(".zst").to_owned()
}

/// Opens a source.
///
/// # Errors
/// It cannot be opened or unpacked.
pub(crate) fn open(path: &Path) -> Result<Source, Failure> {
    let read = Arc::new(AtomicU64::new(0));
    if is_stdin(path) {
        let reader = Counted { inner: io::stdin(), read: Arc::clone(&read) };
        return Ok(Source { reader: Box::new(BufReader::with_capacity(BUFFER_BYTES, reader)), size: None, read });
    }
    let failed = |error: io::Error| Failure::new(format!("cannot read {}: {error}", path.display()));
    let file = File::open(path).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    if meta.is_dir() {
        return Err(Failure::new(format!("{} is a directory", path.display())).hint("give one file, or `-` for stdin"));
    }
    let size = meta.is_file().then_some(meta.len());
    let counted = Counted { inner: file, read: Arc::clone(&read) };
    let reader: Box<dyn BufRead + Send> = match path.extension().and_then(|extension| extension.to_str()) {
        Some("gz") => Box::new(BufReader::with_capacity(BUFFER_BYTES, flate2::read::MultiGzDecoder::new(counted))),
        Some("zst") => {
            let mut decoder = zstd::Decoder::new(counted).map_err(failed)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(failed)?;
            Box::new(BufReader::with_capacity(BUFFER_BYTES, decoder))
        }
        _ => Box::new(BufReader::with_capacity(BUFFER_BYTES, counted)),
    };
    Ok(Source { reader, size, read })
}

struct Counted<R> {
    inner: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.inner.read(buffer)?;
        self.read.fetch_add(bytes as u64, Relaxed);
        Ok(bytes)
    }
}

/// Lines of a source, counted from 1, without their ends. A line that is not UTF-8 is bad, and only that line.
pub(crate) struct Lines {
    reader: Box<dyn BufRead + Send>,
    bytes: Vec<u8>,
    line: u64,
}

/// A line longer than this is not read into memory whole.
const LINE_BYTES_MAX: usize = 16 << 20;

/// A line of a source.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    /// A line that is not blank.
    Text(&'a str),
    /// A line that cannot be taken, and why.
    Bad(&'static str),
    /// The end.
    End,
}

impl Lines {
    /// Lines of a reader.
    pub(crate) fn new(reader: Box<dyn BufRead + Send>) -> Self {
        Self { reader, bytes: Vec::new(), line: 0 }
    }

    /// The number of the line given last.
    pub(crate) fn number(&self) -> u64 {
        self.line
    }

    /// The next line that is not blank.
    ///
    /// # Errors
    /// The source cannot be read on.
    pub(crate) fn next(&mut self) -> io::Result<Line<'_>> {
        loop {
            self.bytes.clear();
            if (&mut self.reader).take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut self.bytes)? == 0 {
                return Ok(Line::End);
            }
            self.line += 1;
            if self.bytes.len() == LINE_BYTES_MAX && !self.bytes.ends_with(b"\n") {
                self.reader.skip_until(b'\n')?;
                return Ok(Line::Bad("the line is longer than 16 MiB"));
            }
            if !self.bytes.trim_ascii().is_empty() {
                break;
            }
        }
        let mut line = self.bytes.strip_suffix(b"\n").unwrap_or(&self.bytes);
        line = line.strip_suffix(b"\r").unwrap_or(line);
        Ok(std::str::from_utf8(line).map_or(Line::Bad("the line is not UTF-8"), Line::Text))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write as _};

    use super::*;

    fn text(source: Source) -> String {
        let mut text = String::new();
        let mut reader = source.reader;
        reader.read_to_string(&mut text).unwrap();
        text
    }

    /// Goal: plain, gzip (also of several members) and zstd files give the same bytes, and what was read is counted.
    #[test]
    fn packed_files_are_unpacked() {
        let dir = tempfile::tempdir().unwrap();
        let pack = |bytes: &[u8]| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        };
        let files = [
            ("a.csv", b"one\ntwo\n".to_vec()),
            ("a.csv.gz", [pack(b"one\n"), pack(b"two\n")].concat()),
            ("a.csv.zst", zstd::encode_all(&b"one\ntwo\n"[..], 1).unwrap()),
        ];
        for (name, bytes) in files {
            let path = dir.path().join(name);
            std::fs::write(&path, &bytes).unwrap();
            let source = open(&path).unwrap();
            let read = Arc::clone(&source.read);
            assert_eq!(source.size, Some(bytes.len() as u64));
            assert_eq!(text(source), "one\ntwo\n", "{name}");
            assert_eq!(read.load(Relaxed), bytes.len() as u64, "{name}");
            assert_eq!(plain_name(&path), "a.csv");
        }
    }

    /// Goal: blank lines are passed over but counted, ends of lines are cut, bad bytes spoil one line only.
    #[test]
    fn lines_are_counted() {
        let mut lines = Lines::new(Box::new(Cursor::new(b"a\r\n\n  \nb\xff\nc".to_vec())));
        assert_eq!(lines.next().unwrap(), Line::Text("a"));
        assert_eq!(lines.next().unwrap(), Line::Bad("the line is not UTF-8"));
        assert_eq!(lines.number(), 4);
        assert_eq!(lines.next().unwrap(), Line::Text("c"));
        assert_eq!(lines.number(), 5);
        assert_eq!(lines.next().unwrap(), Line::End);
    }
}
