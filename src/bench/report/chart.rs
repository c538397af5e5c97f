//! Plots as inline SVG. Colours, dashes and type come from the page's style sheet (`style.css`), so
//! that one plot serves light, dark and paper.

use std::fmt::Write as _;

use super::page::escape;

/// Size of a plot in its own units; the page stretches it to the column's width.
const WIDTH: f64 = 380.0;
const HEIGHT: f64 = 310.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 48.0;
/// Where names along the axis stand aslant.
const DEEP: f64 = 104.0;
/// Width of a letter of a tick, roughly.
const LETTER: f64 = 7.2;

/// Series that one plot holds: beyond it nobody tells lines apart.
pub const MAX_SERIES: usize = 8;

/// How values are laid along an axis.
#[derive(Debug, Clone, Copy)]
pub enum Scale {
    Linear {
        from: f64,
        to: f64,
    },
    Log {
        from: f64,
        to: f64,
    },
    /// Normal deviates of rates, as in DET curves.
    Probit {
        from: f64,
        to: f64,
    },
}

impl Scale {
    /// 0 at the beginning of the axis, 1 at its end; held between the two.
    fn place(self, value: f64) -> f64 {
        let along = match self {
            Self::Linear { from, to } => (value - from) / (to - from),
            Self::Log { from, to } => {
                (value.max(f64::MIN_POSITIVE).ln() - from.ln()) / (to.ln() - from.ln())
            }
            Self::Probit { from, to } => {
                (probit(value) - probit(from)) / (probit(to) - probit(from))
            }
        };
        if along.is_nan() { 0.0 } else { along.clamp(0.0, 1.0) }
    }
}

pub struct Axis {
    pub scale: Scale,
    /// With its unit.
    pub label: String,
    pub ticks: Vec<(f64, String)>,
}

impl Axis {
    /// From 0 to 1 in steps of 0.2.
    pub fn rate(label: &str) -> Self {
        Self::linear(label, 0.0, 1.0)
    }

    /// With about five round ticks; the ends are moved outwards to them.
    pub fn linear(label: &str, from: f64, to: f64) -> Self {
        let (from, to) = if to > from { (from, to) } else { (from - 0.5, from + 0.5) };
        let step = step((to - from) / 5.0);
        let (first, last) = ((from / step).floor(), (to / step).ceil());
        let digits = (-step.log10().floor()).clamp(0.0, 9.0) as usize;
        let mut ticks = Vec::new();
        let mut at = first;
        while at <= last && ticks.len() < 20 {
            let value = at * step;
            // No −0.
            let value = if value == 0.0 { 0.0 } else { value };
            let text = if value.abs() >= 1e6 {
                format!("{value:.1e}")
            } else {
                format!("{value:.digits$}")
            };
            ticks.push((value, text.replace('-', "−")));
            at += 1.0;
        }
        let scale = Scale::Linear { from: first * step, to: last * step };
        Self { scale, label: label.to_owned(), ticks }
    }

    /// Powers of ten and their halves and fifths between two positive values.
    pub fn log(label: &str, from: f64, to: f64) -> Self {
        let mut ticks = Vec::new();
        let first = from.max(1e-9).log10().floor() as i32;
        let last = to.max(1e-9).log10().ceil() as i32;
        let all = last - first <= 3;
        for power in first..=last.max(first + 1) {
            for factor in if all { &[1.0, 2.0, 5.0][..] } else { &[1.0] } {
                ticks.push(factor * 10_f64.powi(power));
            }
        }
        let low = ticks.iter().rposition(|t| *t <= from).unwrap_or(0);
        let high = ticks.iter().position(|t| *t >= to).unwrap_or(ticks.len() - 1).max(low + 1);
        let ticks = &ticks[low..=high.min(ticks.len() - 1)];
        let scale = Scale::Log { from: ticks[0], to: ticks[ticks.len() - 1] };
        let ticks = ticks.iter().map(|t| (*t, plain(*t))).collect();
        Self { scale, label: label.to_owned(), ticks }
    }

