//! Graphs as SVG, plain enough to be read as text: no scripts, no fonts, and colours that stand out on white and on black.

use std::fmt::Write as _;

use crate::report::{Chart, Kind, Series, short};

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 360.0;
/// Room for what stands beside the plot: left, top, right, bottom.
const MARGIN: [f64; 4] = [72.0, 56.0, 20.0, 56.0];
/// One per series (Okabe and Ito: told apart by all eyes), over again where there are more.
const COLOURS: [&str; 7] = ["#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#999999"];
/// Room between two groups of bars, as a share of a group's room.
const BARS_GAP: f64 = 0.25;
/// Lines of a scale that is not logarithmic, about.
const TICKS: f64 = 5.0;

/// A scale from values to pixels.
#[derive(Debug, Clone, PartialEq)]
struct Scale {
    log: bool,
    from: f64,
    to: f64,
    pixels: (f64, f64),
}

impl Scale {
    /// A scale over whole steps that holds all of `values`, from 0 where it is not logarithmic.
    fn new(log: bool, values: impl Iterator<Item = f64>, pixels: (f64, f64)) -> Self {
        let (mut from, mut to) = (f64::INFINITY, 0.0_f64);
        for value in values.filter(|value| value.is_finite() && (*value > 0.0 || !log)) {
            (from, to) = (from.min(value), to.max(value));
        }
        if to <= 0.0 {
            (from, to) = (1.0, 1.0);
        }
        if log {
            let whole = |value: f64| 10_f64.powf(value);
            // A single power of ten would leave no room at all.
            let (low, high) = (from.log10().floor(), to.log10().ceil());
            return Self { log, from: whole(low), to: whole(if high > low { high } else { low + 1.0 }), pixels };
        }
        let step = Self::step(to);
        Self { log, from: 0.0, to: (to / step).ceil() * step, pixels }
    }

    /// 1, 2 or 5 times a power of ten that makes about [`TICKS`] lines.
    fn step(to: f64) -> f64 {
        let rough = to / TICKS;
        let power = 10_f64.powf(rough.log10().floor());
        [1.0, 2.0, 5.0, 10.0].map(|times| times * power).into_iter().find(|step| *step >= rough).unwrap_or(rough)
    }

    fn at(&self, value: f64) -> f64 {
        let share = if self.log {
            (value.max(self.from) / self.from).ln() / (self.to / self.from).ln()
        } else {
            (value - self.from) / (self.to - self.from)
        };
        self.pixels.0 + share * (self.pixels.1 - self.pixels.0)
    }

    /// Where lines stand.
    fn ticks(&self) -> Vec<f64> {
        if self.log {
            let (low, high) = (self.from.log10().round() as i32, self.to.log10().round() as i32);
            return (low..=high).map(|power| 10_f64.powi(power)).collect();
        }
        let step = Self::step(self.to);
        (0..=(self.to / step).round() as u32).map(|n| f64::from(n) * step).collect()
    }
}

/// Draws a graph.
#[must_use]
pub fn draw(chart: &Chart) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\" fill=\"#777\">\n"
    );
    text(&mut svg, (WIDTH / 2.0, 20.0), "middle", &chart.title, " font-size=\"15\"");
    text(&mut svg, ((MARGIN[0] + WIDTH - MARGIN[2]) / 2.0, HEIGHT - 10.0), "middle", &chart.x, "");
    let middle = (MARGIN[1] + HEIGHT - MARGIN[3]) / 2.0;
    let turned = format!(" transform=\"rotate(-90 16 {middle})\"");
    text(&mut svg, (16.0, middle), "middle", &chart.y, &turned);
    legend(&mut svg, &chart.series);
    let heights = chart.series.iter().flat_map(|series| &series.points).map(|point| point.1);
    let y = Scale::new(chart.kind == Kind::BarsLogY, heights, (HEIGHT - MARGIN[3], MARGIN[1]));
    for tick in y.ticks() {
        let at = y.at(tick);
        let _ = writeln!(
            svg,
            "<path d=\"M{} {at:.1}H{}\" stroke=\"#bbb\" stroke-width=\"0.5\"/>",
            MARGIN[0],
            WIDTH - MARGIN[2]
        );
        text(&mut svg, (MARGIN[0] - 6.0, at + 4.0), "end", &tick_text(tick), "");
    }
    match chart.kind {
        Kind::Lines | Kind::LinesLogX => lines(&mut svg, chart, &y),
        Kind::Bars | Kind::BarsLogY => bars(&mut svg, chart, &y),
    }
    svg + "</svg>\n"
}

