//! What people should look at before they believe a metric.

use super::evaluate::Scale;
use super::metrics::Ranked;
use super::output::Level;
use super::protocol::{Direction, Reading};

/// How direction and scale are set where the scores come from.
#[derive(Debug, Clone, Copy)]
pub enum Setting {
    /// `--direction higher-is-fake`
    Argument,
    /// `direction = "higher-is-fake"`
    Suite,
    /// Nobody can set it.
    Fixed,
}

/// Of one level, after `rounds` rounds of the bootstrap; `subject` begins each sentence.
pub fn hints(
    subject: &str,
    level: &Level,
    ranked: &Ranked,
    reading: Reading,
    rounds: u32,
    setting: Setting,
) -> Vec<String> {
    let mut hints = Vec::new();
    hints.extend(wrong_sign(subject, level, reading, setting));
    let scores = ranked.scores();
    if reading.scale == Scale::Raw
        && reading.direction == Direction::HigherIsFake
        && let (Some(high), Some(low)) = (scores.first(), scores.last())
        && *low >= 0.0
        && *high <= 1.0
    {
        let scale = match setting {
            Setting::Argument => "--scale probability",
            _ => "scale = \"probability\"",
        };
        hints.push(format!(
            "{subject}: all scores lie between 0 and 1; if they are probabilities, {scale} gives Brier \
             score, ECE, Cllr and actDCF too"
        ));
    }
    if ranked.distinct() == 2 && ranked.len() > 2 {
        hints.push(format!(
            "{subject}: only two different scores: these look like decisions; curves and EER say \
             little"
        ));
    }
    if rounds > 0 && level.units.count < 20 {
        hints.push(format!(
            "{subject}: intervals rest on {} draws of kind '{}' only",
            level.units.count, level.units.kind
        ));
    }
    hints
}

/// The loud one.
pub fn wrong_sign(
    subject: &str,
    level: &Level,
    reading: Reading,
    setting: Setting,
) -> Option<String> {
    let auc = level.value("auc").filter(|auc| *auc < 0.5)?;
    let place = format!("{subject}: AUC {auc:.4} at {} level is BELOW 0.5", level.level);
    let (read, other) = match reading.direction {
        Direction::HigherIsFake => ("higher-is-fake", "higher-is-real"),
        Direction::HigherIsReal => ("higher-is-real", "higher-is-fake"),
    };
    let turned = match setting {
        Setting::Argument => format!("--direction {other}"),
        Setting::Suite => format!("direction = \"{other}\""),
        Setting::Fixed => return Some(format!("{place}: WORSE THAN CHANCE on these files")),
    };
    Some(format!(
        "{place}: THE SIGN MAY BE WRONG. Scores were read as {read}; {turned} would give {:.4}",
        1.0 - auc
    ))
}
