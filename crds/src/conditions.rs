//! Conditions in the manner of Cluster API: what holds of an object, since when, and how bad it is when it does not.
//!
//! Everything here is a pure function of its arguments; the time is passed in.

use std::cmp::Ordering;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The condition that sums up all others.
pub const READY: &str = "Ready";
/// Chain and MinerSet: the Miners that should be there were created.
pub const MINERS_CREATED: &str = "MinersCreated";
/// Chain: the keystore ConfigMap is there.
pub const CONFIG_MAPS_CREATED: &str = "ConfigMapsCreated";
/// MinerSet: it has as many ready Miners as it should.
pub const RESIZED: &str = "Resized";
/// MinerSet: all its Miners are Ready.
pub const MINERS_READY: &str = "MinersReady";
/// MinerSet: all its Miners are as the template and the chain say now.
pub const UP_TO_DATE: &str = "UpToDate";
/// MinerSet: Miners that do not work are replaced. Only there while they are not.
pub const REMEDIATION_ALLOWED: &str = "RemediationAllowed";
/// Chain: it can go. Only there when it is to go and cannot.
pub const DELETION_ALLOWED: &str = "DeletionAllowed";
/// Miner: its Pod is ready.
pub const POD_HEALTHY: &str = "PodHealthy";
/// Miner: if it is a genesis, the Service that leads to it could be made. Only there while it could not.
pub const SERVICE_CREATED: &str = "ServiceCreated";
/// Miner: its owner has done what a failed health check asked for. `False` asks the MinerSet to replace the Miner.
pub const OWNER_REMEDIATED: &str = "OwnerRemediated";
/// Miner: an external health check passes.
pub const HEALTH_CHECK_SUCCEEDED: &str = "HealthCheckSucceeded";

/// A Miner could not be created.
pub const REASON_MINER_CREATION_FAILED: &str = "MinerCreationFailed";
/// A ConfigMap could not be created.
pub const REASON_CONFIG_MAP_CREATION_FAILED: &str = "ConfigMapCreationFailed";
/// There are fewer Miners than asked for.
pub const REASON_SCALING_UP: &str = "ScalingUp";
/// There are more Miners than asked for.
pub const REASON_SCALING_DOWN: &str = "ScalingDown";
/// The Chain that is named does not exist.
pub const REASON_CHAIN_NOT_FOUND: &str = "ChainNotFound";
/// The genesis Miner of a Chain is not Ready yet.
pub const REASON_GENESIS_NOT_READY: &str = "GenesisNotReady";
/// The Pod is there, or about to be, but not ready.
pub const REASON_POD_PROVISIONING: &str = "PodProvisioning";
/// The Pod is going, because another one is to take its place.
pub const REASON_POD_REPLACED: &str = "PodReplaced";
/// The name is taken by an object of somebody else.
pub const REASON_NAME_TAKEN: &str = "NameTaken";
/// The Pod was there and is gone.
pub const REASON_POD_NOT_FOUND: &str = "PodNotFound";
/// The Pod says it is not ready; its message is copied.
pub const REASON_POD_CONDITIONS_FAILED: &str = "PodConditionsFailed";
/// The object is being deleted.
pub const REASON_DELETING: &str = "Deleting";
/// Deleting what belongs to the object failed.
pub const REASON_DELETION_FAILED: &str = "DeletionFailed";
/// The type of the Miner is in no table.
pub const REASON_MINER_TYPE_UNSUPPORTED: &str = "MinerTypeUnsupported";
/// A change is on its way to all Miners.
pub const REASON_ROLLING_UPDATE: &str = "RollingUpdate";
/// A change waits, because the set is paused.
pub const REASON_PAUSED: &str = "Paused";
/// So many Miners do not work that replacing them would not help.
pub const REASON_TOO_MANY_UNHEALTHY: &str = "TooManyUnhealthy";
/// Others need the object.
pub const REASON_IN_USE: &str = "InUse";
/// Not yet seen.
pub const REASON_WAITING: &str = "Waiting";

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Truth {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Nobody could tell.
    #[default]
    Unknown,
}

