//! Checkpoints on a disk that fails, forgets and is damaged.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use codec::{BlockHeader, BodyBuilder, BodyView, EventRef};
use engine::{HeapRuns, Limits, MemoryBudget, Pieces, Reader, Writer, partition, restore};
use types::{Generation, LogIdentity, Offset, PartitionId, SchemaVersion, TableId, TableKey, TenantId, Timestamp};

use super::{CheckpointError, CheckpointFiles, CheckpointStore, Lent};
use crate::files::{NewRunFile, RunFile, RunFiles};

const PARTITION: PartitionId = PartitionId(3);

/// Files in memory. What was not synced is lost when the power goes.
#[derive(Clone, Default)]
struct Disk {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    names: BTreeMap<String, Contents>,
    names_on_disk: BTreeMap<String, Contents>,
    /// Calls that change something, and the one that fails, with all after it.
    calls: usize,
    fails_from: Option<usize>,
    fails_until: usize,
    /// Bytes that checkpoints may take.
    room: Option<u64>,
}

/// Bytes, and how many of them are synced.
type Contents = Arc<Mutex<(Vec<u8>, usize)>>;

impl Disk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn change(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        let call = state.calls;
        state.calls += 1;
        match state.fails_from {
            Some(from) if (from..state.fails_until).contains(&call) => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(state),
        }
    }

    /// The calls from this one on fail, so many of them.
    fn fail(&self, from: usize, count: usize) {
        let mut state = self.state();
        (state.calls, state.fails_from, state.fails_until) = (0, Some(from), from.saturating_add(count));
    }

    fn heal(&self) -> usize {
        let mut state = self.state();
        state.fails_from = None;
        std::mem::take(&mut state.calls)
    }

    fn cut_power(&self) {
        let mut state = self.state();
        state.names = state.names_on_disk.clone();
        for contents in state.names.values() {
            let mut contents = contents.lock().unwrap();
            let synced = contents.1;
            contents.0.truncate(synced);
        }
    }

    /// A copy that goes its own way.
    fn copy(&self) -> Self {
        let names: BTreeMap<String, Contents> = self
            .state()
            .names
            .iter()
            .map(|(name, contents)| (name.clone(), Arc::new(Mutex::new(contents.lock().unwrap().clone()))))
            .collect();
        Self { state: Arc::new(Mutex::new(State { names_on_disk: names.clone(), names, ..State::default() })) }
    }

    fn bytes(&self) -> usize {
        self.state().names.values().map(|contents| contents.lock().unwrap().0.len()).sum()
    }
}

impl RunFiles for Disk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state().names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn NewRunFile>> {
        let contents = Contents::default();
        self.change()?.names.insert(name.to_owned(), Arc::clone(&contents));
        Ok(Box::new(OpenFile { disk: self.clone(), contents }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn RunFile>> {
        let contents = self.state().names.get(name).cloned().ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(OpenFile { disk: self.clone(), contents }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.change()?.names.remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut state = self.change()?;
        state.names_on_disk = state.names.clone();
        Ok(())
    }
}

impl CheckpointFiles for Disk {
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.change()?;
        let contents = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), contents);
        Ok(())
    }

    fn room(&self) -> io::Result<u64> {
        Ok(self.state().room.unwrap_or(u64::MAX))
    }
}

struct OpenFile {
    disk: Disk,
    contents: Contents,
}

impl NewRunFile for OpenFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let allowed = self.disk.change().map(drop);
        // A write that fails may have written a part.
        let written = if allowed.is_ok() { bytes } else { &bytes[..bytes.len() / 2] };
        self.contents.lock().unwrap().0.extend_from_slice(written);
        allowed
    }

    fn finish(self: Box<Self>) -> io::Result<Arc<dyn RunFile>> {
        Ok(Arc::new(*self))
    }
}

