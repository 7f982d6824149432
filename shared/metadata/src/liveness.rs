//! Which nodes live, by looks at what they said.
//!
//! A node that was not heard for so long, while others were, is lost. Only what the judge saw counts, by the judge's own monotonic
//! clock: a node is heard when its record has changed since the last look. While nobody is heard nobody is judged, and who
//! lived before that has his time again when the first one is heard: what fell silent was the way. So metadata or a control plane
//! that is away, or a judge that stood still, makes nobody lost. That holds among nodes whose words come the same way: those that
//! speak through a control plane are no judge's measure for the process of that control plane, which needs no way, nor it for them.
//! Who shows records of several ways has a judge for each.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use types::{NodeId, Timestamp};

use crate::NodeRecord;

/// Judges which nodes live.
#[derive(Debug)]
pub struct Liveness {
    lost_after: Duration,
    /// When anybody was heard.
    last_word: Option<Instant>,
    last_look: Option<Instant>,
    heard: BTreeMap<NodeId, Heard>,
}

/// What a node said last, and how long others were heard since without it.
#[derive(Debug)]
struct Heard {
    said: (u64, Timestamp),
    silent_for: Duration,
    lives: bool,
}

impl Liveness {
    /// Who is silent for `lost_after` is lost; to be looked at some times within that.
    #[must_use]
    pub fn new(lost_after: Duration) -> Self {
        Self { lost_after, last_word: None, last_look: None, heard: BTreeMap::new() }
    }

    /// Takes in what the store has of the nodes. Who is seen for the first time counts as heard.
    pub fn look<'a>(&mut self, nodes: impl IntoIterator<Item = &'a NodeRecord>, now: Instant) {
        let mut before = std::mem::take(&mut self.heard);
        let way_was_silent = self.last_word.is_none_or(|last| now.duration_since(last) > self.lost_after / 2);
        let judged = match self.last_look.replace(now) {
            Some(last) if !way_was_silent => now.duration_since(last),
            _ => Duration::ZERO,
        };
        let mut anybody = false;
        for record in nodes {
            let said = (record.epoch, record.heartbeat_at);
            let heard = match before.remove(&record.node.id) {
                Some(heard) if heard.said == said => Heard { silent_for: heard.silent_for + judged, ..heard },
                _ => {
                    anybody = true;
                    Heard { said, silent_for: Duration::ZERO, lives: true }
                }
            };
            self.heard.insert(record.node.id, heard);
        }
        if anybody {
            self.last_word = Some(now);
        }
        for heard in self.heard.values_mut().filter(|heard| heard.lives) {
            match (way_was_silent, anybody) {
                (true, false) => {}
                (true, true) => heard.silent_for = Duration::ZERO,
                (false, _) => heard.lives = heard.silent_for < self.lost_after,
            }
        }
    }

    /// How long a node has said nothing while others of its way were heard: time that was looked through, not what the store's
    /// clock says. `None`: it has no record.
    #[must_use]
    pub fn silent_for(&self, node: NodeId) -> Option<Duration> {
        self.heard.get(&node).map(|heard| heard.silent_for)
    }

    /// Whether a node lived at the last look.
    #[must_use]
    pub fn lives(&self, node: NodeId) -> bool {
        self.heard.get(&node).is_some_and(|heard| heard.lives)
    }
}

#[cfg(test)]
mod tests {
    use crate::NodeDescription;

    use super::*;

    const LOST_AFTER: Duration = Duration::from_secs(3);

    fn record(id: u64, epoch: u64, heartbeat: i64) -> NodeRecord {
        let node = NodeDescription { id: NodeId(id), zone: None, addresses: BTreeMap::new() };
        let silent_for = Duration::from_secs(1_000);
        NodeRecord { node, epoch, heartbeat_at: Timestamp(heartbeat), silent_for }
    }

