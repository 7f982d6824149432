//! A run: what happens, one thing after the other, drawn from the seed; and what must hold after each.

mod checkpoints;

use std::{collections::VecDeque, sync::Arc, sync::atomic::Ordering::Relaxed};

use codec::ControlRecord;
use event_log::{AppendError, Step};
use types::{Offset, PartitionId, Timestamp};
use xxhash_rust::xxh3::Xxh3Default;

use self::checkpoints::Newest;
use crate::{
    catalog::{Catalog, TABLES},
    check::{check_ledger, check_partition},
    clients::{Clients, Outcome, Ticket},
    disk::{Disk, VirtualClock},
    events::{Batch, Block, announcement, blocks_of, tick},
    failure::{Failure, Wrong, ensure},
    life::{Asker, Life, NotStarted, Settled, Stepped},
    oracle::Oracle,
    plant::{Plant, RunCounts},
    profile::Profile,
    random::Random,
    report::Report,
    rollups,
};

/// The time at which every run begins.
const BEGIN: Timestamp = Timestamp(1_700_000_000_000_000);
/// Lines of history that a failure shows.
const HISTORY_LINES: usize = 60;
/// Tries to bring a run to its end; each step of a worker that waits takes one.
const ROUNDS_MAX: usize = 10_000;
/// What passes at a try at the end, at least: many together are far more than a worker waits between two of its own.
const WAIT_US: i64 = 10_000;
/// How far a leap of the clock goes at most: over windows and slots, µs.
const LEAP_US_MAX: i64 = 120_000_000;

/// Runs a seed, with a bug planted or without.
///
/// # Errors
/// Something happened that must not.
pub fn run(seed: u64, plant: Option<Plant>) -> Result<Report, Box<Failure>> {
    let mut world = World::new(seed, plant);
    match world.run() {
        Ok(()) => Ok(world.report()),
        Err(Wrong(what)) => Err(Box::new(Failure { seed, what, history: world.history.into() })),
    }
}

struct World {
    random: Random,
    profile: Profile,
    plant: Option<Plant>,
    clock: VirtualClock,
    disk: Disk,
    oracle: Oracle,
    clients: Clients,
    catalog: Catalog,
    /// `None` between two lives.
    life: Option<Life>,
    /// By partition.
    newest: Vec<Newest>,
    requests: u64,
    run_counts: Arc<RunCounts>,
    report: Report,
    digest: Xxh3Default,
    history: VecDeque<String>,
}

impl World {
    fn new(seed: u64, plant: Option<Plant>) -> Self {
        let profile = Profile::draw(&mut Random::new(seed, 0));
        let clock = VirtualClock::at(BEGIN);
        Self {
            random: Random::new(seed, 2),
            plant,
            disk: Disk::new(seed, clock.clone()),
            clock,
            oracle: Oracle::new(profile.partitions),
            clients: Clients::default(),
            catalog: Catalog::new(&profile),
            life: None,
            newest: vec![Newest::default(); profile.partitions as usize],
            requests: 0,
            run_counts: Arc::default(),
            report: Report::default(),
            digest: Xxh3Default::new(),
            history: VecDeque::new(),
            profile,
        }
    }

    fn run(&mut self) -> Result<(), Wrong> {
        let profile = format!("{:?}", self.profile);
        self.note(&profile);
        self.start()?;
        for _ in 0..self.profile.steps {
            self.clock.advance(self.random.between(0, self.profile.step_us_max));
            self.step()?;
            if self.disk.has_ended() {
                self.end_life("at a call to the disk");
                self.start()?;
            }
            self.look_at_log()?;
        }
        self.finish()
    }

    fn step(&mut self) -> Result<(), Wrong> {
        if self.random.once_in(self.profile.crash_one_in) {
            return self.crash();
        }
        match self.random.below(100) {
            0..30 => self.send(),
            30..32 => self.tick(),
            32..48 => self.drive(),
            48..81 => {
                let at = self.random.index(self.profile.partitions as usize);
                self.work(at).map(drop)
            }
            81..86 => self.announce(),
            86..88 => {
                self.catalog.change(&mut self.random);
                Ok(())
            }
            88..90 => {
                self.clock.advance(self.random.between(0, LEAP_US_MAX));
                Ok(())
            }
            90..92 => {
                self.change_weather();
                Ok(())
            }
            92..97 => {
                self.checkpoint();
                Ok(())
            }
            _ => self.check(),
        }
    }

