//! Which nodes live, by looks at what they said.
//!
//! A node that was not heard for so long, while others were, is lost. Only what the judge saw counts, by the judge's own monotonic
//! clock: a node is heard when its record has changed since the last look. While nobody is heard nobody is judged, and who
//! lived before that has his time again when the first one is heard: what fell silent was the way. So metadata or a control plane
//! that is away, or a judge that stood still, makes nobody lost.

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
    heard: BTreeMap<NodeId, Heard>,
}

/// What a node said last, and when that was seen.
#[derive(Debug)]
struct Heard {
    said: (u64, Timestamp),
    at: Instant,
    lives: bool,
}

impl Liveness {
    /// Who is silent for `lost_after` is lost; to be looked at some times within that.
    #[must_use]
    pub fn new(lost_after: Duration) -> Self {
        Self { lost_after, last_word: None, heard: BTreeMap::new() }
    }

    /// Takes in what the store has of all nodes. Who is seen for the first time counts as heard.
    pub fn look(&mut self, nodes: &[NodeRecord], now: Instant) {
        self.heard.retain(|&id, _| nodes.iter().any(|record| record.node.id == id));
        let mut anybody = false;
        for record in nodes {
            let said = (record.epoch, record.heartbeat_at);
            if self.heard.get(&record.node.id).is_none_or(|heard| heard.said != said) {
                self.heard.insert(record.node.id, Heard { said, at: now, lives: true });
                anybody = true;
            }
        }
        let way_was_silent = self.last_word.is_none_or(|last| now.duration_since(last) > self.lost_after / 2);
        if anybody {
            self.last_word = Some(now);
        }
        match (way_was_silent, anybody) {
            (true, false) => {}
            (true, true) => self.heard.values_mut().filter(|heard| heard.lives).for_each(|heard| heard.at = now),
            (false, _) => {
                for heard in self.heard.values_mut() {
                    heard.lives = now.duration_since(heard.at) < self.lost_after;
                }
            }
        }
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
}
