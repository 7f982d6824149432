//! Which tokens of acked batches together cover all of them.
//!
//! 1. A gateway's token covers its own batch and all that the gateway had acked for the same tables before.
//! 2. Of batches that are under way together none needs to be acked after the others, in whatever order they were sent; but
//!    a batch is sent only when the one sent `window` before it is acked. So a token may go once `window` batches for each of
//!    its tables were sent after its own.

use std::collections::{BTreeMap, BTreeSet};

/// Namespace and table.
pub(crate) type Name = (String, String);

/// The tokens that are kept, in the order in which their batches were sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tokens(Vec<(BTreeSet<Name>, String)>);

impl Tokens {
    /// Adds the token of the next batch, which was for `tables`; at most `window` batches are under way at a time.
    pub(crate) fn add(&mut self, token: String, tables: BTreeSet<Name>, window: usize) {
        self.0.push((tables, token));
        let mut later: BTreeMap<&Name, usize> = BTreeMap::new();
        let mut wanted = Vec::with_capacity(self.0.len());
        for (tables, _) in self.0.iter().rev() {
            let wants = tables.iter().any(|name| later.get(name).is_none_or(|&count| count < window));
            if wants {
                tables.iter().for_each(|name| *later.entry(name).or_default() += 1);
            }
            wanted.push(wants);
        }
        // Decided from the newest to the oldest.
        self.0.retain(|_| wanted.pop().unwrap_or(true));
    }

    /// The tokens, each once, the newest last.
    pub(crate) fn list(&self) -> Vec<String> {
        let mut list: Vec<String> = self.0.iter().map(|(_, token)| token.clone()).collect();
        list.dedup();
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(tables: &[&str]) -> BTreeSet<Name> {
        tables.iter().map(|&table| ("shop".to_owned(), table.to_owned())).collect()
    }

    /// Goal: with three batches under way the last three tokens are kept, so that the one made last is always among them.
    #[test]
    fn as_many_are_kept_as_may_be_under_way() {
        let mut tokens = Tokens::default();
        for n in 1..=10 {
            tokens.add(n.to_string(), of(&["a"]), 3);
        }
        assert_eq!(tokens.list(), ["8", "9", "10"]);
    }

    /// Goal: batches of another table do not drive out the tokens of one; those of a batch of both do for both.
    #[test]
    fn each_table_keeps_its_own() {
        let mut tokens = Tokens::default();
        for (token, tables) in [("1", &["a"][..]), ("2", &["b"]), ("3", &["b"]), ("4", &["b"]), ("5", &["a"])] {
            tokens.add(token.to_owned(), of(tables), 2);
        }
        assert_eq!(tokens.list(), ["1", "3", "4", "5"]);
        tokens.add("6".to_owned(), of(&["a", "b"]), 2);
        assert_eq!(tokens.list(), ["4", "5", "6"]);
    }
}