    /// Rates on normal deviates; `from` and `to` are moved outwards to ticks.
    pub fn probit(label: &str, from: f64, to: f64) -> Self {
        const RATES: [f64; 15] = [
            0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8,
            0.95,
        ];
        let low = RATES.iter().rposition(|r| *r <= from).unwrap_or(0);
        let high = RATES.iter().position(|r| *r >= to).unwrap_or(RATES.len() - 1).max(low + 1);
        let ticks = &RATES[low..=high.min(RATES.len() - 1)];
        let scale = Scale::Probit { from: ticks[0], to: ticks[ticks.len() - 1] };
        let percent = |rate: f64| plain((rate * 1e6).round() / 1e4);
        let ticks = ticks.iter().map(|r| (*r, percent(*r))).collect();
        Self { scale, label: label.to_owned(), ticks }
    }

    /// Names one after the other, at 0, 1, 2, …
    pub fn names(label: &str, names: Vec<String>) -> Self {
        let last = names.len().saturating_sub(1) as f64;
        Self {
            scale: Scale::Linear { from: -0.4, to: last + 0.4 },
            label: label.to_owned(),
            ticks: names.into_iter().enumerate().map(|(i, name)| (i as f64, name)).collect(),
        }
    }
}

/// A number without needless digits.
pub fn plain(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return if value == 0.0 { "0".to_owned() } else { "not finite".to_owned() };
    }
    let digits = (2.0 - value.abs().log10().floor()).clamp(0.0, 9.0) as usize;
    let text = format!("{value:.digits$}");
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => &text,
    };
    text.replace('-', "−")
}

/// 1, 2 or 5 times a power of ten, not below `least`.
fn step(least: f64) -> f64 {
    let power = 10_f64.powf(least.max(1e-12).log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|f| f * power >= least * 0.999_999);
    factor.unwrap_or(10.0) * power
}

/// The standard normal's quantile function (Acklam's rational approximation, relative error below
/// 1.2e-9), of rates held between 1e-9 and 1 − 1e-9.
pub fn probit(rate: f64) -> f64 {
    const A: [f64; 6] = [
        -3.969683028665376e+01,
        2.209460984245205e+02,
        -2.759285104469687e+02,
        1.38357751867269e+02,
        -3.066479806614716e+01,
        2.506628277459239,
    ];
    const B: [f64; 5] = [
        -5.447609879822406e+01,
        1.615858368580409e+02,
        -1.556989798598866e+02,
        6.680131188771972e+01,
        -1.328068155288572e+01,
    ];
    const C: [f64; 6] = [
        -7.784894002430293e-03,
        -3.223964580411365e-01,
        -2.400758277161838e+00,
        -2.549732539343734e+00,
        4.374664141464968e+00,
        2.938163982698783e+00,
    ];
    const D: [f64; 4] = [
        7.784695709041462e-03,
        3.224671290700398e-01,
        2.445134137142996e+00,
        3.754408661907416e+00,
    ];
    let horner = |c: &[f64], x: f64| c.iter().fold(0.0, |sum, c| sum * x + c);
    let p = rate.clamp(1e-9, 1.0 - 1e-9);
    if p < 0.02425 {
        let q = (-2.0 * p.ln()).sqrt();
        horner(&C, q) / (horner(&D, q) * q + 1.0)
    } else if p <= 1.0 - 0.02425 {
        let q = p - 0.5;
        let r = q * q;
        horner(&A, r) * q / (horner(&B, r) * r + 1.0)
    } else {
        -probit(1.0 - p)
    }
}

/// Classes of the `series`-th detector: colour and dash. Past the eighth, colours come again with
/// other dashes.
pub fn series(index: usize) -> String {
    format!("s{} d{}", index % MAX_SERIES, (index % 4 + index / MAX_SERIES) % 4)
}

/// One plot.
pub struct Plot {
    x: Scale,
    y: Scale,
    bottom: f64,
    svg: String,
}

