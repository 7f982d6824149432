//! Access logs, combined and common: `ip ident user [time] "request" status bytes "referer" "user agent"`.

use super::{
    mapping::ACCESS_FIELDS,
    record::{Read, Record, Records, Slot},
    source::{Line, Lines},
};
use crate::failure::Failure;

/// Reads access logs.
pub(crate) struct AccessLog {
    lines: Lines,
    /// For each field of a line, its slot if the mapping asked for it.
    wanted: [Option<Slot>; ACCESS_FIELDS.len()],
    fields: usize,
    slots: usize,
}

impl AccessLog {
    /// A reader that fills the slots of `columns`.
    ///
    /// # Errors
    /// A column that such a log does not have.
    pub(crate) fn new(lines: Lines, columns: &[String], combined: bool) -> Result<Self, Failure> {
        let fields = if combined { ACCESS_FIELDS.len() } else { ACCESS_FIELDS.len() - 2 };
        let mut wanted = [None; ACCESS_FIELDS.len()];
        for (slot, column) in columns.iter().enumerate() {
            let field = ACCESS_FIELDS[..fields].iter().position(|field| field == column).ok_or_else(|| {
                Failure::new(format!("an access log has no field {column:?}"))
                    .hint(format!("it has {}", ACCESS_FIELDS[..fields].join(", ")))
            })?;
            wanted[field] = Some(Slot(slot));
        }
        Ok(Self { lines, wanted, fields, slots: columns.len() })
    }
}

impl Records for AccessLog {
    fn next(&mut self, record: &mut Record) -> std::io::Result<Read> {
        let line = self.lines.next()?;
        let read = match line {
            Line::End => return Ok(Read::End),
            Line::Bad(why) => Err(why.to_owned()),
            Line::Text(text) => fields(text, self.fields).ok_or_else(|| "the line is no access log line".to_owned()),
        };
        match read {
            Ok(fields) => {
                // The fields borrow the line buffer, not the counter, so the number is read through a copy.
                record.begin(self.slots, 0);
                for (field, slot) in fields.iter().zip(self.wanted) {
                    if let (Some(text), Some(slot)) = (field, slot) {
                        record.set(slot, text);
                    }
                }
                record.line = self.lines.number();
                Ok(Read::Record)
            }
            Err(why) => {
                record.begin(self.slots, self.lines.number());
                Ok(Read::Bad(why))
            }
        }
    }
}

/// The fields of a line; `None` where it is not of this form. `-` and empty text are absent.
fn fields(line: &str, count: usize) -> Option<[Option<&str>; ACCESS_FIELDS.len()]> {
    let mut rest = Cursor(line);
    let client_ip = rest.word()?;
    let ident = rest.word()?;
    let user = rest.word()?;
    let time = rest.between('[', ']')?;
    let request = rest.quoted()?;
    let status = rest.word()?;
    let bytes = rest.word()?;
    let (referer, user_agent) =
        if count == ACCESS_FIELDS.len() { (rest.quoted()?, rest.quoted()?) } else { ("-", "-") };
    // A request that is no HTTP (a probe, a broken client) has no parts; its text is kept as the path.
    let mut parts = request.splitn(3, ' ');
    let (method, path, protocol) = match (parts.next(), parts.next(), parts.next()) {
        (Some(method), Some(path), protocol) => (method, path, protocol.unwrap_or("-")),
        _ => ("-", request, "-"),
    };
    let fields = [client_ip, ident, user, time, method, path, protocol, status, bytes, referer, user_agent];
    Some(fields.map(|field| (field != "-" && !field.is_empty()).then_some(field)))
}

struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    fn word(&mut self) -> Option<&'a str> {
        let text = self.0.trim_start_matches(' ');
        let (word, rest) = text.split_at(text.find(' ').unwrap_or(text.len()));
        self.0 = rest;
        (!word.is_empty()).then_some(word)
    }

    fn between(&mut self, open: char, close: char) -> Option<&'a str> {
        let (inner, rest) = self.0.trim_start_matches(' ').strip_prefix(open)?.split_once(close)?;
        self.0 = rest;
        Some(inner)
    }

    /// A text in double quotes; a quote after a backslash belongs to it, and backslashes stay as they are.
    fn quoted(&mut self) -> Option<&'a str> {
        let text = self.0.trim_start_matches(' ').strip_prefix('"')?;
        let mut escaped = false;
        let end = text.bytes().position(|byte| {
            let ends = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            ends
        })?;
        self.0 = &text[end + 1..];
        Some(&text[..end])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: every field of both forms is found, dashes are absent, and quotes inside quotes do not end them.
    #[test]
    fn lines_are_taken_apart() {
        let line = r#"10.0.0.1 - bob [17/May/2015:10:05:03 +0000] "GET /a?b=\"c\" HTTP/1.1" 200 - "-" "agent \"x\" 1""#;
        let found = fields(line, 11).unwrap();
        let want = [
            Some("10.0.0.1"),
            None,
            Some("bob"),
            Some("17/May/2015:10:05:03 +0000"),
            Some("GET"),
            Some(r#"/a?b=\"c\""#),
            Some("HTTP/1.1"),
            Some("200"),
            None,
            None,
            Some(r#"agent \"x\" 1"#),
        ];
        assert_eq!(found, want);
        let common = r#"h - - [t] "GET /" 304 0"#;
        let found = fields(common, 9).unwrap();
        assert_eq!(
            (found[4], found[5], found[6], found[8], found[10]),
            (Some("GET"), Some("/"), None, Some("0"), None)
        );
        assert_eq!(fields(common, 11), None, "a common line is no combined one");
        assert_eq!(fields(r#"h - - [t] "\x16\x03" 400 1"#, 9).unwrap()[5], Some(r"\x16\x03"));
    }

    /// Goal: what is no such line is refused, not guessed.
    #[test]
    fn other_lines_are_refused() {
        for line in ["", "a b c", "a b c [t", r#"a b c [t] "GET"#, r#"a b c [t] "GET /" 200"#] {
            assert_eq!(fields(line, 9), None, "{line}");
        }
    }
}