    fn life(&mut self) -> &mut Life {
        self.life.as_mut().expect("there is one but between two")
    }

    fn note(&mut self, line: &str) {
        self.digest.update(line.as_bytes());
        if self.history.len() == HISTORY_LINES {
            self.history.pop_front();
        }
        let at = self.clock.now() - BEGIN.0;
        self.digest.update(&at.to_le_bytes());
        self.history.push_back(format!("{at:>12} µs  {line}"));
    }

    /// A client sends a batch.
    fn send(&mut self) -> Result<(), Wrong> {
        let open = self.catalog.open();
        let next = self.clients.next(&open, self.clock.now(), &self.profile, &mut self.random);
        let Some((ticket, batch)) = next else { return Ok(()) };
        self.append_batch(ticket, &batch)
    }

    fn append_batch(&mut self, ticket: Ticket, batch: &Batch) -> Result<(), Wrong> {
        self.requests += 1;
        let now = Timestamp(self.clock.now());
        let table = self.catalog.table(batch.key);
        let blocks = blocks_of(table, batch, now, self.requests, self.profile.wide_ids);
        self.note(&format!("send {ticket:?}: {} events in {} blocks", batch.events.len(), blocks.len()));
        self.append(blocks, Asker::Client(ticket))
    }

    /// The control plane tells the log of a table.
    fn announce(&mut self) -> Result<(), Wrong> {
        let at = self.random.index(TABLES);
        let known = &mut self.catalog.tables[at];
        let Some(record) = known.to_say.clone().filter(|_| !known.saying) else { return Ok(()) };
        known.saying = true;
        let blocks = announcement(&known.table, &record);
        let what = if matches!(record, ControlRecord::TableDropped(_)) { "end" } else { "settings" };
        self.note(&format!("announce {what} of {:?}", record.key()));
        self.append(blocks, Asker::Catalog(at))
    }

    /// The ingester moves the time of a partition. It does so where a later time frees something; in others it changes nothing.
    fn tick(&mut self) -> Result<(), Wrong> {
        let at = self.random.below(u64::from(self.profile.partitions)) as u32;
        self.note(&format!("tick of partition {at}"));
        self.append(vec![tick(PartitionId(at))], Asker::Ingester)
    }

    fn append(&mut self, blocks: Vec<Block>, asker: Asker) -> Result<(), Wrong> {
        blocks.iter().for_each(|block| self.oracle.sends(block));
        self.life().append(blocks, asker);
        self.settle()
    }

    /// The log makes a group durable, or fails to.
    fn drive(&mut self) -> Result<(), Wrong> {
        let driven = self.life().drive();
        if driven == Step::Worked {
            self.note("the log works");
        }
        self.settle()
    }

    fn settle(&mut self) -> Result<(), Wrong> {
        for settled in self.life().settle() {
            self.learn(settled)?;
        }
        Ok(())
    }

    fn learn(&mut self, settled: Settled) -> Result<(), Wrong> {
        let Settled { names, asker, outcome } = settled;
        let acked = outcome.is_ok();
        match outcome {
            Ok(places) => {
                self.report.acked += places.len() as u64;
                self.note(&format!(
                    "acked {asker:?} at {:?}",
                    places.iter().map(|place| place.offset.0).collect::<Vec<_>>()
                ));
                for (place, name) in places.iter().zip(&names) {
                    ensure!(place.partition == name.partition, "a block went to partition {}", place.partition);
                    self.oracle.acked(place.partition, place.offset, *name)?;
                }
            }
            Err(AppendError::Unavailable(error)) => {
                self.report.unknown += 1;
                self.note(&format!("unknown {asker:?}: {error}"));
            }
            Err(AppendError::Overloaded { .. } | AppendError::Closed) => {
                self.report.refused += 1;
                self.note(&format!("refused {asker:?}"));
                names.iter().for_each(|name| self.oracle.refused(*name));
            }
        }
        // The log has spoken; the reply may still be lost on the way to who asked.
        let heard = acked && !self.random.once_in(8);
        match asker {
            Asker::Client(ticket) => self.clients.learn(ticket, if heard { Outcome::Acked } else { Outcome::Unknown }),
            Asker::Catalog(table) => self.catalog.said(table, heard),
            // The next one is due or not, whatever became of this.
            Asker::Ingester => {}
        }
        Ok(())
    }

