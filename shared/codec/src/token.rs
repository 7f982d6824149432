//! Tokens: which records an answer covers, or a query must cover. The same form serves as the `token` of an ingest
//! reply and as `covers` of a receipt.
//!
//! Opaque to clients: base64url without padding over a version byte, numbers as varints, and the first 16 bytes of an
//! HMAC-SHA256 over all of it. Nothing is read before the HMAC was verified, and every count is held against the bytes
//! that are left all the same. Whose token it is, the caller checks against the credential's tenant.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use types::{Generation, Offset, PartitionId, SchemaVersion, TableId, TenantId};

const VERSION: u8 = 1;
const MAC_BYTES: usize = 16;
/// Characters of a token; one of 1,024 partitions of 10 tables has about half of this.
const TOKEN_CHARS_MAX: usize = 256 << 10;
/// A table has an id, a generation, a schema version and a count; a partition an id and an offset: a byte each at least.
const TABLE_BYTES_MIN: usize = 4;
pub(crate) const PARTITION_BYTES_MIN: usize = 2;

/// The key that tokens are authenticated with. All gateways and query APIs of one cluster share it.
#[derive(Clone)]
pub struct TokenKey([u8; 32]);

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Whose data it is about.
    pub tenant: TenantId,
    /// Per table, ascending by id, none twice.
    tables: Vec<TableToken>,
}

/// What a token says of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableToken {
    /// The table.
    pub table: TableId,
    /// Which life of it.
    pub generation: Generation,
    /// At least this schema.
    pub schema_version: SchemaVersion,
    /// Per partition, ascending, none twice: every record before this offset.
    pub offsets: Vec<(PartitionId, Offset)>,
}

/// Why a text is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not made here, cut off or changed.
    #[error("is not a token of this installation")]
    Forged,
    /// Made by other code.
    #[error("is a token of another version")]
    Version,
}

impl TokenKey {
    /// A key of 32 secret bytes.
    #[must_use]
    pub fn new(secret: [u8; 32]) -> Self {
        Self(secret)
    }

    fn mac(&self, content: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(content);
        mac
    }
}

impl fmt::Debug for TokenKey {
    /// Never shows the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKey(…)")
    }
}

impl Token {
    /// A token about nothing yet.
    #[must_use]
    pub fn new(tenant: TenantId) -> Self {
        Self { tenant, tables: Vec::new() }
    }

    /// What it says of each table, ascending by id.
    #[must_use]
    pub fn tables(&self) -> &[TableToken] {
        &self.tables
    }

    /// What it says of one table.
    #[must_use]
    pub fn table(&self, table: TableId) -> Option<&TableToken> {
        self.tables.binary_search_by_key(&table, |known| known.table).ok().map(|at| &self.tables[at])
    }

    /// Adds that every record of a table before `next` of each partition is covered. Of two statements the greater
    /// offset stands; of two lives of a table the later.
    pub fn cover(&mut self, table: &TableToken) {
        match self.tables.binary_search_by_key(&table.table, |known| known.table) {
            Err(at) => {
                let empty = TableToken { offsets: Vec::with_capacity(table.offsets.len()), ..table.clone() };
                self.tables.insert(at, empty);
                self.tables[at].cover(&table.offsets);
            }
            Ok(at) if self.tables[at].generation < table.generation => {
                self.tables[at].generation = table.generation;
                self.tables[at].schema_version = table.schema_version;
                self.tables[at].offsets.clear();
                self.tables[at].cover(&table.offsets);
            }
            Ok(at) if self.tables[at].generation == table.generation => {
                let known = &mut self.tables[at];
                known.schema_version = known.schema_version.max(table.schema_version);
                known.cover(&table.offsets);
            }
            Ok(_) => {}
        }
    }

    /// Adds all that another token of the same tenant says.
    pub fn merge(&mut self, other: &Self) {
        other.tables.iter().for_each(|table| self.cover(table));
    }