/// How bad it is that a condition is `False`. Empty unless it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Severity {
    /// Someone has to do something.
    Error,
    /// Something is wrong, and may pass.
    Warning,
    /// All is going as planned.
    Info,
    /// Not `False`.
    #[default]
    #[serde(rename = "")]
    None,
}

/// One thing that is known about an object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What it is about, in CamelCase. There is at most one condition of a type.
    #[serde(rename = "type")]
    pub type_: String,
    /// True, False or Unknown.
    pub status: Truth,
    /// How to judge a False: Error, Warning or Info; empty otherwise.
    // Always written, also when empty: clients of OneX expect the key.
    #[serde(default)]
    pub severity: Severity,
    /// When status, reason, severity or message last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Time>,
    /// Why, in one CamelCase word.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

impl Condition {
    /// It holds.
    pub fn yes(type_: &str) -> Self {
        Self { type_: type_.to_owned(), status: Truth::True, ..Self::default() }
    }

    /// It does not hold, because of `reason`.
    pub fn no(type_: &str, severity: Severity, reason: &str, message: impl Into<String>) -> Self {
        let (type_, reason) = (type_.to_owned(), reason.to_owned());
        Self { type_, status: Truth::False, severity, reason, message: message.into(), last_transition_time: None }
    }

    /// Nobody can tell, because of `reason`.
    pub fn unknown(type_: &str, reason: &str, message: impl Into<String>) -> Self {
        let (type_, reason) = (type_.to_owned(), reason.to_owned());
        Self { type_, reason, message: message.into(), ..Self::default() }
    }

    /// Whether it holds.
    pub fn is_true(&self) -> bool {
        self.status == Truth::True
    }

    /// The same, under another type.
    pub fn renamed(self, type_: &str) -> Self {
        Self { type_: type_.to_owned(), last_transition_time: None, ..self }
    }

    /// Whether both say the same, whenever it was said.
    fn says(&self, other: &Self) -> bool {
        (self.status, self.severity, &self.reason, &self.message)
            == (other.status, other.severity, &other.reason, &other.message)
    }

    /// Who decides in a summary; lower goes first.
    fn priority(&self) -> u8 {
        match (self.status, self.severity) {
            (Truth::False, Severity::Error) => 0,
            (Truth::False, Severity::Warning) => 1,
            (Truth::False, Severity::Info | Severity::None) => 2,
            (Truth::True, _) => 3,
            (Truth::Unknown, _) => 4,
        }
    }
}

/// The condition of this type.
pub fn get<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Whether the condition of this type is there and holds.
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    get(conditions, type_).is_some_and(Condition::is_true)
}

/// Whether the condition of this type is there and does not hold.
pub fn is_false(conditions: &[Condition], type_: &str) -> bool {
    get(conditions, type_).is_some_and(|condition| condition.status == Truth::False)
}

/// Puts `condition` in its place: Ready first, the others by type.
///
/// Its time is `now`, in whole seconds, unless it says what was said before; then the old time stays.
pub fn set(conditions: &mut Vec<Condition>, condition: Condition, now: Timestamp) {
    let since = get(conditions, &condition.type_)
        .filter(|old| old.says(&condition))
        .and_then(|old| old.last_transition_time.clone())
        .unwrap_or_else(|| whole_seconds(now));
    conditions.retain(|old| old.type_ != condition.type_);
    conditions.push(Condition { last_transition_time: Some(since), ..condition });
    conditions.sort_by(in_order);
}

/// Takes the condition of this type away.
pub fn remove(conditions: &mut Vec<Condition>, type_: &str) {
    conditions.retain(|condition| condition.type_ != type_);
}

/// `now` as Kubernetes writes times.
pub fn whole_seconds(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).expect("the seconds of a timestamp are a timestamp"))
}

/// Ready, summed up from the conditions of the given types: the worst that is there decides. `None` when none is there.
pub fn summary(conditions: &[Condition], types: &[&str]) -> Option<Condition> {
    types
        .iter()
        .filter_map(|type_| get(conditions, type_))
        .min_by_key(|condition| condition.priority())
        .map(|condition| condition.clone().renamed(READY))
}

