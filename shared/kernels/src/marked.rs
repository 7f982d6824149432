//! The items that a line of bits marks.

/// Bits of a word, each of which marks an item.
const WORD_ITEMS: usize = 64;

/// Puts the marked items into `into`, in order, instead of what is there: bit `b` of word `w` marks item `64 * w + b`.
///
/// # Panics
/// A bit has no item.
pub fn list_marked_items(marks: &[u64], items: &[u32], into: &mut Vec<u32>) {
    into.clear();
    let whole = marks.len().min(items.len() / WORD_ITEMS);
    let count: usize = marks.iter().map(|word| word.count_ones() as usize).sum();
    into.reserve(count + WORD_ITEMS);
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx512f") && std::is_x86_feature_detected!("popcnt") {
        // SAFETY: the machine has these instructions, each word has its items, and there is room for all that are marked.
        unsafe { avx512::compress(&marks[..whole], &items[..whole * WORD_ITEMS], into) };
        return list_bits(&marks[whole..], &items[whole * WORD_ITEMS..], into);
    }
    list_bits(marks, items, into);
}

/// Appends the marked items.
fn list_bits(marks: &[u64], items: &[u32], into: &mut Vec<u32>) {
    for (at, &word) in marks.iter().enumerate() {
        let mut rest = word;
        while rest != 0 {
            into.push(items[at * WORD_ITEMS + rest.trailing_zeros() as usize]);
            rest &= rest - 1;
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{_mm512_loadu_si512, _mm512_maskz_compress_epi32, _mm512_storeu_si512};

    use super::WORD_ITEMS;

    /// Items that one instruction takes.
    const AT_ONCE: usize = 16;

    /// Appends the marked items.
    ///
    /// # Safety
    /// There are [`WORD_ITEMS`] items for each word, and behind the last item in `into` room for all that are marked and
    /// [`AT_ONCE`] more.
    #[target_feature(enable = "avx512f,popcnt")]
    pub(super) unsafe fn compress(marks: &[u64], items: &[u32], into: &mut Vec<u32>) {
        let mut len = into.len();
        for (&word, items) in marks.iter().zip(items.as_chunks::<WORD_ITEMS>().0) {
            for (at, items) in items.as_chunks::<AT_ONCE>().0.iter().enumerate() {
                let mask = (word >> (at * AT_ONCE)) as u16;
                // SAFETY: there are 16 of them.
                let items = unsafe { _mm512_loadu_si512(items.as_ptr().cast()) };
                let marked = _mm512_maskz_compress_epi32(mask, items);
                // SAFETY: what was listed fits, as the caller promises.
                let end = unsafe { into.as_mut_ptr().add(len) };
                // All lanes are written, be they marked or not: what is behind those that are is written over, or not counted.
                // SAFETY: there is room for 16 more, as the caller promises.
                unsafe { _mm512_storeu_si512(end.cast(), marked) };
                len += mask.count_ones() as usize;
            }
        }
        // SAFETY: so many were written, for which there is room.
        unsafe { into.set_len(len) };
    }
}
