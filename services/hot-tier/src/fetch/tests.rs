//! Checkpoints from the directory of one node to that of another.

use std::{fs, path::Path};

use async_trait::async_trait;
use futures_util::stream;
use proto::checkpoints::CopyStream;
use types::{Offset, PartitionId};

use super::*;
use crate::{
    checkpoint::restore::tests::{KEY, LOG, apply, checkpoint, open_both},
    copies::Copies,
};

const ONE: PartitionId = PartitionId(1);

fn request(has: Option<u64>) -> CopyRequest {
    CopyRequest { partition: ONE, log: LOG, has: has.map(Offset) }
}

/// A node with so many records in the newest checkpoint of each partition, one in three of which came since the one before.
fn node(dir: &Path, records: u64) -> Copies {
    let mut both = open_both(dir);
    for opened in &mut both {
        for record in 0..records {
            apply(opened);
            if record == records / 3 || record + 1 == records {
                checkpoint(opened);
            }
        }
    }
    let copies = Copies::new(u64::MAX);
    copies.lie_in(dir.to_owned(), LOG);
    copies
}

/// The names of all directories of partitions.
fn files(dir: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for kind in ["checkpoints", "ids"] {
        for entry in fs::read_dir(dir.join(kind)).into_iter().flatten() {
            names.push(entry.unwrap().file_name().into_string().unwrap());
        }
    }
    names
}

/// Goal: a partition that came from another node is the one that it was there, with its rows and what it knows of ids, in the place
/// of what lay there before; what is not newer is not copied, nor what is of another log, nor what nobody wants any more.
#[tokio::test]
async fn a_partition_comes_from_another_node() {
    let (there, here) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let source = node(there.path(), 30);
    let _older = node(here.path(), 6);
    let stop = Shutdown::new();
    let code = |fetched: Result<Fetched, ApiError>| fetched.unwrap_err().code;
    let fetch_it = async |request| fetch(&source, request, here.path().to_owned(), &stop).await;
    assert_eq!(code(fetch_it(request(Some(30))).await), ErrorCode::NotFound);
    let of_another = CopyRequest { log: types::LogIdentity(1), ..request(None) };
    assert_eq!(code(fetch_it(of_another).await), ErrorCode::FailedPrecondition);
    assert_eq!(open_both(here.path())[1].writer.next_offset(), Offset(6), "nothing changed");
    let fetched = fetch_it(request(Some(6))).await.unwrap();
    assert_eq!((fetched.next_offset, fetched.bytes > 0), (Offset(30), true));

    let mut opened = open_both(here.path());
    let offsets = [0, 1].map(|at| opened[at].writer.next_offset());
    assert_eq!(offsets, [Offset(6), Offset(30)], "the other partition stays as it was");
    assert_eq!(opened[1].reader.table_status(KEY), open_both(there.path())[1].reader.table_status(KEY));
    // The first row of the next record was in the last one.
    let before = opened[1].reader.table_status(KEY).unwrap();
    apply(&mut opened[1]);
    let after = opened[1].reader.table_status(KEY).unwrap();
    assert_eq!((after.live - before.live, after.duplicate - before.duplicate), (49, 1));
    drop(opened);
    stop.trigger();
    assert_eq!(code(fetch(&source, request(None), here.path().to_owned(), &stop).await), ErrorCode::Cancelled);
}

/// A source that goes away after so many parts.
struct Cut(Copies, usize);

#[async_trait]
impl Checkpoints for Cut {
    async fn copy(&self, request: CopyRequest) -> Result<CopyStream, ApiError> {
        let parts = self.0.copy(request).await?.take(self.1);
        let error = stream::iter([Err(ApiError::unavailable("the source went away"))]);
        Ok(parts.chain(error).boxed())
    }
}

/// Goal: wherever a source goes away, what was there stays as it was, and nothing of what came is left.
#[tokio::test]
async fn what_does_not_arrive_leaves_nothing() {
    let (there, here) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (source, _older) = (node(there.path(), 12), node(here.path(), 6));
    let before = files(here.path());
    let mut parts = source.copy(request(None)).await.unwrap();
    let mut count = 0;
    while parts.next().await.is_some() {
        count += 1;
    }
    assert!(count > 6, "a head and some files");
    for after in 0..count {
        let cut = Cut(source.clone(), after);
        let fetched = fetch(&cut, request(None), here.path().to_owned(), &Shutdown::new()).await;
        assert_eq!(fetched.unwrap_err().code, ErrorCode::Unavailable, "after {after} parts");
        assert_eq!(files(here.path()), before);
        assert_eq!(open_both(here.path())[1].writer.next_offset(), Offset(6));
    }
}

/// A source that gives files of any name.
struct Rogue(&'static str);

#[async_trait]
impl Checkpoints for Rogue {
    async fn copy(&self, _: CopyRequest) -> Result<CopyStream, ApiError> {
        let head = CopyPart::Head { next_offset: Offset(9), bytes: 1 };
        let parts = [head, CopyPart::File { ids: false, name: self.0.to_owned() }, CopyPart::Bytes(vec![1].into())];
        Ok(stream::iter(parts.map(Ok)).boxed())
    }
}

/// Goal: no file is written but those that a checkpoint has, and none elsewhere.
#[tokio::test]
async fn only_files_of_checkpoints_are_written() {
    let here = tempfile::tempdir().unwrap();
    for name in
        ["../../stolen", "/tmp/stolen", "a.pack", "1.pack", "0000000000000001.pack/x", "", "0000000000000001.run"]
    {
        let fetched = fetch(&Rogue(name), request(None), here.path().to_owned(), &Shutdown::new()).await;
        assert_eq!(fetched.unwrap_err().code, ErrorCode::Unavailable, "{name}");
        assert_eq!(files(here.path()), Vec::<String>::new());
    }
}
