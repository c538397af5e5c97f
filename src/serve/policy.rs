//! What a report leads to: allow, review or block, by the thresholds of a TOML file.
//!
//! Three layers are laid over each other key by key: what is built in (`policy.default.toml`), the
//! file's `[default]`, the file's `[tenants.NAME]`. The file is read again when it has changed; one that
//! is broken changes nothing but [`PolicyStatus::error`]. `docs/policy.md` is the reference.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use super::model::{Action, JobId, Outcome, Time};
use crate::detect::label_strip::ERASED_MARK;
use crate::media::MediaKind;
use crate::provenance::evidence;
use crate::report::{DetectorKind, DispositionState, Report, Segment, Status};

const BUILT_IN: &str = include_str!("policy.default.toml");
/// A policy is a page of text.
const MAX_BYTES: u64 = 1 << 20;
/// How often a file is looked at, at most.
const POLL: Duration = Duration::from_secs(1);
/// Lines in [`Outcome::because`]; more are counted in the last one.
const MAX_LINES: usize = 16;
/// Jobs that a dry run names.
const MAX_CHANGES: usize = 1_000;

#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("the policy {path} cannot be read: {source}")]
    Read { path: String, source: std::io::Error },
    #[error("the policy {path} is larger than 1 MiB")]
    TooLarge { path: String },
    /// With line and column, where TOML itself is broken.
    #[error("the policy {path} is not valid: {why}")]
    Invalid { path: String, why: String },
}

/// One version of the policy.
#[derive(Debug)]
pub struct Policy {
    /// The file's own version, `+`, the first 12 hexadecimal digits of the SHA-256 of its text.
    version: String,
    default: Rules,
    tenants: BTreeMap<String, Rules>,
}

/// What holds for a tenant, all layers laid over each other.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Rules {
    /// Segments with at least this probability are blocked; a detector that is not named blocks
    /// nothing.
    #[schema(value_type = BTreeMap<String, f32>)]
    pub block: BTreeMap<DetectorKind, f32>,
    /// The same for review.
    #[schema(value_type = BTreeMap<String, f32>)]
    pub review: BTreeMap<DetectorKind, f32>,
    /// Segments shorter than this do not count, but in pictures and in media that are shorter
    /// themselves.
    pub least_ms: u32,
    pub dispositions: Dispositions,
    /// By kind of strip evidence.
    pub strip_evidence: BTreeMap<String, Action>,
    /// For reports that are `failed` or `partial`.
    pub not_judged: Action,
    /// For reports with segments that were not judged.
    pub segments_not_judged: Action,
}

/// What each disposition leads to.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Dispositions {
    pub confirmed: Action,
    pub possible: Action,
    pub suspected: Action,
    pub undetermined: Action,
    pub none: Action,
}

