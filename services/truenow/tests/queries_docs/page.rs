//! The page as a list of what stands in its fences.

/// A fenced block.
#[derive(Debug)]
pub(crate) struct Block<'a> {
    /// What follows the fence: `json request`.
    pub(crate) info: &'a str,
    pub(crate) text: &'a str,
    /// The line of its fence, from 1.
    pub(crate) line: usize,
}

/// All fenced blocks, in order.
pub(crate) fn blocks(page: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let (mut open, mut at): (Option<(&str, usize, usize)>, usize) = (None, 0);
    for (number, line) in page.split_inclusive('\n').enumerate() {
        if let Some(info) = line.strip_prefix("```") {
            open = match open {
                None => Some((info.trim(), at + line.len(), number + 1)),
                Some((info, start, line)) => {
                    blocks.push(Block { info, text: &page[start..at], line });
                    None
                }
            };
        }
        at += line.len();
    }
    assert!(open.is_none(), "a fence is not closed");
    blocks
}
