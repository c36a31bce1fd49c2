//! How a set changes the Miners that are there: how many at a time, and when one that does not work is replaced.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Invalid;

/// The words a `strategy.type` may be.
pub const STRATEGIES: [&str; 2] = ["RollingUpdate", "Recreate"];
/// How many Miners may be unavailable during an update, when the set does not say: a quarter, and one at least.
const DEFAULT_MAX_UNAVAILABLE: &str = "25%";

/// How a change of the template, or of the chain's settings, reaches the miners that are there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Strategy {
    /// RollingUpdate changes some miners at a time, Recreate all at once. RollingUpdate when empty.
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    #[schemars(extend("enum" = ["", "RollingUpdate", "Recreate"]))]
    pub type_: String,
    /// How many at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rolling_update: Option<RollingUpdate>,
}

/// How many miners may be missing, and how many there may be too many, while a change is under way.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RollingUpdate {
    /// How many miners may be unavailable: a number, or a percentage of replicas that is rounded down. 25% when not set, and
    /// one at least unless maxSurge allows more miners.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_unavailable: Option<IntOrString>,
    /// How many miners there may be beyond replicas: a number, or a percentage of replicas that is rounded up. 0 when not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_surge: Option<IntOrString>,
}

/// When miners that do not work are replaced, besides those whose health check asks for it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Remediation {
    /// A miner that is not ready for longer than this is replaced, in seconds. Not set: only health checks ask for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub unhealthy_seconds: Option<i32>,
    /// With more unready miners than this none is replaced: a number, or a percentage of replicas that is rounded down. 100%
    /// when not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_unhealthy: Option<IntOrString>,
    /// How many miners are replaced at the same time: a number, or a percentage of replicas that is rounded down, one at least.
    /// As many as may be unavailable during an update when not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_in_flight: Option<IntOrString>,
}

/// How many miners may be missing, and how many too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leeway {
    /// How many may be unavailable.
    pub unavailable: usize,
    /// How many may be there beyond what is wanted.
    pub surge: usize,
}

impl Strategy {
    /// What a set of so many replicas allows.
    pub fn leeway(&self, replicas: usize) -> Leeway {
        if self.type_ == STRATEGIES[1] {
            return Leeway { unavailable: replicas.max(1), surge: 0 };
        }
        let rolling = self.rolling_update.clone().unwrap_or_default();
        let default = IntOrString::String(DEFAULT_MAX_UNAVAILABLE.to_owned());
        let unavailable = number(rolling.max_unavailable.as_ref().unwrap_or(&default), replicas, false);
        let surge = rolling.max_surge.as_ref().map_or(0, |surge| number(surge, replicas, true));
        // Somebody has to move.
        let unavailable = if surge == 0 { unavailable.max(1) } else { unavailable };
        Leeway { unavailable, surge }
    }

    pub(crate) fn check(&self, field: &str) -> Vec<Invalid> {
        let mut wrong = Vec::new();
        if !self.type_.is_empty() && !STRATEGIES.contains(&self.type_.as_str()) {
            wrong.push(Invalid::not_supported(format!("{field}.type"), self.type_.as_str(), &STRATEGIES));
        }
        let Some(rolling) = &self.rolling_update else { return wrong };
        let field = format!("{field}.rollingUpdate");
        if self.type_ == STRATEGIES[1] {
            wrong.push(Invalid::forbidden(field, "may not be specified when strategy `type` is 'Recreate'"));
            return wrong;
        }
        wrong.extend(wrong_number(&format!("{field}.maxUnavailable"), rolling.max_unavailable.as_ref()));
        wrong.extend(wrong_number(&format!("{field}.maxSurge"), rolling.max_surge.as_ref()));
        let is_zero = |value: &Option<IntOrString>| value.as_ref().is_some_and(|value| number(value, 100, true) == 0);
        if wrong.is_empty()
            && is_zero(&rolling.max_unavailable)
            && rolling.max_surge.as_ref().is_none_or(|_| is_zero(&rolling.max_surge))
        {
            let why = "may not be 0 when `maxSurge` is 0";
            wrong.push(Invalid::value(format!("{field}.maxUnavailable"), shown(rolling.max_unavailable.as_ref()), why));
        }
        wrong
    }
}

impl Remediation {
    /// With more unready Miners than this none is replaced.
    pub fn max_unhealthy(&self, replicas: usize) -> usize {
        self.max_unhealthy.as_ref().map_or(usize::MAX, |most| number(most, replicas, false))
    }