    fn work(&mut self, at: usize) -> Result<Stepped, Wrong> {
        let now = self.clock.now();
        let partition = &mut self.life().partitions[at];
        let before = partition.next_offset();
        let stepped = partition.step(now)?;
        let after = partition.next_offset();
        if before != after {
            self.note(&format!("partition {at} applied {before} to {after}"));
        }
        self.report.waits += u64::from(stepped == Stepped::Waits);
        Ok(stepped)
    }

    fn change_weather(&mut self) {
        let fair = self.random.once_in(2);
        let fault_one_in = if fair { 0 } else { self.profile.fault_one_in };
        let slow_us_max = if self.random.once_in(2) { 0 } else { self.profile.slow_sync_us_max };
        self.note(&format!("weather: one in {fault_one_in} fails, syncs up to {slow_us_max} µs"));
        self.disk.set_weather(fault_one_in, slow_us_max);
    }

    /// The process ends: at once, at some call to the disk to come, or in order.
    fn crash(&mut self) -> Result<(), Wrong> {
        match self.random.below(5) {
            0 | 1 => {
                let calls = self.random.below(40);
                self.note(&format!("the end comes in {calls} calls"));
                self.disk.end_in(calls);
                return Ok(());
            }
            2 => {
                self.life().close();
                self.settle()?;
                self.look_at_log()?;
                self.end_life("in order");
            }
            _ => self.end_life("at once"),
        }
        self.start()
    }

    fn end_life(&mut self, how: &str) {
        let power = self.random.once_in(2);
        self.note(&format!("a life ends {how}{}", if power { ", with the power" } else { "" }));
        self.disk.restart(power);
        self.life = None;
        self.clients.lose_replies();
        self.catalog.lose_replies();
    }

    /// Begins a life, and looks at what is there.
    fn start(&mut self) -> Result<(), Wrong> {
        self.damage_newest();
        let stormy = self.random.once_in(3);
        self.begin_life(stormy)
    }

    /// Begins a life, however often the disk lets that fail.
    fn begin_life(&mut self, mut stormy: bool) -> Result<(), Wrong> {
        loop {
            self.disk.set_weather(if stormy { self.profile.fault_one_in } else { 0 }, 0);
            if stormy && self.random.once_in(2) {
                self.disk.end_in(self.random.below(60));
            }
            match self.try_life() {
                Ok(life) if !self.disk.has_ended() => {
                    self.life = Some(life);
                    break;
                }
                Err(NotStarted::Wrong(wrong)) => return Err(wrong),
                Err(NotStarted::NoGoodCheckpoint(partition, start)) => {
                    return Err(Wrong(format!(
                        "partition {partition} has lost its checkpoints, its log is from {start} on"
                    )));
                }
                Err(NotStarted::Disk(error)) if !stormy => {
                    return Err(Wrong(format!("no start on a good disk: {error}")));
                }
                Ok(_) | Err(NotStarted::Disk(_)) => {
                    self.report.failed_starts += 1;
                    self.note("a start fails");
                    self.end_life("before it began");
                    stormy = self.random.once_in(2);
                }
            }
        }
        self.note_life();
        self.look_at_restored(stormy)?;
        self.change_weather();
        self.read_log_again()
    }

    fn try_life(&mut self) -> Result<Life, NotStarted> {
        let number = self.report.lives + self.report.failed_starts;
        Life::begin(&self.profile, &self.disk, &self.clock, self.plant, &self.run_counts, number)
    }

    fn note_life(&mut self) {
        self.report.lives += 1;
        let from: Vec<_> = self.life().partitions.iter().map(|partition| partition.began_at.0).collect();
        self.note(&format!("a life begins at {from:?}"));
    }

    fn read_log_again(&mut self) -> Result<(), Wrong> {
        let Self { life, oracle, disk, .. } = self;
        let log = &life.as_ref().expect("it began").log;
        disk.calmly(|| oracle.read_again(log.as_ref()))
    }