impl RunFile for OpenFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.contents.lock().unwrap().0.len() as u64)
    }

    fn read_exact_at(&self, into: &mut [u8], position: u64) -> io::Result<()> {
        let contents = self.contents.lock().unwrap();
        let from = contents.0.get(position as usize..).and_then(|rest| rest.get(..into.len()));
        into.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        drop(self.disk.change()?);
        let mut contents = self.contents.lock().unwrap();
        contents.1 = contents.0.len();
        Ok(())
    }
}

fn key() -> TableKey {
    TableKey { tenant: TenantId(1), table: TableId(1), generation: Generation(1) }
}

fn block(rows: std::ops::Range<i64>) -> (BlockHeader, Vec<u8>) {
    let (namespace, table) = ("n", "t");
    let mut builder = BodyBuilder::default();
    for n in rows {
        let (id, value) = (n.to_le_bytes(), format!("value {}", n % 97));
        let (dimensions, metrics) = ([("d", value.as_str())], [("m", n as f64)]);
        let (event_time, event_id) = (Some(n * 1_000), Some(id.as_slice()));
        let event = EventRef { namespace, table, event_time, event_id, dimensions: &dimensions, metrics: &metrics };
        builder.push(&event, Timestamp(0), 0).expect("a small block");
    }
    let body = builder.finish(false).expect("not empty");
    (body.header(key(), SchemaVersion(1), PARTITION, None), body.bytes.to_vec())
}

/// Applies block after block of numbered rows; record `k` is always the same.
fn apply(writer: &mut Writer, records: u64) {
    for _ in 0..records {
        let offset = writer.next_offset();
        let from = offset.0 as i64 * 50;
        let (header, body) = block(from..from + 50);
        let body = BodyView::parse(&body).expect("a good body");
        writer.apply(offset, Timestamp(from), &header, &body).expect("a good block");
    }
}

/// Rows with their times and strings, in order, and what the table has come to.
fn all_of(reader: &Reader) -> (Offset, String, Vec<(i64, String)>) {
    let Some(snapshot) = reader.snapshot(key()) else { return (reader.next_offset(), String::new(), Vec::new()) };
    let column = snapshot.column("d", types::ColumnKind::Dimension).unwrap();
    let mut rows = Vec::new();
    for segment in snapshot.segments() {
        let (codes, strings) = (segment.codes(column).unwrap(), segment.dictionary(column).unwrap());
        rows.extend(
            segment
                .times()
                .iter()
                .enumerate()
                .map(|(row, time)| (time, strings.get(codes.get(row)).unwrap().to_owned())),
        );
    }
    (reader.next_offset(), format!("{:?}", reader.table_status(key())), rows)
}

fn fresh() -> (Writer, Reader) {
    partition(PARTITION, Offset::ZERO, Limits::default(), Arc::new(MemoryBudget::new(u64::MAX)))
}

fn open(disk: &Disk) -> CheckpointStore {
    CheckpointStore::open(Arc::new(disk.clone()), PARTITION, LogIdentity(1)).expect("a disk that can be listed")
}