impl Plot {
    /// `title` names it, `says` puts into words what it shows.
    pub fn new(title: &str, says: &str, x: &Axis, y: &Axis) -> Self {
        Self::sized(title, says, x, y, HEIGHT)
    }

    pub fn sized(title: &str, says: &str, x: &Axis, y: &Axis, height: f64) -> Self {
        // Names that would run into each other are written aslant.
        let needed: f64 =
            x.ticks.iter().map(|(_, text)| (text.chars().count() as f64 + 1.5) * LETTER).sum();
        let aslant = needed > WIDTH - LEFT - RIGHT;
        let (height, below) =
            if aslant { (height + DEEP - BOTTOM, DEEP) } else { (height, BOTTOM) };
        let bottom = height - below;
        let mut plot = Self { x: x.scale, y: y.scale, bottom, svg: String::new() };
        let (title, says) = (escape(title), escape(says));
        plot.put(format_args!(
            "<svg class=\"plot\" role=\"img\" viewBox=\"0 0 {WIDTH} {height}\" aria-label=\"{title}. \
             {says}\"><title>{title}</title><desc>{says}</desc>"
        ));
        let right = WIDTH - RIGHT;
        // A label that would run into the one before is left out; its line stays.
        let mut free = f64::NEG_INFINITY;
        for (value, text) in &x.ticks {
            let (at, low) = (plot.across(*value), bottom + 16.0);
            plot.put(format_args!("<path class=\"grid\" d=\"M{at:.1} {TOP}V{bottom:.1}\"/>"));
            let text: String = text.chars().take(18).collect();
            let half = text.chars().count() as f64 * LETTER / 2.0;
            let place = if aslant {
                let at = at + 4.0;
                format!("transform=\"translate({at:.1} {low:.1}) rotate(-38)\" text-anchor=\"end\"")
            } else if at - half >= free {
                free = at + half + 3.0;
                format!("x=\"{at:.1}\" y=\"{low:.1}\" text-anchor=\"middle\"")
            } else {
                continue;
            };
            plot.put(format_args!("<text class=\"tick\" {place}>{}</text>", escape(&text)));
        }
        let mut free = f64::INFINITY;
        for (value, text) in &y.ticks {
            let at = plot.up(*value);
            plot.put(format_args!("<path class=\"grid\" d=\"M{LEFT} {at:.1}H{right:.1}\"/>"));
            if at > free {
                continue;
            }
            free = at - 13.0;
            plot.put(format_args!(
                "<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 7.0,
                at + 4.0,
                escape(text)
            ));
        }
        plot.put(format_args!(
            "<path class=\"axis\" d=\"M{LEFT} {TOP}V{bottom:.1}H{right:.1}\"/><text class=\"label\" \
             x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text><text class=\"label\" \
             transform=\"translate(15 {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            f64::midpoint(LEFT, right),
            height - 10.0,
            escape(&x.label),
            f64::midpoint(TOP, bottom),
            escape(&y.label)
        ));
        plot
    }

    fn put(&mut self, arguments: std::fmt::Arguments<'_>) {
        // Writing to a String does not fail.
        let _ = self.svg.write_fmt(arguments);
    }

    fn across(&self, value: f64) -> f64 {
        LEFT + self.x.place(value) * (WIDTH - RIGHT - LEFT)
    }

    fn up(&self, value: f64) -> f64 {
        self.bottom - self.y.place(value) * (self.bottom - TOP)
    }

    /// A line through points in the axes' units.
    pub fn line(&mut self, points: &[[f64; 2]], class: &str) {
        let mut path = String::new();
        let mut before = None;
        for [x, y] in points {
            let at = format!("{:.1} {:.1}", self.across(*x), self.up(*y));
            if before.as_ref() != Some(&at) {
                path.push(if path.is_empty() { 'M' } else { 'L' });
                path.push_str(&at);
                before = Some(at);
            }
        }
        if !path.is_empty() {
            self.put(format_args!("<path class=\"line {class}\" d=\"{path}\"/>"));
        }
    }