    /// The token as text.
    #[must_use]
    pub fn encode(&self, key: &TokenKey) -> String {
        let mut out = vec![VERSION];
        put(&mut out, self.tenant.0);
        put(&mut out, self.tables.len() as u64);
        for table in &self.tables {
            put(&mut out, table.table.0);
            put(&mut out, u64::from(table.generation.0));
            put(&mut out, u64::from(table.schema_version.0));
            put(&mut out, table.offsets.len() as u64);
            for (partition, next) in &table.offsets {
                put(&mut out, u64::from(partition.0));
                put(&mut out, next.0);
            }
        }
        seal(key, out)
    }

    /// Reads a token that was made with the same key.
    ///
    /// # Errors
    /// It was not; the caller's `INVALID_ARGUMENT`.
    pub fn decode(key: &TokenKey, text: &str) -> Result<Self, TokenError> {
        read(&unseal(key, VERSION, text)?[1..]).ok_or(TokenError::Forged)
    }
}

/// Content, which begins with its version, as text that [`unseal`] takes.
pub(crate) fn seal(key: &TokenKey, mut content: Vec<u8>) -> String {
    let mac = key.mac(&content).finalize().into_bytes();
    content.extend_from_slice(&mac[..MAC_BYTES]);
    URL_SAFE_NO_PAD.encode(content)
}

/// The content of a text that was sealed with the same key; it begins with `version`.
pub(crate) fn unseal(key: &TokenKey, version: u8, text: &str) -> Result<Vec<u8>, TokenError> {
    if text.len() > TOKEN_CHARS_MAX {
        return Err(TokenError::Forged);
    }
    let mut content = URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenError::Forged)?;
    let (_, mac) = content.split_last_chunk::<MAC_BYTES>().ok_or(TokenError::Forged)?;
    let mac = *mac;
    content.truncate(content.len() - MAC_BYTES);
    key.mac(&content).verify_truncated_left(&mac).map_err(|_| TokenError::Forged)?;
    match content.first() {
        Some(&first) if first == version => Ok(content),
        Some(_) => Err(TokenError::Version),
        None => Err(TokenError::Forged),
    }
}

impl TableToken {
    /// Raises the offsets to at least these.
    fn cover(&mut self, offsets: &[(PartitionId, Offset)]) {
        for &(partition, next) in offsets {
            match self.offsets.binary_search_by_key(&partition, |known| known.0) {
                Ok(at) => self.offsets[at].1 = self.offsets[at].1.max(next),
                Err(at) => self.offsets.insert(at, (partition, next)),
            }
        }
    }
}

pub(crate) fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

pub(crate) fn take(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..u64::BITS).step_by(7) {
        let (&byte, behind) = rest.split_first()?;
        *rest = behind;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            return None;
        }
        number |= bits << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

/// A count of things of which each takes at least `bytes_min`.
pub(crate) fn take_count(rest: &mut &[u8], bytes_min: usize) -> Option<usize> {
    let count = usize::try_from(take(rest)?).ok()?;
    (count <= rest.len() / bytes_min).then_some(count)
}

pub(crate) fn take_u32(rest: &mut &[u8]) -> Option<u32> {
    u32::try_from(take(rest)?).ok()
}

fn read(mut rest: &[u8]) -> Option<Token> {
    let tenant = TenantId(take(&mut rest)?);
    let tables = take_count(&mut rest, TABLE_BYTES_MIN)?;
    let tables = (0..tables).map(|_| read_table(&mut rest)).collect::<Option<Vec<_>>>()?;
    let ascending = tables.is_sorted_by(|a, b| a.table < b.table);
    (rest.is_empty() && ascending).then_some(Token { tenant, tables })
}