impl Dispositions {
    fn of(&self, state: DispositionState) -> Action {
        match state {
            DispositionState::Confirmed => self.confirmed,
            DispositionState::Possible => self.possible,
            DispositionState::Suspected => self.suspected,
            DispositionState::Undetermined => self.undetermined,
            DispositionState::None => self.none,
        }
    }
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: String,
    #[serde(default)]
    default: Layer,
    #[serde(default)]
    tenants: BTreeMap<String, Layer>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Layer {
    #[serde(default)]
    block: BTreeMap<DetectorKind, Threshold>,
    #[serde(default)]
    review: BTreeMap<DetectorKind, Threshold>,
    least_ms: Option<u32>,
    #[serde(default)]
    dispositions: DispositionsLayer,
    #[serde(default)]
    strip_evidence: BTreeMap<String, Action>,
    not_judged: Option<Action>,
    segments_not_judged: Option<Action>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct DispositionsLayer {
    confirmed: Option<Action>,
    possible: Option<Action>,
    suspected: Option<Action>,
    undetermined: Option<Action>,
    none: Option<Action>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(untagged, expecting = "a probability from 0 to 1, or \"never\"")]
enum Threshold {
    From(f32),
    Word(Never),
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Never {
    Never,
}

impl Rules {
    /// Before any layer: nothing leads to anything.
    fn empty() -> Self {
        let allow = Action::Allow;
        Self {
            block: BTreeMap::new(),
            review: BTreeMap::new(),
            least_ms: 0,
            dispositions: Dispositions {
                confirmed: allow,
                possible: allow,
                suspected: allow,
                undetermined: allow,
                none: allow,
            },
            strip_evidence: BTreeMap::new(),
            not_judged: allow,
            segments_not_judged: allow,
        }
    }

    /// These rules with a layer laid over them; `name` is the layer's, for messages.
    fn with(&self, layer: &Layer, name: &str) -> Result<Self, String> {
        let mut rules = self.clone();
        for (what, ours, theirs) in [
            ("block", &mut rules.block, &layer.block),
            ("review", &mut rules.review, &layer.review),
        ] {
            for (&detector, &threshold) in theirs {
                match threshold {
                    Threshold::From(p) if (0.0..=1.0).contains(&p) => {
                        ours.insert(detector, p);
                    }
                    Threshold::From(p) => {
                        let detector = detector.name();
                        return Err(format!(
                            "{name}.{what}.{detector} is {p}, and not from 0 to 1"
                        ));
                    }
                    Threshold::Word(Never::Never) => {
                        ours.remove(&detector);
                    }
                }
            }
        }
        for (kind, &action) in &layer.strip_evidence {
            if !evidence_kinds().any(|known| known == kind) {
                let known: Vec<&str> = evidence_kinds().collect();
                return Err(format!(
                    "{name}.strip_evidence: unknown kind `{kind}`; there are {}",
                    known.join(", ")
                ));
            }
            rules.strip_evidence.insert(kind.clone(), action);
        }
        let set = |ours: &mut Action, theirs: Option<Action>| *ours = theirs.unwrap_or(*ours);
        let (ours, theirs) = (&mut rules.dispositions, &layer.dispositions);
        set(&mut ours.confirmed, theirs.confirmed);
        set(&mut ours.possible, theirs.possible);
        set(&mut ours.suspected, theirs.suspected);
        set(&mut ours.undetermined, theirs.undetermined);
        set(&mut ours.none, theirs.none);
        set(&mut rules.not_judged, layer.not_judged);
        set(&mut rules.segments_not_judged, layer.segments_not_judged);
        rules.least_ms = layer.least_ms.unwrap_or(rules.least_ms);
        Ok(rules)
    }

    /// Each rule that applies to a report, with what it leads to and a line that says why.
    fn apply(&self, report: &Report) -> Vec<(Action, String)> {
        let mut found = Vec::new();
        if report.status != Status::Ok {
            let action = self.not_judged;
            let why = report.error.as_ref().map_or_else(String::new, |e| {
                format!(": {}: {}", e.code, without_path(&e.message, &report.media.path))
            });
            found.push((action, format!("not_judged = {}{why}", name(action))));
        }
        for detector in DetectorKind::ALL {
            self.detector(report, detector, &mut found);
        }
        let state = report.disposition.state;
        let action = self.dispositions.of(state);
        let rule = format!("dispositions.{} = {}", state_name(state), name(action));
        if report.disposition.evidence.is_empty() {
            found.push((action, rule.clone()));
        }
        for line in &report.disposition.evidence {
            found.push((action, format!("{rule}: {line}")));
        }
        for piece in &report.strip_evidence {
            if let Some(&action) = self.strip_evidence.get(&piece.kind) {
                let line = format!("strip_evidence.{} = {}", piece.kind, name(action));
                found.push((action, format!("{line}: {}", piece.place)));
            }
        }
        for segment in report.segments.iter().filter(|s| s.probability.is_none()) {
            let action = self.segments_not_judged;
            let codes: Vec<String> = segment.reasons.iter().map(|r| code(r.code)).collect();
            found.push((
                action,
                format!(
                    "segments_not_judged = {}: {} ({})",
                    name(action),
                    place(segment, report),
                    codes.join(", ")
                ),
            ));
        }
        found
    }

    /// A line for each segment at or above a threshold; where there is none, one for the highest that
    /// stays below.
    fn detector(&self, report: &Report, detector: DetectorKind, found: &mut Vec<(Action, String)>) {
        let least = i64::from(self.least_ms).min(report.media.duration_ms.unwrap_or(0).max(0));
        let counts = |s: &&Segment| {
            s.detector == detector
                && (report.media.kind == Some(MediaKind::Image) || s.end_ms - s.start_ms >= least)
        };
        let judged: Vec<(&Segment, f32)> = report
            .segments
            .iter()
            .filter(counts)
            .filter_map(|s| Some((s, s.probability?)))
            .collect();
        let before = found.len();
        for &(segment, p) in &judged {
            let levels = [(Action::Block, &self.block), (Action::Review, &self.review)];
            let reached = levels.into_iter().find_map(|(action, thresholds)| {
                let &from = thresholds.get(&detector)?;
                (p >= from).then_some((action, from))
            });
            if let Some((action, from)) = reached {
                let rule = format!("{}.{} >= {from}", name(action), detector.name());
                found
                    .push((action, format!("{rule}: {} at {}", figure(p), place(segment, report))));
            }
        }
        let lowest = [self.review.get(&detector), self.block.get(&detector)];
        let lowest = lowest.into_iter().flatten().copied().reduce(f32::min);
        if found.len() == before
            && let Some(&(segment, p)) = judged.iter().max_by(|a, b| a.1.total_cmp(&b.1))
            && let Some(from) = lowest
        {
            let (place, p) = (place(segment, report), figure(p));
            let line = format!("{} < {from}: {p} at {place}", detector.name());
            found.push((Action::Allow, line));
        }
    }
}

impl Policy {
    /// # Errors
    /// Text that is no policy; `path` is for the message.
    pub fn parse(text: &str, path: &str) -> Result<Self, PolicyError> {
        let invalid = |why: String| PolicyError::Invalid { path: path.to_owned(), why };
        let built_in: File =
            toml::from_str(BUILT_IN).map_err(|e| invalid(format!("(built in) {e}")))?;
        let rules = Rules::empty().with(&built_in.default, "default").map_err(invalid)?;
        let file: File = toml::from_str(text).map_err(|e| invalid(e.to_string()))?;
        let version = file.version.trim();
        if version.is_empty() || version.len() > 64 || version.chars().any(char::is_control) {
            return Err(invalid("version must be 1 to 64 bytes of text".to_owned()));
        }
        let digest = Sha256::digest(text.as_bytes());
        let digest: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        let default = rules.with(&file.default, "default").map_err(invalid)?;
        let mut tenants = BTreeMap::new();
        for (tenant, layer) in &file.tenants {
            let rules = default.with(layer, &format!("tenants.{tenant}")).map_err(invalid)?;
            tenants.insert(tenant.clone(), rules);
        }
        Ok(Self { version: format!("{version}+{digest}"), default, tenants })
    }

    fn read(path: &Path) -> Result<Vec<u8>, PolicyError> {
        let name = || crate::report::path_text(path);
        let failed = |source| PolicyError::Read { path: name(), source };
        let file = std::fs::File::open(path).map_err(failed)?;
        let mut text = Vec::new();
        std::io::Read::read_to_end(&mut std::io::Read::take(file, MAX_BYTES + 1), &mut text)
            .map_err(failed)?;
        if text.len() as u64 > MAX_BYTES {
            return Err(PolicyError::TooLarge { path: name() });
        }
        Ok(text)
    }

    fn parse_bytes(bytes: &[u8], path: &Path) -> Result<Self, PolicyError> {
        let path = crate::report::path_text(path);
        let text = std::str::from_utf8(bytes)
            .map_err(|e| PolicyError::Invalid { path: path.clone(), why: e.to_string() })?;
        Self::parse(text, &path)
    }

    pub fn version(&self) -> &str {
        &self.version
    }

    pub fn rules(&self, tenant: &str) -> &Rules {
        self.tenants.get(tenant).unwrap_or(&self.default)
    }

    /// What a report leads to for a tenant: the strictest of all rules that apply. `because` holds the
    /// lines of those rules that lead to it, each the rule, `: ` and what it rests on.
    pub fn evaluate(&self, tenant: &str, report: &Report) -> Outcome {
        let found = self.rules(tenant).apply(report);
        let action = found.iter().map(|(action, _)| *action).max().unwrap_or(Action::Allow);
        let mut because: Vec<String> =
            found.into_iter().filter(|(a, _)| *a == action).map(|(_, line)| line).collect();
        if because.len() > MAX_LINES {
            let more = because.len() - (MAX_LINES - 1);
            because.truncate(MAX_LINES - 1);
            because.push(format!("and {more} more"));
        }
        Outcome {
            action,
            disposition: report.disposition.state,
            because,
            policy_version: self.version.clone(),
        }
    }
}

/// The policy in force, read from a file that may change.
pub struct Policies {
    path: Option<PathBuf>,
    state: Mutex<State>,
}

struct State {
    policy: Arc<Policy>,
    loaded_at: Time,
    /// The file's bytes as last seen, whether they could be used or not; none where there is no file.
    seen: Option<Vec<u8>>,
    error: Option<String>,
    checked: Instant,
}

/// How it stands with the policy.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct PolicyStatus {
    /// As in every outcome.
    pub policy_version: String,
    pub loaded_at: Time,
    /// Why the file as it is now is not in force.
    pub error: Option<String>,
}

/// The policy as a tenant meets it.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct PolicyView {
    #[serde(flatten)]
    pub status: PolicyStatus,
    pub tenant: String,
    pub rules: Rules,
}

impl Policies {
    /// The built-in policy, or the file at `path`, which must be there and valid.
    ///
    /// # Errors
    /// A file that cannot be read or is no policy.
    pub fn open(path: Option<PathBuf>) -> Result<Self, PolicyError> {
        let (policy, seen) = match &path {
            Some(path) => {
                let bytes = Policy::read(path)?;
                (Policy::parse_bytes(&bytes, path)?, Some(bytes))
            }
            None => (Policy::parse(BUILT_IN, "(built in)")?, None),
        };
        Ok(Self::new(path, policy, seen))
    }