    /// Steps over bins of equal width, filled down to the axis.
    pub fn steps(&mut self, from: f64, to: f64, heights: &[f64], class: &str) {
        let width = (to - from) / heights.len().max(1) as f64;
        let ground = self.up(0.0);
        let mut path = format!("M{:.1} {ground:.1}", self.across(from));
        for (i, height) in heights.iter().enumerate() {
            let _ = write!(
                path,
                "V{:.1}H{:.1}",
                self.up(*height),
                self.across(from + width * (i + 1) as f64)
            );
        }
        self.put(format_args!("<path class=\"steps {class}\" d=\"{path}V{ground:.1}Z\"/>"));
    }

    /// A bar that stands on the axis.
    pub fn bar(&mut self, from: f64, to: f64, height: f64, class: &str) {
        let (left, right, top) = (self.across(from), self.across(to), self.up(height));
        self.put(format_args!(
            "<rect class=\"{class}\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
            (right - left).max(0.0),
            (self.up(0.0) - top).max(0.0)
        ));
    }

    /// A mark whose shape goes with the series, so that colour is not all that tells them apart.
    pub fn mark(&mut self, x: f64, y: f64, index: usize, what: &str) {
        let (x, y) = (self.across(x), self.up(y));
        let shape = shape(index, x, y, 4.5);
        let class = series(index);
        let what = escape(what);
        self.put(format_args!(
            "<path class=\"mark {class}\" d=\"{shape}\"><title>{what}</title></path>"
        ));
    }

    /// A disc, its radius in the plot's units.
    pub fn disc(&mut self, x: f64, y: f64, radius: f64, class: &str) {
        let (x, y) = (self.across(x), self.up(y));
        self.put(format_args!(
            "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius:.1}\"/>"
        ));
    }

    /// An interval along the y axis; `aside` moves it in the plot's units.
    pub fn whisker(&mut self, x: f64, low: f64, high: f64, class: &str) {
        let (x, low, high) = (self.across(x), self.up(low), self.up(high));
        self.put(format_args!(
            "<path class=\"whisker {class}\" d=\"M{x:.1} {low:.1}V{high:.1}\"/>"
        ));
    }

    /// A vertical line over the whole height, with what it is.
    pub fn upright(&mut self, x: f64, what: &str) {
        let (at, bottom) = (self.across(x), self.bottom);
        // On the side where there is room.
        let (anchor, text) = if at > f64::midpoint(LEFT, WIDTH - RIGHT) {
            ("end", at - 5.0)
        } else {
            ("start", at + 5.0)
        };
        self.put(format_args!(
            "<path class=\"reference\" d=\"M{at:.1} {TOP}V{bottom:.1}\"/><text class=\"tick\" \
             x=\"{text:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
            TOP + 10.0,
            escape(what)
        ));
    }

    /// A line that curves are read against, such as chance.
    pub fn reference(&mut self, points: &[[f64; 2]]) {
        self.line(points, "reference");
    }

    /// Words beside a point, on the side where there is room; `down` moves them.
    pub fn words(&mut self, x: f64, y: f64, down: f64, text: &str, class: &str) {
        let (x, y) = (self.across(x), self.up(y));
        let (anchor, x) = if x > f64::midpoint(LEFT, WIDTH - RIGHT) {
            ("end", x - 9.0)
        } else {
            ("start", x + 9.0)
        };
        self.put(format_args!(
            "<text class=\"words {class}\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
            y + 4.0 + down,
            escape(text)
        ));
    }

    /// Height at which words of a point stand, in the plot's units.
    pub fn height_of(&self, y: f64) -> f64 {
        self.up(y)
    }

    pub fn finish(self) -> String {
        self.svg + "</svg>"
    }
}