    /// Looks at times in milliseconds, at which nodes 1 and 2 have said so much; gives who lives after each.
    fn lives(looks: &[(u64, i64, i64)]) -> Vec<(bool, bool)> {
        let (start, mut liveness) = (Instant::now(), Liveness::new(LOST_AFTER));
        let look = |&(at, first, second): &(u64, i64, i64)| {
            liveness.look(&[record(1, 1, first), record(2, 1, second)], start + Duration::from_millis(at));
            (liveness.lives(NodeId(1)), liveness.lives(NodeId(2)))
        };
        looks.iter().map(look).collect()
    }

    /// Goal: a node is lost when it was silent for so long while others could be heard, however old its last word was at the first
    /// look, and lives again from its next word.
    #[test]
    fn silence_is_loss() {
        let looks: Vec<_> = (0..9).map(|at| (at * 500, at as i64, if at == 8 { 1 } else { 0 })).collect();
        let seen = lives(&looks);
        assert_eq!(
            seen.iter().map(|(_, second)| *second).collect::<Vec<_>>(),
            [[true; 6].as_slice(), &[false, false, true]].concat()
        );
        assert!(seen.iter().all(|(first, _)| *first));
    }

    /// Goal: where nobody is heard, as looks fail or come late or all words get lost on one way, nobody is called lost for it, and
    /// all have their time again; who was lost before stays lost.
    #[test]
    fn who_hears_nobody_does_not_judge() {
        let mut looks: Vec<_> = (0..4).map(|at| (at * 500, at as i64, at as i64)).collect();
        looks.extend((4..20).map(|at| (at * 500, 3, 3)));
        looks.extend((20..27).map(|at| (at * 500, at as i64, 3)));
        let seen = lives(&looks);
        assert!(seen[..26].iter().all(|living| *living == (true, true)), "{seen:?}");
        assert_eq!(seen[26], (true, false), "3 s after the first word");

        looks.extend([(30_000, 26, 3), (40_000, 26, 3), (50_000, 27, 3), (50_500, 28, 3)]);
        assert_eq!(lives(&looks)[27..], [(true, false); 4]);
    }

    /// Goal: a node that registers anew, or whose record goes, is judged anew.
    #[test]
    fn a_new_life_is_heard() {
        let (start, mut liveness) = (Instant::now(), Liveness::new(LOST_AFTER));
        let look = |at: u64| (vec![record(1, 1, 5), record(2, 1, at as i64)], start + Duration::from_millis(at * 500));
        (0..7).map(look).for_each(|(records, now)| liveness.look(&records, now));
        assert!(!liveness.lives(NodeId(1)));
        liveness.look(&[record(1, 2, 5)], start + Duration::from_millis(3_500));
        assert!(liveness.lives(NodeId(1)));
        liveness.look(&[], start + Duration::from_millis(4_000));
        assert!(!liveness.lives(NodeId(1)));
    }

    /// Goal: the silence of a node is the time that was looked through while others spoke: neither what the store says of its age, nor
    /// the time of a judge that was away or heard nobody, adds to it, for living and for lost nodes.
    #[test]
    fn silence_is_what_was_looked_through() {
        let (start, mut liveness) = (Instant::now(), Liveness::new(LOST_AFTER));
        let mut silent_for = |at: u64, first: i64| {
            liveness.look(&[record(1, 1, first), record(2, 1, 0)], start + Duration::from_millis(at));
            liveness.silent_for(NodeId(2)).unwrap().as_millis()
        };
        assert_eq!(silent_for(0, 0), 0, "the store says 1,000 s");
        assert_eq!([silent_for(500, 1), silent_for(1_000, 2)], [500, 1_000]);
        assert_eq!(silent_for(7_200_000, 3), 0, "nobody looked for two hours");
        let lost: Vec<_> = (1..=8).map(|at| silent_for(7_200_000 + at * 500, 3 + at as i64)).collect();
        assert_eq!(lost[5..], [3_000, 3_500, 4_000]);
        assert_eq!(silent_for(9_000_000, 12), 4_000, "a lost one stays as it was");
        assert_eq!(liveness.silent_for(NodeId(3)), None);
    }
}