    /// How many are replaced at the same time; `otherwise` if it does not say.
    pub fn max_in_flight(&self, replicas: usize, otherwise: usize) -> usize {
        self.max_in_flight.as_ref().map_or(otherwise, |most| number(most, replicas, false)).max(1)
    }

    pub(crate) fn check(&self, field: &str) -> Vec<Invalid> {
        let mut wrong = Vec::new();
        if let Some(seconds) = self.unhealthy_seconds.filter(|seconds| *seconds < 1) {
            wrong.push(Invalid::value(
                format!("{field}.unhealthySeconds"),
                seconds,
                "must be greater than or equal to 1",
            ));
        }
        wrong.extend(wrong_number(&format!("{field}.maxUnhealthy"), self.max_unhealthy.as_ref()));
        wrong.extend(wrong_number(&format!("{field}.maxInFlight"), self.max_in_flight.as_ref()));
        wrong
    }
}

/// The number that is meant, of `total`. What `check` refuses counts as none.
fn number(value: &IntOrString, total: usize, up: bool) -> usize {
    match value {
        IntOrString::Int(number) => usize::try_from(*number).unwrap_or_default(),
        IntOrString::String(text) => {
            let parts = percent(text).unwrap_or_default() * total;
            if up { parts.div_ceil(100) } else { parts / 100 }
        }
    }
}

/// At most 10000 %, so that nothing overflows.
fn percent(text: &str) -> Option<usize> {
    let digits = text.strip_suffix('%').filter(|digits| digits.bytes().all(|digit| digit.is_ascii_digit()))?;
    digits.parse().ok().filter(|percent| *percent <= 10_000)
}

fn wrong_number(field: &str, value: Option<&IntOrString>) -> Option<Invalid> {
    match value? {
        IntOrString::Int(number) if *number < 0 => {
            Some(Invalid::value(field, *number, "must be greater than or equal to 0"))
        }
        IntOrString::String(text) if percent(text).is_none() => {
            let why = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', \
                       regex used for validation is '[0-9]+%')";
            Some(Invalid::value(field, text.as_str(), why))
        }
        _ => None,
    }
}

fn shown(value: Option<&IntOrString>) -> serde_json::Value {
    serde_json::to_value(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn strategy(rolling: Value) -> Strategy {
        serde_json::from_value(json!({"type": "RollingUpdate", "rollingUpdate": rolling})).unwrap()
    }

    #[test]
    fn the_table_of_leeways() {
        for (rolling, replicas, unavailable, surge) in [
            (json!({}), 3, 1, 0),
            (json!({}), 10_000, 2_500, 0),
            (json!({"maxUnavailable": 2}), 3, 2, 0),
            (json!({"maxUnavailable": "50%"}), 3, 1, 0),
            (json!({"maxUnavailable": 0, "maxSurge": "25%"}), 3, 0, 1),
            (json!({"maxSurge": "10%"}), 3, 0, 1),
            (json!({"maxUnavailable": "1%"}), 3, 1, 0),
        ] {
            assert_eq!(strategy(rolling.clone()).leeway(replicas), Leeway { unavailable, surge }, "{rolling}");
        }
        let recreate = Strategy { type_: "Recreate".to_owned(), rolling_update: None };
        assert_eq!(recreate.leeway(3).unavailable, 3);
        assert_eq!(Strategy::default().leeway(0).unavailable, 1);
    }

    #[test]
    fn what_nobody_could_follow_is_refused_at_its_field() {
        for (rolling, field) in [
            (json!({"maxUnavailable": -1}), "s.rollingUpdate.maxUnavailable"),
            (json!({"maxSurge": "many"}), "s.rollingUpdate.maxSurge"),
            (json!({"maxUnavailable": 0}), "s.rollingUpdate.maxUnavailable"),
            (json!({"maxUnavailable": "0%", "maxSurge": 0}), "s.rollingUpdate.maxUnavailable"),
        ] {
            let fields: Vec<_> = strategy(rolling).check("s").into_iter().map(|wrong| wrong.field).collect();
            assert_eq!(fields, [field]);
        }
        assert_eq!(strategy(json!({"maxUnavailable": 0, "maxSurge": 1})).check("s"), []);
        let all = Strategy { type_: "Recreate".to_owned(), ..strategy(json!({})) };
        assert_eq!(all.check("s").len(), 1);
        let remediation = Remediation { unhealthy_seconds: Some(0), ..Remediation::default() };
        assert_eq!(remediation.check("r")[0].field, "r.unhealthySeconds");
    }
}