/// One condition `type_` for many objects: the worst decides, and its reason says whose it is (`reason @ Miner/a-0`).
///
/// `None` when there is nothing to sum up.
pub fn aggregate<'a>(
    type_: &str,
    kind: &str,
    conditions: impl IntoIterator<Item = (&'a str, &'a Condition)>,
) -> Option<Condition> {
    let (name, worst) = conditions.into_iter().min_by_key(|(_, condition)| condition.priority())?;
    let mut sum = worst.clone().renamed(type_);
    if !sum.reason.is_empty() && !sum.reason.contains('@') {
        sum.reason = format!("{} @ {kind}/{name}", sum.reason);
    }
    Some(sum)
}

fn in_order(a: &Condition, b: &Condition) -> Ordering {
    (a.type_ != READY, &a.type_).cmp(&(b.type_ != READY, &b.type_))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::new(second, 500_000_000).unwrap()
    }

    #[test]
    fn the_time_moves_only_when_something_else_is_said() {
        let mut conditions = Vec::new();
        set(&mut conditions, Condition::no(RESIZED, Severity::Warning, REASON_SCALING_UP, "1 of 2"), at(1));
        set(&mut conditions, Condition::no(RESIZED, Severity::Warning, REASON_SCALING_UP, "1 of 2"), at(2));
        assert_eq!(conditions[0].last_transition_time, Some(Time(Timestamp::from_second(1).unwrap())));
        set(&mut conditions, Condition::no(RESIZED, Severity::Warning, REASON_SCALING_UP, "2 of 3"), at(3));
        assert_eq!(conditions[0].last_transition_time, Some(Time(Timestamp::from_second(3).unwrap())));
    }

    #[test]
    fn ready_comes_first_and_the_others_by_type() {
        let mut conditions = Vec::new();
        for type_ in ["Resized", "MinersCreated", "Ready", "Able"] {
            set(&mut conditions, Condition::yes(type_), at(1));
        }
        let types: Vec<&str> = conditions.iter().map(|c| c.type_.as_str()).collect();
        assert_eq!(types, ["Ready", "Able", "MinersCreated", "Resized"]);
    }

    #[test]
    fn the_worst_condition_decides_the_summary() {
        let error = Condition::no("A", Severity::Error, "E", "e");
        let warning = Condition::no("B", Severity::Warning, "W", "w");
        let info = Condition::no("C", Severity::Info, "I", "i");
        let (yes, unknown) = (Condition::yes("D"), Condition::unknown("E", "U", "u"));
        let all = [unknown, yes, info, warning, error];
        for (types, status, reason) in [
            (&["A", "B", "C", "D", "E"][..], Truth::False, "E"),
            (&["B", "C", "D", "E"], Truth::False, "W"),
            (&["C", "D", "E"], Truth::False, "I"),
            (&["D", "E"], Truth::True, ""),
            (&["E"], Truth::Unknown, "U"),
        ] {
            let sum = summary(&all, types).unwrap();
            assert_eq!((sum.type_.as_str(), sum.status, sum.reason.as_str()), (READY, status, reason));
        }
        assert_eq!(summary(&all, &["Missing"]), None);
    }

    #[test]
    fn an_aggregate_says_whose_reason_it_is() {
        let (good, bad) = (Condition::yes(READY), Condition::no(READY, Severity::Error, "PodNotFound", "gone"));
        let sum = aggregate(MINERS_READY, "Miner", [("a-0", &good), ("a-1", &bad)]).unwrap();
        assert_eq!(sum.reason, "PodNotFound @ Miner/a-1");
        assert_eq!(sum.type_, MINERS_READY);
        assert_eq!(aggregate(MINERS_READY, "Miner", []), None);
    }

    #[test]
    fn severity_is_written_also_when_it_is_empty() {
        let json = serde_json::to_value(Condition::yes(READY)).unwrap();
        assert_eq!(json, serde_json::json!({"type": "Ready", "status": "True", "severity": ""}));
    }
}
