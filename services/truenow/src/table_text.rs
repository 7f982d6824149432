//! Tables as text: columns aligned, numbers to the right, rules between head, body and end.

/// Lays out rows under a head. Cells that read as numbers stand to the right.
pub(crate) fn render(head: &[String], rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = head
        .iter()
        .enumerate()
        .map(|(column, name)| rows.iter().map(|row| width(&row[column])).chain([width(name)]).max().unwrap_or_default())
        .collect();
    let right: Vec<bool> =
        (0..head.len()).map(|column| rows.iter().all(|row| is_number(&row[column])) && !rows.is_empty()).collect();
    let rule = rule(&widths);
    let mut text = rule.clone();
    text.push_str(&line(head, &widths, &right));
    text.push_str(&rule);
    for row in rows {
        text.push_str(&line(row, &widths, &right));
    }
    text.push_str(&rule);
    text
}

fn rule(widths: &[usize]) -> String {
    let dashes: Vec<String> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
    format!("+{}+\n", dashes.join("+"))
}

fn line(cells: &[String], widths: &[usize], right: &[bool]) -> String {
    let mut text = String::from("|");
    for ((cell, &to), &right) in cells.iter().zip(widths).zip(right) {
        let pad = " ".repeat(to - width(cell));
        let padded = if right { format!(" {pad}{cell} |") } else { format!(" {cell}{pad} |") };
        text.push_str(&padded);
    }
    text.push('\n');
    text
}

/// Characters, which is right for all scripts whose characters are one column wide.
fn width(text: &str) -> usize {
    text.chars().count()
}

fn is_number(cell: &str) -> bool {
    cell == "null" || cell.replace(',', "").parse::<f64>().is_ok()
}

/// An integer with commas between thousands.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: columns line up, numbers stand to the right, and a character counts once however many bytes it has.
    #[test]
    fn columns_line_up() {
        let cells = |row: &[&str]| row.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
        let text = render(&cells(&["city", "count"]), &[cells(&["Łódź", "7"]), cells(&["Rome", "1,250"])]);
        let want = "+------+-------+\n| city | count |\n+------+-------+\n| Łódź |     7 |\n| Rome | 1,250 |\n+------+-------+\n";
        assert_eq!(text, want);
    }

    /// Goal: commas fall between thousands, and nowhere else.
    #[test]
    fn thousands_are_parted() {
        for (number, want) in [(0, "0"), (999, "999"), (1_000, "1,000"), (12_345_678, "12,345,678")] {
            assert_eq!(thousands(number), want);
        }
    }
}