    /// As [`open`](Self::open), but where there is no file yet the built-in policy holds until there is.
    ///
    /// # Errors
    /// A file that is there and cannot be read or is no policy.
    pub fn open_if_there(path: PathBuf) -> Result<Self, PolicyError> {
        match Self::open(Some(path.clone())) {
            Err(PolicyError::Read { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                Ok(Self::new(Some(path), Policy::parse(BUILT_IN, "(built in)")?, None))
            }
            other => other,
        }
    }

    fn new(path: Option<PathBuf>, policy: Policy, seen: Option<Vec<u8>>) -> Self {
        let (loaded_at, checked) = (Time::now(), Instant::now());
        let policy = Arc::new(policy);
        let state = State { policy, loaded_at, seen, error: None, checked };
        Self { path, state: Mutex::new(state) }
    }

    /// The policy in force. The file is looked at once a second at most.
    pub fn current(&self) -> Arc<Policy> {
        Arc::clone(&self.fresh().policy)
    }

    fn fresh(&self) -> std::sync::MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.checked.elapsed() >= POLL {
            self.reload(&mut state);
        }
        state
    }

    /// Contents are compared, not times: a file of a page costs nothing to read, and times miss changes
    /// within their grain.
    fn reload(&self, state: &mut State) {
        state.checked = Instant::now();
        let Some(path) = &self.path else { return };
        let loaded = match Policy::read(path) {
            // Not there yet.
            Err(PolicyError::Read { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound && state.seen.is_none() =>
            {
                return;
            }
            Err(e) => {
                // When it can be read again it is taken, even if it is as it was.
                state.seen = Some(Vec::new());
                Err(e)
            }
            Ok(bytes) if state.seen.as_ref() == Some(&bytes) => return,
            Ok(bytes) => {
                let parsed = Policy::parse_bytes(&bytes, path);
                state.seen = Some(bytes);
                parsed
            }
        };
        match loaded {
            Ok(policy) => {
                tracing::info!("policy {} is in force", policy.version);
                state.policy = Arc::new(policy);
                state.loaded_at = Time::now();
                state.error = None;
            }
            Err(e) => {
                let error = e.to_string();
                if state.error.as_ref() != Some(&error) {
                    tracing::warn!("policy {} stays in force: {error}", state.policy.version);
                }
                state.error = Some(error);
            }
        }
    }

    pub fn evaluate(&self, tenant: &str, report: &Report) -> Outcome {
        self.current().evaluate(tenant, report)
    }

    pub fn status(&self) -> PolicyStatus {
        let state = self.fresh();
        PolicyStatus {
            policy_version: state.policy.version.clone(),
            loaded_at: state.loaded_at,
            error: state.error.clone(),
        }
    }

    pub fn view(&self, tenant: &str) -> PolicyView {
        let status = self.status();
        let rules = self.current().rules(tenant).clone();
        PolicyView { status, tenant: tenant.to_owned(), rules }
    }
}

/// What a new policy would change.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct DryRun {
    /// The policy in force.
    pub before: String,
    /// The one that is tried.
    pub after: String,
    pub reports: u64,
    /// How many reports go from which action to which, those that stay included.
    pub actions: Vec<ActionCount>,
    /// The first 1,000 jobs whose action changes.
    pub changes: Vec<ActionChange>,
    /// Changes beyond those.
    pub more_changes: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ActionCount {
    pub before: Action,
    pub after: Action,
    pub count: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ActionChange {
    #[schema(value_type = uuid::Uuid)]
    pub job: JobId,
    pub tenant: String,
    pub before: Action,
    pub after: Action,
    /// Why it is `after`.
    pub because: Vec<String>,
}

/// Judges reports, each of a tenant's job, by the policy in force and by a candidate.
///
/// # Errors
/// A candidate that is no policy.
pub fn dry_run(
    policies: &Policies,
    candidate: &str,
    reports: impl Iterator<Item = (String, JobId, Report)>,
) -> Result<DryRun, PolicyError> {
    let before = policies.current();
    let after = Policy::parse(candidate, "(candidate)")?;
    let mut run = DryRun {
        before: before.version.clone(),
        after: after.version.clone(),
        reports: 0,
        actions: Vec::new(),
        changes: Vec::new(),
        more_changes: 0,
    };
    let mut counts: BTreeMap<(Action, Action), u64> = BTreeMap::new();
    for (tenant, job, report) in reports {
        let was = before.evaluate(&tenant, &report).action;
        let Outcome { action, because, .. } = after.evaluate(&tenant, &report);
        run.reports += 1;
        *counts.entry((was, action)).or_default() += 1;
        if was != action {
            if run.changes.len() < MAX_CHANGES {
                run.changes.push(ActionChange { job, tenant, before: was, after: action, because });
            } else {
                run.more_changes += 1;
            }
        }
    }
    run.actions = counts
        .into_iter()
        .map(|((before, after), count)| ActionCount { before, after, count })
        .collect();
    Ok(run)
}

/// The kinds of strip evidence that the program tells.
pub fn evidence_kinds() -> impl Iterator<Item = &'static str> {
    evidence::ALL.iter().map(|kind| kind.code).chain([ERASED_MARK])
}

fn name(action: Action) -> &'static str {
    match action {
        Action::Allow => "allow",
        Action::Review => "review",
        Action::Block => "block",
    }
}

fn state_name(state: DispositionState) -> &'static str {
    match state {
        DispositionState::Confirmed => "confirmed",
        DispositionState::Possible => "possible",
        DispositionState::Suspected => "suspected",
        DispositionState::None => "none",
        DispositionState::Undetermined => "undetermined",
    }
}

/// A code as JSON has it.
fn code(code: impl Serialize) -> String {
    match serde_json::to_value(code) {
        Ok(serde_json::Value::String(text)) => text,
        _ => String::new(),
    }
}

/// Cut, not rounded, so that no figure looks as if it reached a threshold that it does not.
fn figure(p: f32) -> String {
    format!("{:.3}", (p * 1000.0).floor() / 1000.0)
}

/// `face-1, 12.0 s to 18.0 s`; a picture has no time.
fn place(segment: &Segment, report: &Report) -> String {
    if report.media.kind == Some(MediaKind::Image) {
        return segment.track.clone();
    }
    let seconds = |ms: i64| format!("{}.{} s", ms / 1000, ms % 1000 / 100);
    format!("{}, {} to {}", segment.track, seconds(segment.start_ms), seconds(segment.end_ms))
}

/// A message without the server's path at its beginning.
fn without_path<'a>(message: &'a str, path: &str) -> &'a str {
    message.strip_prefix(path).map_or(message, |rest| rest.trim_start_matches([':', ' ']))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    fn policy(text: &str) -> Policy {
        Policy::parse(text, "test.toml").unwrap()
    }

    fn why(text: &str) -> String {
        Policy::parse(text, "test.toml").unwrap_err().to_string()
    }

    #[test]
    fn the_built_in_policy_reviews_and_never_blocks() {
        let built_in = policy(BUILT_IN);
        let outcome = |report: &Report| built_in.evaluate("anybody", report);
        let video = outcome(&samples::video());
        assert_eq!(video.action, Action::Review);
        assert_eq!(
            video.because,
            [
                "review.face-swap >= 0.5: 0.930 at face-1, 12.0 s to 18.0 s",
                "review.voice-clone >= 0.5: 0.900 at speech-1, 20.0 s to 28.0 s",
                "review.voice-clone >= 0.5: 0.800 at speech-1, 50.0 s to 58.0 s",
                "dispositions.confirmed = review: AIGC label in moov.udta.meta says Label 1",
            ]
        );
        assert!(video.policy_version.starts_with("builtin-1+"));
        assert_eq!(video.policy_version.len(), "builtin-1+".len() + 12);
        let failed = outcome(&samples::failed());
        assert_eq!(failed.action, Action::Review);
        assert_eq!(
            failed.because,
            [
                "not_judged = review: unrecognised: no container or picture format is recognised in its \
              content"
            ]
        );
        let mut clean = samples::picture();
        clean.segments.remove(0);
        clean.disposition.state = DispositionState::None;
        clean.disposition.evidence.clear();
        let clean = outcome(&clean);
        assert_eq!(clean.action, Action::Allow);
        assert_eq!(
            clean.because,
            ["face-swap < 0.5: 0.030 at face-2", "dispositions.none = allow"]
        );
        // Whatever a report says.
        for report in samples::all() {
            assert_ne!(outcome(&report).action, Action::Block, "{}", report.media.path);
        }
    }

    #[test]
    fn layers_lie_over_each_other_key_by_key() {
        let policy = policy(
            r#"
            version = "7"
            [default]
            block = { face-swap = 0.9, voice-clone = 0.95 }
            [tenants.strict]
            block = { voice-clone = 0.8 }
            [tenants.lax]
            block = { face-swap = "never", voice-clone = "never" }
            review = { face-swap = "never", voice-clone = "never", label-strip = "never" }
            dispositions = { confirmed = "allow" }
            "#,
        );
        let report = samples::video();
        let default = policy.evaluate("x", &report);
        assert_eq!(default.action, Action::Block);
        assert_eq!(default.because, ["block.face-swap >= 0.9: 0.930 at face-1, 12.0 s to 18.0 s"]);
        assert_eq!(policy.evaluate("strict", &report).because.len(), 3);
        assert_eq!(policy.rules("strict").block[&DetectorKind::FaceSwap], 0.9);
        assert_eq!(policy.rules("strict").review[&DetectorKind::LabelStrip], 0.75);
        let lax = policy.evaluate("lax", &report);
        assert_eq!(lax.action, Action::Allow);
        assert!(lax.because.contains(
            &"dispositions.confirmed = allow: AIGC label in moov.udta.meta says Label 1".to_owned()
        ));
    }

    #[test]
    fn short_segments_do_not_count_but_in_pictures_and_short_media() {
        let policy = policy(
            "version = \"1\"\n[default]\nleast_ms = 7000\nreview = { voice-clone = \"never\" }\n\
             dispositions = { confirmed = \"allow\", suspected = \"allow\" }",
        );
        let mut video = samples::video();
        assert_eq!(policy.evaluate("x", &video).action, Action::Allow);
        video.segments[1].end_ms = 19_000;
        assert_eq!(policy.evaluate("x", &video).action, Action::Review);
        video.segments[1].end_ms = 18_000;
        video.media.duration_ms = Some(6_000);
        assert_eq!(policy.evaluate("x", &video).action, Action::Review);
        assert_eq!(policy.evaluate("x", &samples::picture()).action, Action::Review);
    }

    #[test]
    fn evidence_and_unjudged_segments_have_rules_of_their_own() {
        let policy = policy(
            "version = \"1\"\n[default]\nstrip_evidence = { label_bytes_in_free_box = \"block\" }\n\
             [tenants.careful]\nstrip_evidence = { label_bytes_in_free_box = \"allow\" }\n\
             segments_not_judged = \"block\"",
        );
        let outcome = policy.evaluate("x", &samples::video());
        assert_eq!(outcome.action, Action::Block);
        assert_eq!(
            outcome.because,
            ["strip_evidence.label_bytes_in_free_box = block: free at byte 81234"]
        );
        let outcome = policy.evaluate("careful", &samples::video());
        assert_eq!(outcome.action, Action::Block);
        assert_eq!(
            outcome.because,
            ["segments_not_judged = block: face-2, 30.0 s to 45.0 s (face_too_small)"]
        );
    }

    #[test]
    fn the_lines_of_an_outcome_are_bounded() {
        let mut report = samples::picture();
        let segment = report.segments[0].clone();
        report.segments = vec![segment; 100];
        report.disposition.evidence = vec!["x".to_owned(); 50];
        let because = policy(BUILT_IN).evaluate("x", &report).because;
        assert_eq!(because.len(), MAX_LINES);
        assert_eq!(because[MAX_LINES - 1], "and 135 more");
    }

    #[test]
    fn what_is_no_policy_is_refused_with_its_place() {
        assert!(why("version = \"1\"\n[default]\nblok = {}").contains("unknown field `blok`"));
        assert!(why("version = \"1\"\n[default]\nblok = {}").contains("line 3"));
        assert!(why("[default]").contains("version"));
        assert!(why("version = \" \"").contains("version must be"));
        let over = why("version = \"1\"\n[tenants.a]\nblock = { face-swap = 1.5 }");
        assert!(over.contains("tenants.a.block.face-swap is 1.5"), "{over}");
        assert!(why("version = \"1\"\n[default]\nblock = { face = 1 }").contains("face-swap"));
        assert!(
            why("version = \"1\"\n[default]\nblock = { face-swap = \"no\" }").contains("\"never\"")
        );
        assert!(why("version = \"1\"\n[default]\nreview = { face-swap = nan }").contains("0 to 1"));
        let kind = why("version = \"1\"\n[default]\nstrip_evidence = { x = \"block\" }");
        assert!(kind.contains("unknown kind `x`") && kind.contains("erased_mark"), "{kind}");
        assert!(
            why("version = \"1\"\n[default]\ndispositions = { confirmed = \"ban\" }")
                .contains("ban")
        );
    }

    /// The document's example is a policy, and its table says what is built in.
    #[test]
    fn the_document_shows_a_policy() {
        let document = include_str!("../../docs/policy.md");
        let example = document.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
        let example = policy(example);
        let news = example.rules("news");
        assert_eq!((news.least_ms, news.block.len(), news.review.len()), (1_500, 0, 3));
        assert_eq!(example.rules("others").block[&DetectorKind::FaceSwap], 0.98);
        let built_in = policy(BUILT_IN);
        let rules = built_in.rules("x");
        let review: Vec<f32> = DetectorKind::ALL.iter().map(|d| rules.review[d]).collect();
        assert_eq!(review, [0.5, 0.5, 0.75]);
        assert!(document.contains("`review` from 0.5, 0.5 and 0.75") && rules.block.is_empty());
        let text = serde_json::to_value(rules).unwrap();
        for key in text.as_object().unwrap().keys() {
            assert!(document.contains(&format!("`{key}`")), "{key}");
        }
    }

    #[test]
    fn a_changed_file_is_taken_and_a_broken_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policy.toml");
        let policies = Policies::open_if_there(path.clone()).unwrap();
        let look = || {
            let mut state = policies.state.lock().unwrap();
            policies.reload(&mut state);
        };
        assert!(Policies::open(Some(path.clone())).is_err());
        look();
        assert!(policies.status().policy_version.starts_with("builtin-1+"));
        assert_eq!(policies.status().error, None);

        std::fs::write(&path, "version = \"a\"").unwrap();
        look();
        let first = policies.status().policy_version;
        assert!(first.starts_with("a+"));
        std::fs::write(&path, "version = \"a\" # changed").unwrap();
        look();
        let second = policies.status().policy_version;
        assert!(second.starts_with("a+") && second != first);

        std::fs::write(&path, "version = ").unwrap();
        look();
        let status = policies.status();
        assert_eq!(status.policy_version, second);
        assert!(status.error.unwrap().contains("policy.toml is not valid"));
        std::fs::remove_file(&path).unwrap();
        look();
        let status = policies.status();
        assert_eq!(status.policy_version, second);
        assert!(status.error.unwrap().contains("cannot be read"));
        // Back as it was: no error any more.
        std::fs::write(&path, "version = \"a\" # changed").unwrap();
        look();
        assert_eq!((policies.status().error, policies.status().policy_version), (None, second));
        std::fs::write(&path, vec![b'#'; 2 << 20]).unwrap();
        look();
        assert!(policies.status().error.unwrap().contains("1 MiB"));
    }

    #[test]
    fn a_dry_run_counts_and_names_what_changes() {
        let policies = Policies::open(None).unwrap();
        let jobs: Vec<JobId> = (0..4u128).map(uuid::Uuid::from_u128).collect();
        let mut clean = samples::picture();
        clean.segments.remove(0);
        clean.disposition.state = DispositionState::None;
        clean.disposition.evidence.clear();
        let reports = [samples::video(), samples::failed(), clean, samples::picture()];
        let items = jobs.iter().copied().zip(reports).map(|(id, r)| ("t".to_owned(), id, r));
        let candidate = "version = \"2\"\n[default]\nblock = { face-swap = 0.9 }\nnot_judged = \"allow\"\n\
                         dispositions = { undetermined = \"allow\" }";
        let run = dry_run(&policies, candidate, items).unwrap();
        assert!(run.before.starts_with("builtin-1+") && run.after.starts_with("2+"));
        assert_eq!(run.reports, 4);
        let count = |before, after, count| ActionCount { before, after, count };
        assert_eq!(
            run.actions,
            [
                count(Action::Allow, Action::Allow, 1),
                count(Action::Review, Action::Allow, 1),
                count(Action::Review, Action::Review, 1),
                count(Action::Review, Action::Block, 1),
            ]
        );
        let changed: Vec<_> = run.changes.iter().map(|c| (c.job, c.after)).collect();
        assert_eq!(changed, [(jobs[0], Action::Block), (jobs[1], Action::Allow)]);
        assert_eq!(run.more_changes, 0);
        assert!(dry_run(&policies, "x", std::iter::empty()).is_err());
    }
}
