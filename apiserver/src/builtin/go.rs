//! Values as Go prints them, for messages that people and scripts know: `map[string]string{"app":"web"}`.

use serde_json::Value;

use super::{list, text};

/// Labels.
pub fn labels(labels: &Value) -> String {
    let Some(labels) = labels.as_object() else { return "map[string]string(nil)".to_owned() };
    let mut pairs: Vec<String> = labels.iter().map(|(key, value)| format!("{key:?}:{value}")).collect();
    pairs.sort();
    format!("map[string]string{{{}}}", pairs.join(", "))
}

/// A LabelSelector.
pub fn label_selector(selector: &Value) -> String {
    let requirement = |requirement: &Value| {
        let (key, operator) = (text(requirement, "key"), text(requirement, "operator"));
        let values = strings(&requirement["values"]);
        format!("v1.LabelSelectorRequirement{{Key:{key:?}, Operator:{operator:?}, Values:{values}}}")
    };
    let expressions = match selector["matchExpressions"].is_array() {
        false => "(nil)".to_owned(),
        true => {
            let all: Vec<String> = list(selector, "matchExpressions").iter().map(requirement).collect();
            format!("{{{}}}", all.join(", "))
        }
    };
    let labels = labels(&selector["matchLabels"]);
    format!("v1.LabelSelector{{MatchLabels:{labels}, MatchExpressions:[]v1.LabelSelectorRequirement{expressions}}}")
}

/// A list of texts.
pub fn strings(strings: &Value) -> String {
    let Some(strings) = strings.as_array() else { return "[]string(nil)".to_owned() };
    let all: Vec<String> = strings.iter().map(Value::to_string).collect();
    format!("[]string{{{}}}", all.join(", "))
}

/// A number or a text.
pub fn int_or_string(value: &Value) -> String {
    let (kind, number, text) = match value {
        Value::String(text) => (1, 0, text.as_str()),
        number => (0, number.as_i64().unwrap_or(0), ""),
    };
    format!("intstr.IntOrString{{Type:{kind}, IntVal:{number}, StrVal:{text:?}}}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_printed_as_go_prints_them() {
        assert_eq!(labels(&json!({"b": "2", "a": "1"})), r#"map[string]string{"a":"1", "b":"2"}"#);
        assert_eq!(labels(&Value::Null), "map[string]string(nil)");
        let selector =
            json!({"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "k", "operator": "In", "values": ["v"]}]});
        assert_eq!(
            label_selector(&selector),
            r#"v1.LabelSelector{MatchLabels:map[string]string{"a":"1"}, MatchExpressions:[]v1.LabelSelectorRequirement{v1.LabelSelectorRequirement{Key:"k", Operator:"In", Values:[]string{"v"}}}}"#
        );
        assert_eq!(int_or_string(&json!("x")), r#"intstr.IntOrString{Type:1, IntVal:0, StrVal:"x"}"#);
        assert_eq!(int_or_string(&json!(3)), r#"intstr.IntOrString{Type:0, IntVal:3, StrVal:""}"#);
    }
}