fn lines(svg: &mut String, chart: &Chart, y: &Scale) {
    let places = || chart.series.iter().flat_map(|series| &series.points).map(|point| point.0);
    let x = Scale::new(chart.kind == Kind::LinesLogX, places(), (MARGIN[0], WIDTH - MARGIN[2]));
    for tick in x.ticks() {
        text(svg, (x.at(tick), HEIGHT - MARGIN[3] + 18.0), "middle", &tick_text(tick), "");
    }
    for (series, colour) in chart.series.iter().zip(COLOURS.iter().cycle()) {
        let points: Vec<_> = series.points.iter().map(|&(at, height)| (x.at(at), y.at(height))).collect();
        let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            path.join(" ")
        );
        for (x, y) in points {
            let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
        }
    }
}

fn bars(svg: &mut String, chart: &Chart, y: &Scale) {
    let room = (WIDTH - MARGIN[0] - MARGIN[2]) / chart.labels.len().max(1) as f64;
    let width = room * (1.0 - BARS_GAP) / chart.series.len().max(1) as f64;
    let ground = HEIGHT - MARGIN[3];
    for (place, label) in chart.labels.iter().enumerate() {
        let middle = MARGIN[0] + (place as f64 + 0.5) * room;
        text(svg, (middle, ground + 18.0), "middle", label, "");
    }
    for (nth, (series, colour)) in chart.series.iter().zip(COLOURS.iter().cycle()).enumerate() {
        for &(place, height) in &series.points {
            let left = MARGIN[0] + (place + BARS_GAP / 2.0) * room + nth as f64 * width;
            let top = y.at(height);
            let _ = writeln!(
                svg,
                "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{colour}\"><title>{} {}: \
                 {}</title></rect>",
                width * 0.92,
                (ground - top).max(0.0),
                escaped(&series.name),
                escaped(chart.labels.get(place as usize).map_or("", String::as_str)),
                short(height)
            );
        }
    }
}

fn legend(svg: &mut String, series: &[Series]) {
    let room = (WIDTH - MARGIN[0] - MARGIN[2]) / series.len().max(1) as f64;
    for (nth, (series, colour)) in series.iter().zip(COLOURS.iter().cycle()).enumerate() {
        let left = MARGIN[0] + nth as f64 * room;
        let _ = writeln!(svg, "<rect x=\"{left:.1}\" y=\"32\" width=\"10\" height=\"10\" fill=\"{colour}\"/>");
        text(svg, (left + 14.0, 41.0), "start", &series.name, "");
    }
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, text: &str, more: &str) {
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\"{more}>{}</text>", escaped(text));
}

fn tick_text(value: f64) -> String {
    match value.abs() {
        size if size >= 1e6 => format!("{}M", value / 1e6),
        size if size >= 1e4 => format!("{}k", value / 1e3),
        // Steps of a tenth are not exact.
        _ => format!("{}", (value * 1e6).round() / 1e6),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a scale begins at 0 and ends at a whole step at or above the greatest value; a logarithmic one at powers of ten.
    #[test]
    fn scales_hold_their_values() {
        let plain = Scale::new(false, [3.0, 47.0].into_iter(), (0.0, 100.0));
        assert_eq!((plain.from, plain.to, plain.ticks()), (0.0, 50.0, vec![0.0, 10.0, 20.0, 30.0, 40.0, 50.0]));
        assert!((plain.at(25.0) - 50.0).abs() < 1e-9);
        let log = Scale::new(true, [0.3, 250.0].into_iter(), (0.0, 100.0));
        assert_eq!(log.ticks(), [0.1, 1.0, 10.0, 100.0, 1_000.0]);
        assert!((log.at(10.0) - 50.0).abs() < 1e-9);
        let one = Scale::new(true, std::iter::once(10.0), (0.0, 100.0));
        assert!(one.at(10.0).is_finite() && one.to > one.from);
        assert!(Scale::new(false, std::iter::empty(), (0.0, 1.0)).at(0.5).is_finite());
    }

    /// Goal: a graph has a mark per point and no character that XML takes for markup.
    #[test]
    fn graphs_show_every_point() {
        let series = |name: &str| Series { name: name.to_owned(), points: vec![(0.0, 1.0), (1.0, 20.0)] };
        let mut chart = Chart {
            name: "x".to_owned(),
            title: "a < b & c".to_owned(),
            kind: Kind::Bars,
            x: String::new(),
            y: "ms".to_owned(),
            labels: vec!["one".to_owned(), "two".to_owned()],
            series: vec![series("s"), series("t")],
        };
        let bars = draw(&chart);
        assert_eq!(bars.matches("<title>").count(), 4);
        assert!(bars.contains("a &lt; b &amp; c"));
        chart.kind = Kind::Lines;
        assert_eq!(draw(&chart).matches("<circle").count(), 4);
    }
}