/// Disc, square, triangle, diamond, and the four turned hollow by the style sheet.
fn shape(index: usize, x: f64, y: f64, r: f64) -> String {
    match index % 4 {
        0 => format!("M{:.1} {y:.1}a{r} {r} 0 1 0 {d} 0a{r} {r} 0 1 0 -{d} 0Z", x - r, d = 2.0 * r),
        1 => format!("M{:.1} {:.1}h{d}v{d}h-{d}Z", x - r * 0.9, y - r * 0.9, d = r * 1.8),
        2 => {
            format!("M{x:.1} {:.1}l{} {h}h-{w}Z", y - r * 1.15, r * 1.15, h = r * 2.1, w = r * 2.3)
        }
        _ => format!("M{x:.1} {:.1}l{e} {e}l-{e} {e}l-{e} -{e}Z", y - r * 1.25, e = r * 1.25),
    }
}

/// A swatch for a legend: the series' line with its mark.
pub fn swatch(index: usize) -> String {
    let class = series(index);
    format!(
        "<svg class=\"swatch\" viewBox=\"0 0 34 12\" aria-hidden=\"true\"><path class=\"line {class}\" \
         d=\"M1 6H33\"/><path class=\"mark {class}\" d=\"{}\"/></svg>",
        shape(index, 17.0, 6.0, 4.0)
    )
}

/// An interval with its value, drawn between 0.5 (or less) and 1: for a cell of a table.
pub fn interval(value: f64, low: f64, high: f64, from: f64) -> String {
    let at = |v: f64| 4.0 + ((v - from) / (1.0 - from)).clamp(0.0, 1.0) * 92.0;
    format!(
        "<svg class=\"interval\" viewBox=\"0 0 100 14\" aria-hidden=\"true\"><path class=\"grid\" d=\"M4 \
         7H96\"/><path class=\"whisker\" d=\"M{:.1} 7H{:.1}\"/><circle class=\"dot\" cx=\"{:.1}\" \
         cy=\"7\" r=\"3.5\"/></svg>",
        at(low),
        at(high),
        at(value)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_normal_quantiles() {
        for (rate, wanted) in [
            (0.5, 0.0),
            (0.975, 1.959_963_984_5),
            (0.001, -3.090_232_306_2),
            (0.84, 0.994_457_883_2),
        ] {
            assert!((probit(rate) - wanted).abs() < 1e-8, "{rate}: {}", probit(rate));
        }
        assert!(probit(0.0).is_finite() && probit(1.0).is_finite());
    }

    #[test]
    fn axes_have_round_ticks_that_hold_their_data() {
        let texts = |axis: &Axis| axis.ticks.iter().map(|t| t.1.clone()).collect::<Vec<_>>();
        assert_eq!(texts(&Axis::rate("")), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(texts(&Axis::linear("", -3.2, 4.1)), ["−4", "−2", "0", "2", "4", "6"]);
        assert_eq!(texts(&Axis::linear("", 0.83, 0.97)), ["0.80", "0.85", "0.90", "0.95", "1.00"]);
        assert!(texts(&Axis::linear("", 2.0, 2.0)).len() > 3);
        assert_eq!(texts(&Axis::log("", 3.0, 180.0)), ["2", "5", "10", "20", "50", "100", "200"]);
        assert_eq!(texts(&Axis::log("", 7.0, 7.0)), ["5", "10"]);
        assert_eq!(
            texts(&Axis::probit("", 0.004, 0.3)),
            ["0.2", "0.5", "1", "2", "5", "10", "20", "40"]
        );
        for axis in
            [Axis::log("", 0.0, 0.0), Axis::probit("", 0.0, 1.0), Axis::probit("", 0.7, 0.7)]
        {
            assert!(axis.ticks.len() > 1);
        }
    }

    #[test]
    fn values_off_the_axis_stay_on_the_plot() {
        let axis = Axis::rate("rate");
        let mut plot = Plot::new("t", "s", &axis, &axis);
        plot.line(&[[-1.0, f64::NAN], [2.0, f64::INFINITY]], "s0");
        let svg = plot.finish();
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