    /// Takes note of what became durable; a dead machine shows nothing.
    fn look_at_log(&mut self) -> Result<(), Wrong> {
        if self.disk.has_ended() {
            return Ok(());
        }
        let Self { life, oracle, disk, .. } = self;
        let log = &life.as_ref().expect("there is one").log;
        disk.calmly(|| oracle.read_new(log.as_ref()))
    }

    /// Holds what partitions show against what they must.
    fn check(&mut self) -> Result<(), Wrong> {
        self.look_at_log()?;
        let which = self.random.index(TABLES);
        for at in 0..self.profile.partitions as usize {
            self.check_one(at)?;
            self.life().partitions[at].hold_snapshot(which)?;
        }
        Ok(())
    }

    fn check_one(&mut self, at: usize) -> Result<(), Wrong> {
        let Self { life, oracle, disk, .. } = self;
        let life = life.as_ref().expect("there is one");
        let (partition, fold) = (&life.partitions[at], &oracle.partitions[at]);
        check_partition(&partition.reader, fold, partition.next_offset())?;
        disk.calmly(|| check_ledger(life.log.as_ref(), &partition.reader, fold, partition.reader.partition()))
    }

    /// Brings the run to its end: all that was sent is acked, all that was acked applied; and again in another life.
    fn finish(&mut self) -> Result<(), Wrong> {
        self.disk.mend();
        for _ in 0..ROUNDS_MAX {
            let open = self.catalog.open();
            if open.len() == TABLES && self.catalog.is_settled() && self.clients.unknown(&open).is_empty() {
                break;
            }
            self.announce()?;
            if let Some(ticket) = self.clients.unknown(&open).first().copied() {
                let batch = self.clients.resend(ticket);
                self.append_batch(ticket, &batch)?;
            }
            self.drive()?;
        }
        self.look_at_log()?;
        self.apply_all()?;
        self.check()?;
        self.end_life("after all is done");
        self.start()?;
        self.disk.mend();
        self.apply_all()?;
        self.check()?;
        self.lose_checkpoints()
    }

    /// Lets every partition apply all that the log holds.
    fn apply_all(&mut self) -> Result<(), Wrong> {
        for at in 0..self.profile.partitions as usize {
            let end = Offset(self.oracle.partitions[at].records.len() as u64);
            let mut rounds = 0;
            while self.work(at)? != Stepped::Idle || self.life().partitions[at].next_offset() != end {
                rounds += 1;
                ensure!(rounds < ROUNDS_MAX, "partition {at} does not get to the end of its log");
                self.clock.advance(self.profile.step_us_max.max(WAIT_US));
            }
        }
        Ok(())
    }

    fn report(&self) -> Report {
        let mut report = self.report;
        report.digest = self.digest.digest();
        for fold in &self.oracle.partitions {
            report.records += fold.records.len() as u64;
            report.ticks += fold.records.iter().filter(|record| record.tick).count() as u64;
            report.rows += fold.records.iter().map(|record| record.rows).sum::<u64>();
            report.counted += fold.records.iter().map(|record| record.counted.len() as u64).sum::<u64>();
        }
        for partition in self.life.iter().flat_map(|life| &life.partitions) {
            let tables = partition.reader.tables();
            let snapshots = tables.iter().filter_map(|key| partition.reader.snapshot(*key));
            report.kept += snapshots.map(|snapshot| rollups::kept(&snapshot)).sum::<u64>();
            for status in tables.into_iter().filter_map(|key| partition.reader.table_status(key)) {
                report.evicted += status.evicted;
                report.duplicate += status.duplicate;
                report.conflict += status.conflict;
            }
        }
        for partition in self
            .life
            .iter()
            .flat_map(|life| life.partitions.iter().map(move |at| life.log.bounds(at.reader.partition())))
        {
            report.released += partition.start.0;
        }
        let RunCounts { added, convicted, innocent, failed } = &*self.run_counts;
        report.runs_added = added.load(Relaxed);
        report.convicted = convicted.load(Relaxed);
        report.innocent = innocent.load(Relaxed);
        report.run_faults = failed.load(Relaxed);
        report
    }
}
