//! docs/performance.md and its graphs, of the reports that lie in the directory of results.

use std::{collections::HashMap, fmt::Write as _, fs};

use bench::{
    Failure, line,
    report::{Goal, Part},
    svg,
};

use crate::{Cli, machine};

/// Others that take a larger share of the cores are told of.
const OTHERS_MAX: f64 = 0.1;

/// What stands above all figures.
const HEAD: &str = "\
# Performance

Every figure and graph of this page was measured and written by one command; nothing of it is typed by hand but what is aimed
at. Again:

    scripts/bench.sh                      # everything; scripts/bench.sh --quick is a look of a few minutes
    scripts/bench.sh ways clients         # these parts alone, and the page with what else was measured before

Reports and raw output lie in `target/performance`. Server and load generator share the machine. Wall times are those of the machine
as it was: its load stands beside each part, and where it was more than the benchmark's own, the figures are too high or too low.
";

/// Writes the page of the parts that were measured, in this order.
///
/// # Errors
/// A report cannot be read, or the page not written.
pub(crate) fn write(cli: &Cli, names: &[String]) -> Result<(), Failure> {
    let mut parts = Vec::new();
    for name in names {
        match fs::read(cli.out.join(format!("{name}.json"))) {
            Ok(bytes) => parts.push(serde_json::from_slice::<Part>(&bytes)?),
            Err(_none) => line(&format!("{name}: LEFT OUT of the page, it was not measured")),
        }
    }
    let graphs = cli.docs.join("performance");
    fs::create_dir_all(&graphs)?;
    for old in fs::read_dir(&graphs)? {
        let old = old?.path();
        if old.extension().is_some_and(|extension| extension == "svg") {
            fs::remove_file(old)?;
        }
    }
    for chart in parts.iter().flat_map(|part| &part.charts) {
        fs::write(graphs.join(format!("{}.svg", chart.name)), svg::draw(chart))?;
    }
    fs::write(cli.docs.join("performance.md"), text(&parts, names, &machine::description()))?;
    line(&format!("{} and {}", cli.docs.join("performance.md").display(), graphs.display()));
    Ok(())
}

fn text(parts: &[Part], names: &[String], machine: &[(&str, String)]) -> String {
    let mut text = HEAD.to_owned();
    text += "\n## The machine\n\n| | |\n|---|---|\n";
    for (name, value) in machine {
        let _ = writeln!(text, "| {name} | {value} |");
    }
    let goals: Vec<(&Goal, &Part)> =
        parts.iter().flat_map(|part| part.goals.iter().map(move |goal| (goal, part))).collect();
    if !goals.is_empty() {
        let met = goals.iter().filter(|(goal, _)| goal.met).count();
        let _ = writeln!(
            text,
            "\n## What is aimed at\n\n{met} of {} hold.\n\n| | wanted | found | |\n|---|---|---|---|",
            goals.len()
        );
        for (Goal { what, wanted, found, met }, part) in goals {
            let quick = if part.quick { " (quick run)" } else { "" };
            let busy = if was_busy(part) { " (busy machine)" } else { "" };
            let verdict = if *met { "holds" } else { "**missed**" };
            let _ = writeln!(text, "| {what} | {wanted} | {found}{quick}{busy} | {verdict} |");
        }
    }
    parts.iter().for_each(|part| text += &section(part));
    let measured: HashMap<&str, &Part> = parts.iter().map(|part| (part.name.as_str(), part)).collect();
    let left: Vec<&str> = names.iter().map(String::as_str).filter(|name| !measured.contains_key(name)).collect();
    if !left.is_empty() {
        let _ = writeln!(text, "\n## Left out\n\nNot measured in this run: {}.", left.join(", "));
    }
    text
}

/// Whether others took so much of the machine right before a part that its figures are not those of the machine.
fn was_busy(part: &Part) -> bool {
    part.others > OTHERS_MAX
}

fn section(part: &Part) -> String {
    let mut text = format!("\n## {}\n", part.title);
    if !part.method.is_empty() {
        let _ = writeln!(text, "\n{}", part.method);
    }
    let [before, after] = &part.load;
    let _ = writeln!(
        text,
        "\nTook {:.0} s; load before `{before}`, after `{after}`; others took {:.0} % of the cores when it began.",
        part.seconds,
        part.others * 100.0
    );
    if was_busy(part) {
        text += "\n**The machine had other work when this began: not its figures when it is idle.**\n";
    }
    if part.quick {
        text += "\n**This is of a quick run: fewer rows and seconds than figures need.**\n";
    }
    for note in &part.notes {
        let _ = writeln!(text, "\n**{note}**");
    }
    for chart in &part.charts {
        let _ = writeln!(text, "\n![{}](performance/{}.svg)", chart.title, chart.name);
    }
    for table in &part.tables {
        if !table.title.is_empty() {
            let _ = writeln!(text, "\n{}", table.title);
        }
        let _ = write!(text, "\n{}", table.markdown());
    }
    text
}

#[cfg(test)]
mod tests {
    use bench::report::Table;

    use super::*;

    /// Goal: the page has every table, graph, note and goal of the parts, and names the parts that were not measured.
    #[test]
    fn the_page_has_all() {
        let mut table = Table::new("", &["a"]);
        table.rows.push(vec!["cell".to_owned()]);
        let goal = Goal { what: "speed".to_owned(), wanted: "2".to_owned(), found: "1".to_owned(), met: false };
        let part = Part {
            name: "one".to_owned(),
            title: "First".to_owned(),
            goals: vec![goal],
            tables: vec![table],
            notes: vec!["LEFT OUT: much".to_owned()],
            quick: true,
            others: 0.5,
            ..Part::default()
        };
        let page = text(&[part], &["one".to_owned(), "two".to_owned()], &[("memory", "1 GiB".to_owned())]);
        for wanted in [
            "## First",
            "| cell |",
            "**LEFT OUT: much**",
            "| speed | 2 | 1 (quick run) (busy machine) | **missed** |",
            "0 of 1 hold",
            "in this run: two.",
            "a quick run",
            "| memory | 1 GiB |",
        ] {
            assert!(page.contains(wanted), "{wanted} is not in {page}");
        }
    }
}
