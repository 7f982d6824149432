//! Reads the text of `GET /metrics`: the Prometheus format, as far as services write it.

/// Samples of one exposition.
#[derive(Debug, Default)]
pub(crate) struct Samples<'a> {
    lines: Vec<Sample<'a>>,
}

#[derive(Debug)]
struct Sample<'a> {
    name: &'a str,
    labels: &'a str,
    value: f64,
}

impl<'a> Samples<'a> {
    /// Parses an exposition; lines that are no samples are passed over.
    pub(crate) fn parse(text: &'a str) -> Self {
        Self { lines: text.lines().filter_map(sample).collect() }
    }

    /// The sum of all samples of a name whose labels hold every `label="value"` of `labels`; `None` where there is none.
    pub(crate) fn sum(&self, name: &str, labels: &[&str]) -> Option<f64> {
        self.matching(name, labels).reduce(|sum, value| sum + value)
    }

    /// The greatest of these samples.
    pub(crate) fn max(&self, name: &str, labels: &[&str]) -> Option<f64> {
        self.matching(name, labels).reduce(f64::max)
    }

    fn matching(&self, name: &str, labels: &[&str]) -> impl Iterator<Item = f64> {
        self.lines
            .iter()
            .filter(move |sample| sample.name == name && labels.iter().all(|label| sample.labels.contains(label)))
            .map(|sample| sample.value)
            .filter(|value| value.is_finite())
    }
}

fn sample(line: &str) -> Option<Sample<'_>> {
    if line.starts_with('#') {
        return None;
    }
    let (series, value) = line.rsplit_once(' ')?;
    let value = value.parse().ok()?;
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    Some(Sample { name, labels, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: samples are found by name and label, summed, and what is no number is left out.
    #[test]
    fn samples_are_found_by_label() {
        let text = "# HELP a_total x\na_total{service=\"gateway\",code=\"200\"} 3\na_total{service=\"gateway\",code=\"500\"} 4\n\
                    a_total{service=\"query-api\",code=\"200\"} 9\nb 1.5\nc NaN\n";
        let samples = Samples::parse(text);
        assert_eq!(samples.sum("a_total", &["service=\"gateway\""]), Some(7.0));
        assert_eq!(samples.max("a_total", &["code=\"200\""]), Some(9.0));
        assert_eq!(samples.sum("b", &[]), Some(1.5));
        assert_eq!(samples.sum("c", &[]), None);
    }
}