/// What a start makes of the disk: the newest generation that is good, and how many were not.
fn start(disk: &Disk) -> (CheckpointStore, Writer, Reader, usize) {
    let mut store = open(disk);
    let generations = store.generations();
    for (bad, generation) in generations.iter().rev().enumerate() {
        let mut loader = store.loader(generation.number).expect("it is there");
        let (budget, mut runs) = (Arc::new(MemoryBudget::new(u64::MAX)), HeapRuns::default());
        match restore(PARTITION, &mut loader, Limits::default(), &budget, &mut runs, &mut |_| Timestamp::MIN) {
            Ok(restored) => {
                assert_eq!(restored.next_offset(), generation.next_offset);
                store.resume(generation.number, restored.names());
                let (writer, reader) = restored.into_partition(Box::new(HeapRuns::default()));
                return (store, writer, reader, bad);
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    store.start_over().expect("nothing that may be good");
    let (writer, reader) = fresh();
    (store, writer, reader, generations.len())
}

/// As if nothing had ever been restarted.
fn expected(next_offset: Offset) -> (Offset, String, Vec<(i64, String)>) {
    let (mut writer, reader) = fresh();
    apply(&mut writer, next_offset.0);
    all_of(&reader)
}

fn write(store: &mut CheckpointStore, writer: &Writer) -> Result<u64, CheckpointError> {
    store.write(&Lent::new(writer.capture()), &mut |_| true).map(|written| written.bytes)
}

/// Goal: what a checkpoint holds comes back, in this life and after several; the two newest stay, the log is needed from the
/// older one, and nothing else stays on the disk.
#[test]
fn two_generations_stay() {
    let disk = Disk::default();
    let (mut store, mut writer, mut reader, _) = start(&disk);
    assert_eq!((store.needed_from(), store.generations().len()), (Offset::ZERO, 0));
    let mut most = 0;
    for life in 0..4 {
        for round in 0..10 {
            apply(&mut writer, 40);
            write(&mut store, &writer).expect("a good disk");
            let generations = store.generations();
            assert_eq!(generations.len(), if life == 0 && round == 0 { 1 } else { 2 });
            assert_eq!(generations.last().unwrap().next_offset, writer.next_offset());
            let oldest = if generations.len() == 2 { generations[0].next_offset } else { Offset::ZERO };
            assert_eq!(store.needed_from(), oldest);
            most = most.max(disk.bytes());
        }
        let before = all_of(&reader);
        (store, writer, reader, _) = start(&disk);
        assert_eq!(all_of(&reader), before);
        assert_eq!(before, expected(writer.next_offset()));
    }
    // 80,000 rows of 8 + 8 + 1 bytes, twice that in packs that are half dead, and 20 bytes an id twice: of two generations.
    assert!(most < 80_000 * (2 * 17 + 2 * 20) * 5 / 4, "{most} bytes");
}

/// Goal: a checkpoint writes what is new and no more, over and over: rows are not written again and again.
#[test]
fn old_rows_are_not_written_again() {
    let (mut store, mut writer, _, _) = start(&Disk::default());
    // Ids are remembered in memory for the window and written each time: let them be forgotten.
    apply(&mut writer, 4_000);
    let all = write(&mut store, &writer).expect("a good disk");
    apply(&mut writer, 1);
    let little = write(&mut store, &writer).expect("a good disk");
    // 20 bytes an id, and 7 of a row.
    assert!(all > 4_000 * 50 * 27, "{all} bytes");
    assert!(little < 4_000 * 50 * 20 + 50_000, "{little} of {all} bytes");
}

/// Goal: whatever call fails, once or for good, and also if the power goes then, the generations of before are good, and a
/// later checkpoint succeeds.
#[test]
fn no_fault_hurts_what_is_there() {
    let disk = Disk::default();
    let (mut store, mut writer, _, _) = start(&disk);
    for _ in 0..3 {
        apply(&mut writer, 30);
        write(&mut store, &writer).expect("a good disk");
    }
    let calls = {
        let disk = disk.copy();
        let (mut store, mut writer, _, _) = start(&disk);
        apply(&mut writer, 30);
        disk.heal();
        write(&mut store, &writer).expect("a good disk");
        disk.heal()
    };
    assert!(calls > 10, "{calls} calls");
    let before = expected(Offset(90));
    for (call, count, power) in (0..calls)
        .flat_map(|call| [(call, 1, false), (call, 1, true), (call, usize::MAX, false), (call, usize::MAX, true)])
    {
        let disk = disk.copy();
        let (mut store, mut writer, _, _) = start(&disk);
        apply(&mut writer, 30);
        disk.fail(call, count);
        let written = write(&mut store, &writer);
        disk.heal();
        if power {
            disk.cut_power();
        } else {
            write(&mut store, &writer).expect("a healed disk");
        }
        let (mut store, mut writer, reader, bad) = start(&disk);
        assert_eq!(bad, 0, "call {call}: nothing half done looks like a checkpoint");
        let now = all_of(&reader);
        let after = expected(Offset(120));
        assert!(now == after || (written.is_err() && power && now == before), "call {call}, power {power}");
        apply(&mut writer, 30);
        write(&mut store, &writer).expect("a healed disk");
        assert_eq!(all_of(&start(&disk).2), expected(writer.next_offset()));
    }
}

/// Goal: damage anywhere, and files that are cut off, missing or in each other's place, are found, and the older generation
/// is used, or none; never a state that was not.
#[test]
fn damage_is_found() {
    let disk = Disk::default();
    let (mut store, mut writer, _, _) = start(&disk);
    for _ in 0..3 {
        apply(&mut writer, 20);
        write(&mut store, &writer).expect("a good disk");
    }
    let good: Vec<_> = [0, 40, 60].map(|records| expected(Offset(records))).into();
    let names: Vec<String> = disk.state().names.keys().cloned().collect();
    let mut found = 0;
    let mut check = |what: String, damage: &dyn Fn(&mut BTreeMap<String, Contents>)| {
        let disk = disk.copy();
        damage(&mut disk.state().names);
        let (mut store, mut writer, reader, bad) = start(&disk);
        found += usize::from(bad > 0);
        let now = all_of(&reader);
        assert!(good.contains(&now), "{what}: a state that never was, at {}", now.0);
        assert!(bad == 0 || now.0 < Offset(60), "{what}");
        // Life goes on, and mends it.
        apply(&mut writer, 1);
        write(&mut store, &writer).expect("a good disk");
        apply(&mut writer, 1);
        write(&mut store, &writer).expect("a good disk");
        let (_, _, reader, bad) = start(&disk);
        assert_eq!((bad, all_of(&reader)), (0, expected(Offset(now.0.0 + 2))), "{what}");
    };
    for name in &names {
        let length = disk.state().names[name].lock().unwrap().0.len();
        for at in (0..length).step_by((length / 40).max(1)).chain([length - 1]) {
            check(format!("byte {at} of {name}"), &|names| names[name].lock().unwrap().0[at] ^= 1 << (at % 8));
            check(format!("{name} cut to {at}"), &|names| names[name].lock().unwrap().0.truncate(at));
        }
        check(format!("{name} is missing"), &|names| drop(names.remove(name)));
        for other in &names {
            check(format!("{name} for {other}"), &|names| {
                let contents = Arc::new(Mutex::new(names[name].lock().unwrap().clone()));
                names.insert(other.clone(), contents);
            });
        }
    }
    assert!(found > 100, "{found} cases of damage were in parts that are read");
}

/// Goal: a writing that is stopped leaves nothing behind, and no harm.
#[test]
fn a_stopped_writing_leaves_nothing() {
    let disk = Disk::default();
    let (mut store, mut writer, _, _) = start(&disk);
    apply(&mut writer, 30);
    write(&mut store, &writer).expect("a good disk");
    let bytes = disk.bytes();
    apply(&mut writer, 30);
    let stopped = store.write(&Lent::new(writer.capture()), &mut |_| false);
    assert!(matches!(stopped, Err(CheckpointError::Stopped)), "{stopped:?}");
    assert_eq!(disk.bytes(), bytes);
    assert_eq!(all_of(&start(&disk).2), expected(Offset(30)));
}

/// Goal: a checkpoint leaves the last of the disk to the log: where it would not, it fails as on a full disk, leaves nothing
/// behind, and works when there is room.
#[test]
fn the_last_of_the_disk_is_left() {
    let disk = Disk::default();
    let (mut store, mut writer, _, _) = start(&disk);
    apply(&mut writer, 30);
    write(&mut store, &writer).expect("a good disk");
    apply(&mut writer, 30);
    let bytes = disk.bytes();
    disk.state().room = Some(10);
    let refused = write(&mut store, &writer).expect_err("there is no room");
    assert!(matches!(&refused, CheckpointError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull));
    assert_eq!(disk.bytes(), bytes);
    disk.state().room = None;
    write(&mut store, &writer).expect("there is room");
    assert_eq!(all_of(&start(&disk).2), expected(Offset(60)));
}

/// Goal: a state of many small pieces lies in few packs, however little each checkpoint adds, and one file at a time is open
/// to read it.
#[test]
fn packs_stay_few() {
    let disk = Disk::default();
    let limits = Limits { segment_rows_first: 64, segment_rows_max: 64, ..Limits::default() };
    let (mut writer, _) = partition(PARTITION, Offset::ZERO, limits, Arc::new(MemoryBudget::new(u64::MAX)));
    let mut store = open(&disk);
    let (mut most, mut written) = (0, 0);
    for _ in 0..100 {
        apply(&mut writer, 1);
        written = write(&mut store, &writer).expect("a good disk");
        most = most.max(disk.state().names.keys().filter(|name| name.ends_with(".pack")).count());
    }
    assert!((17..40).contains(&most), "{most} packs, {written} bytes");
    let mut loader = store.loader(store.generations()[1].number).expect("it is there");
    for piece in 0..loader.kinds().len() as u32 {
        loader.read(piece, &mut |_| Ok(())).expect("a good disk");
        // Beside the names, on the disk and in its cache.
        let open = disk.state().names.values().filter(|contents| Arc::strong_count(contents) > 2).count();
        assert!(open <= 1, "{open} files are open");
    }
}

/// Goal: checkpoints that are no good stay until another one is written: a writing that fails removes none.
#[test]
fn a_failed_writing_removes_nothing_of_before() {
    let disk = Disk::default();
    let (mut store, mut writer, _, _) = start(&disk);
    for _ in 0..2 {
        apply(&mut writer, 30);
        write(&mut store, &writer).expect("a good disk");
    }
    let names: Vec<_> = disk.state().names.keys().cloned().collect();
    let mut store = open(&disk);
    store.start_over().expect("nothing that may be good");
    let stopped = store.write(&Lent::new(writer.capture()), &mut |_| false);
    assert!(matches!(stopped, Err(CheckpointError::Stopped)), "{stopped:?}");
    assert!(disk.state().names.keys().eq(&names));
    write(&mut store, &writer).expect("a good disk");
    assert!(!disk.state().names.keys().any(|name| names.contains(name)));
}

/// Goal: one that was no good at the start is no longer there once a newer one is, whatever call fails and whether the power
/// goes then: it never stands for the older of two, for which the log is let go of.
#[test]
fn what_was_gone_past_does_not_come_back() {
    let disk = Disk::default();
    let (mut store, mut writer, _, _) = start(&disk);
    for _ in 0..2 {
        apply(&mut writer, 30);
        write(&mut store, &writer).expect("a good disk");
    }
    let given_up = store.generations()[1].number;
    let manifest = format!("{given_up:016}.checkpoint");
    disk.state().names[&manifest].lock().unwrap().0[40] ^= 1;
    for (call, power) in (0..40).flat_map(|call| [(call, false), (call, true)]) {
        let disk = disk.copy();
        let (mut store, mut writer, _, _) = start(&disk);
        assert_eq!(writer.next_offset(), Offset(30), "the older one is gone on from");
        apply(&mut writer, 10);
        disk.fail(call, usize::MAX);
        let written = write(&mut store, &writer);
        disk.heal();
        if power {
            disk.cut_power();
        }
        // The damage that was found once is not found again, as that of a part that is read late.
        if let Some(contents) = disk.state().names.get(&manifest) {
            contents.lock().unwrap().0[40] ^= 1;
        }
        let offsets: Vec<_> = open(&disk).generations().iter().map(|generation| generation.next_offset.0).collect();
        let (before, without, after) = (vec![30, 60], vec![30], vec![30, 40]);
        assert!(written.is_err() && [&before, &without].contains(&&offsets) || offsets == after, "{call}: {offsets:?}");
    }
}
