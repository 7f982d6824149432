//! A test on a dimension as a set of codes of one dictionary: evaluated once per string, not once per row.

use engine::{Codes, DictionaryView};
use kernels::{Code, Selection};

use crate::predicate::{DimensionCondition, DimensionTest};

/// Codes that are compared with one by one, at most; more are looked up in a list.
const COMPARED_MAX: usize = 4;
/// Codes that are looked for in the filters of chunks, at most: with more of them most chunks may have one.
const LOOKED_FOR_MAX: usize = 32;

/// The codes that pass.
#[derive(Debug, PartialEq)]
pub(crate) enum CodeFilter {
    All,
    None,
    AnyOf(Vec<u32>),
    NoneOf(Vec<u32>),
    /// By code: 1 passes, 0 does not; and the codes that pass, where they are few.
    Listed(Vec<u8>, Vec<u32>),
}

impl CodeFilter {
    pub(crate) fn new(test: &DimensionTest, dictionary: DictionaryView<'_>) -> Self {
        let absent = test.accepts(None);
        if let Some(candidates) = test.candidates() {
            // Lists are looked up by hash; a list of values is never satisfied by an absent one.
            let accepted = candidates.iter().filter(|value| test.accepts(Some(value)));
            return Self::any_of(accepted.filter_map(|value| dictionary.find(value)).collect(), dictionary);
        }
        if test.conditions().contains(&DimensionCondition::Exists(false)) {
            return Self::any_of(if absent { vec![0] } else { Vec::new() }, dictionary);
        }
        if let Some(exceptions) = test.exceptions() {
            let mut codes: Vec<u32> = exceptions.into_iter().filter_map(|value| dictionary.find(value)).collect();
            codes.extend((!absent).then_some(0));
            return Self::none_of(codes, dictionary);
        }
        let mut listed = vec![u8::from(absent); 1];
        listed.extend(dictionary.iter().map(|(_, value)| u8::from(test.accepts(Some(value)))));
        match listed.iter().filter(|&&passes| passes == 1).count() {
            0 => Self::None,
            all if all == listed.len() => Self::All,
            _ => Self::Listed(listed, Vec::new()),
        }
    }

    /// The only codes that pass, where they are few.
    pub(crate) fn few(&self) -> &[u32] {
        match self {
            Self::AnyOf(codes) | Self::Listed(_, codes) => codes,
            Self::All | Self::None | Self::NoneOf(_) => &[],
        }
    }

    fn any_of(codes: Vec<u32>, dictionary: DictionaryView<'_>) -> Self {
        match codes.len() {
            0 => Self::None,
            1..=COMPARED_MAX => Self::AnyOf(codes),
            more => {
                let listed = listed(&codes, dictionary, 1);
                Self::Listed(listed, if more <= LOOKED_FOR_MAX { codes } else { Vec::new() })
            }
        }
    }

    fn none_of(codes: Vec<u32>, dictionary: DictionaryView<'_>) -> Self {
        match codes.len() {
            0 => Self::All,
            1..=COMPARED_MAX => Self::NoneOf(codes),
            _ => Self::Listed(listed(&codes, dictionary, 0), Vec::new()),
        }
    }

    /// Takes the rows out of `selection` whose code does not pass.
    pub(crate) fn narrow(&self, selection: &mut Selection, codes: Codes<'_>, rows: std::ops::Range<usize>) {
        match codes {
            Codes::U8(codes) => self.narrow_codes(selection, &codes[rows]),
            Codes::U16(codes) => self.narrow_codes(selection, &codes[rows]),
            Codes::U32(codes) => self.narrow_codes(selection, &codes[rows]),
        }
    }

    fn narrow_codes<C: Code>(&self, selection: &mut Selection, codes: &[C]) {
        match self {
            Self::All => {}
            Self::None => selection.clear(),
            Self::AnyOf(wanted) => kernels::and_any_of(selection, codes, wanted),
            Self::NoneOf(unwanted) => kernels::and_none_of(selection, codes, unwanted),
            Self::Listed(listed, _) => kernels::and_listed(selection, codes, listed),
        }
    }
}

/// A list that holds `value` for `codes` and the opposite for all others.
fn listed(codes: &[u32], dictionary: DictionaryView<'_>, value: u8) -> Vec<u8> {
    let mut listed = vec![1 - value; dictionary.len() as usize + 1];
    for &code in codes {
        // A code found after the length was looked at is in no row of the snapshot.
        if let Some(entry) = listed.get_mut(code as usize) {
            *entry = value;
        }
    }
    listed
}
