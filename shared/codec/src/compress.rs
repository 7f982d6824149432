//! Compressed bodies, held to a limit while they are inflated: a bomb costs no more than the limit.

use std::{
    fmt,
    io::{self, Read},
};

use types::{ApiError, ErrorCode};

/// The largest window that a zstd stream may ask for, as a power of two: 8 MiB, what decoders must support at least.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// Bytes set aside before anything is inflated, at most.
const FIRST_BYTES_MAX: usize = 64 << 10;

/// An encoding of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// As it is.
    Identity,
    /// gzip, several members included.
    Gzip,
    /// Zstandard.
    Zstd,
}

/// Why a body could not be inflated.
#[derive(Debug, thiserror::Error)]
pub enum DecompressError {
    /// It holds more than the limit.
    #[error("body has more than {limit} bytes when decompressed")]
    TooLarge {
        /// The limit, bytes.
        limit: usize,
    },
    /// It is damaged, or is not of this encoding.
    #[error("body is not valid {encoding}: {source}")]
    Damaged {
        /// What it should be.
        encoding: Encoding,
        /// What the decoder found.
        source: io::Error,
    },
}

impl Encoding {
    /// The encoding that a `Content-Encoding` names; `None`: one that is not spoken, or several.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let named = |known: &str| name.trim().eq_ignore_ascii_case(known);
        if named("identity") || named("") {
            Some(Self::Identity)
        } else if named("gzip") || named("x-gzip") {
            Some(Self::Gzip)
        } else if named("zstd") {
            Some(Self::Zstd)
        } else {
            None
        }
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        })
    }
}

impl DecompressError {
    /// The code of the contract.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::TooLarge { .. } => ErrorCode::TooLarge,
            Self::Damaged { .. } => ErrorCode::InvalidArgument,
        }
    }
}

impl From<DecompressError> for ApiError {
    fn from(error: DecompressError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

/// Inflates a body to at most `limit` bytes.
///
/// # Errors
/// It holds more, or is damaged.
pub fn decompress(encoding: Encoding, body: &[u8], limit: usize) -> Result<Vec<u8>, DecompressError> {
    let damaged = |source| DecompressError::Damaged { encoding, source };
    match encoding {
        Encoding::Identity => read_to_limit(body, encoding, limit),
        Encoding::Gzip => read_to_limit(flate2::read::MultiGzDecoder::new(body), encoding, limit),
        Encoding::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(body).map_err(damaged)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(damaged)?;
            read_to_limit(decoder, encoding, limit)
        }
    }
}

fn read_to_limit(source: impl Read, encoding: Encoding, limit: usize) -> Result<Vec<u8>, DecompressError> {
    let mut out = Vec::with_capacity(limit.min(FIRST_BYTES_MAX));
    // One byte beyond the limit tells a body that fills it from one that breaks it.
    let read = source.take(limit as u64 + 1).read_to_end(&mut out);
    if out.len() > limit {
        return Err(DecompressError::TooLarge { limit });
    }
    match read {
        Ok(_) => Ok(out),
        Err(source) => Err(DecompressError::Damaged { encoding, source }),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(body: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd_with_window(body: &[u8], log: u32) -> Vec<u8> {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(log).unwrap();
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    /// Goal: what fits the limit comes back, one byte more does not, in every encoding.
    #[test]
    fn the_limit_holds_to_the_byte() {
        let body: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
        let sent = [
            (Encoding::Identity, body.clone()),
            (Encoding::Gzip, gzip(&body)),
            (Encoding::Zstd, zstd_with_window(&body, 20)),
        ];
        for (encoding, sent) in sent {
            assert_eq!(decompress(encoding, &sent, body.len()).unwrap(), body);
            let error = decompress(encoding, &sent, body.len() - 1).unwrap_err();
            assert_eq!(error.code(), ErrorCode::TooLarge, "{encoding}");
        }
    }

    /// Goal: a bomb stops at the limit; a window beyond what is allowed, and damage, are refused.
    #[test]
    fn bombs_windows_and_damage_are_refused() {
        let zeros = vec![0; 32 << 20];
        for (encoding, bomb) in [(Encoding::Gzip, gzip(&zeros)), (Encoding::Zstd, zstd_with_window(&zeros, 20))] {
            assert!(bomb.len() < 64 << 10);
            assert_eq!(decompress(encoding, &bomb, 1 << 20).unwrap_err().code(), ErrorCode::TooLarge);
            let cut = decompress(encoding, &bomb[..bomb.len() - 4], 64 << 20).unwrap_err();
            assert_eq!(cut.code(), ErrorCode::InvalidArgument, "{encoding}");
            assert_eq!(decompress(encoding, b"no such", 100).unwrap_err().code(), ErrorCode::InvalidArgument);
        }
        let wide = decompress(Encoding::Zstd, &zstd_with_window(&zeros, 27), 64 << 20).unwrap_err();
        assert_eq!(wide.code(), ErrorCode::InvalidArgument);
    }

    /// Goal: gzip in several members, as log shippers write it, is read in full.
    #[test]
    fn gzip_members_are_joined() {
        let sent = [gzip(b"one\n"), gzip(b"two\n")].concat();
        assert_eq!(decompress(Encoding::Gzip, &sent, 100).unwrap(), b"one\ntwo\n");
    }

    /// Goal: one encoding is understood, a list of them is not.
    #[test]
    fn encodings_have_names() {
        assert_eq!(Encoding::from_name("GZIP"), Some(Encoding::Gzip));
        assert_eq!(Encoding::from_name("gzip, gzip"), None);
        assert_eq!(Encoding::from_name("br"), None);
    }
}
