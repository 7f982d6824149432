//! Codes of whichever width, handed to loops that are compiled for each.

/// Runs `$body` with `$items` as the rows' codes of whichever width.
macro_rules! by_width {
    ($codes:expr, $rows:expr, |$items:ident| $body:expr) => {
        match $codes {
            engine::Codes::U8(codes) => {
                let $items = &codes[$rows];
                $body
            }
            engine::Codes::U16(codes) => {
                let $items = &codes[$rows];
                $body
            }
            engine::Codes::U32(codes) => {
                let $items = &codes[$rows];
                $body
            }
        }
    };
}

pub(crate) use by_width;