fn read_table(rest: &mut &[u8]) -> Option<TableToken> {
    let table = TableId(take(rest)?);
    let generation = Generation(take_u32(rest)?);
    let schema_version = SchemaVersion(take_u32(rest)?);
    let partitions = take_count(rest, PARTITION_BYTES_MIN)?;
    let offsets = (0..partitions)
        .map(|_| Some((PartitionId(take_u32(rest)?), Offset(take(rest)?))))
        .collect::<Option<Vec<_>>>()?;
    offsets.is_sorted_by(|a, b| a.0 < b.0).then_some(TableToken { table, generation, schema_version, offsets })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> TokenKey {
        TokenKey::new([7; 32])
    }

    fn table(id: u64, generation: u32, offsets: &[(u32, u64)]) -> TableToken {
        TableToken {
            table: TableId(id),
            generation: Generation(generation),
            schema_version: SchemaVersion(generation + 1),
            offsets: offsets.iter().map(|&(partition, next)| (PartitionId(partition), Offset(next))).collect(),
        }
    }

    fn token(tables: &[TableToken]) -> Token {
        let mut token = Token::new(TenantId(1));
        tables.iter().for_each(|table| token.cover(table));
        token
    }

    /// Goal: merging takes the greatest offset per partition and the latest life per table, in any order.
    #[test]
    fn merging_covers_both() {
        let a = token(&[table(9, 1, &[(3, 10), (1, 5)]), table(2, 1, &[(0, 1)])]);
        let b = token(&[table(9, 1, &[(1, 7), (3, 9), (2, 1)]), table(2, 2, &[(4, 4)])]);
        let both = token(&[table(2, 2, &[(4, 4)]), table(9, 1, &[(1, 7), (2, 1), (3, 10)])]);
        for (mut into, from) in [(a.clone(), &b), (b.clone(), &a)] {
            into.merge(from);
            assert_eq!(into, both);
        }
        assert_eq!(both.table(TableId(9)).unwrap().offsets.len(), 3);
        assert_eq!(both.table(TableId(3)), None);
    }

    /// Goal: another key, and any changed character, are noticed; so are contents that only the key's owner could
    /// have made wrong.
    #[test]
    fn forgeries_are_noticed() {
        let text = token(&[table(300, 1, &[(1, 1 << 40), (2, u64::MAX)])]).encode(&key());
        assert!(!text.contains('='));
        assert_eq!(Token::decode(&TokenKey::new([8; 32]), &text), Err(TokenError::Forged));
        for at in 0..text.len() {
            let mut forged = text.clone().into_bytes();
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            assert!(Token::decode(&key(), std::str::from_utf8(&forged).unwrap()).is_err(), "{at}");
            assert!(Token::decode(&key(), &text[..at]).is_err());
        }
        let signed = |content: &[u8]| {
            let mac = key().mac(content).finalize().into_bytes();
            Token::decode(&key(), &URL_SAFE_NO_PAD.encode([content, &mac[..MAC_BYTES]].concat()))
        };
        assert_eq!(signed(&[2]), Err(TokenError::Version));
        assert_eq!(signed(&[VERSION, 1, 0]), Ok(Token::new(TenantId(1))));
        let huge = [VERSION, 1, 0xff, 0xff, 0xff, 0xff, 0x0f, 1, 1, 1];
        for wrong in [&[VERSION][..], &[VERSION, 1, 0, 0], &huge, &[VERSION, 1, 2, 5, 1, 1, 0, 5, 1, 1, 0]] {
            assert_eq!(signed(wrong), Err(TokenError::Forged), "{wrong:?}");
        }
    }

    proptest! {
        /// Goal: every token survives its text.
        #[test]
        fn tokens_round_trip(
            tenant: u64,
            tables in prop::collection::vec((any::<u64>(), any::<u32>(), prop::collection::vec(any::<(u32, u64)>(), 0..9)), 0..9),
        ) {
            let mut token = Token::new(TenantId(tenant));
            for (id, generation, offsets) in &tables {
                token.cover(&table(*id, generation % 3, offsets));
            }
            prop_assert_eq!(Token::decode(&key(), &token.encode(&key())), Ok(token));
        }

        /// Goal: no text makes the decoder panic, signed or not.
        #[test]
        fn no_text_panics(content: Vec<u8>, text: String) {
            let _ = Token::decode(&key(), &text);
            let mac = key().mac(&content).finalize().into_bytes();
            let _ = Token::decode(&key(), &URL_SAFE_NO_PAD.encode([&content[..], &mac[..MAC_BYTES]].concat()));
        }
    }
}
