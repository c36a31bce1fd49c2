//! What a field must keep to, as data: it is checked, told in two languages, and printed in the OpenAPI document.

use crate::text::{self, Language};
use crate::{apps, gateway, usercenter as v1};

/// One thing that a field must keep to. What is empty or left out breaks only [`Check::Required`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// It is given, and not empty.
    Required,
    /// So many characters.
    Length(usize, usize),
    /// Letters, digits and underscores.
    Username,
    /// A letter and a digit are in it.
    Password,
    /// Looks like the address of a mailbox.
    Email,
    /// Looks like a phone number.
    Phone,
    /// Letters, digits, `.`, `-` and `_`, with a letter or digit first.
    Name,
    /// One of these.
    OneOf(&'static [&'static str]),
    /// A number in this range.
    Range(i64, i64),
    /// No control characters.
    Plain,
    /// `*` stands at the end only.
    Pattern,
}

/// The value of a field.
#[derive(Debug, Clone, Copy)]
pub enum Value<'a> {
    /// Text.
    Text(&'a str),
    /// A number.
    Number(i64),
    /// The field was left out.
    Absent,
}

impl<'a> From<&'a Option<String>> for Value<'a> {
    fn from(text: &'a Option<String>) -> Self {
        text.as_deref().map_or(Self::Absent, Self::Text)
    }
}

/// A field, and what it must keep to.
pub struct Rule<T: 'static> {
    /// Its name in JSON.
    pub field: &'static str,
    /// How its value is found.
    pub value: fn(&T) -> Value<'_>,
    /// What it must keep to.
    pub checks: &'static [Check],
}

/// A message with rules.
pub trait Rules: Sized + 'static {
    /// Its name in the `.proto` file.
    const NAME: &'static str;
    /// Its rules.
    const RULES: &'static [Rule<Self>];

    /// All rules that it breaks.
    fn violations(&self) -> Vec<Violation> {
        let broken = |rule: &Rule<Self>| {
            let value = (rule.value)(self);
            let broken = rule.checks.iter().filter(move |check| check.is_broken_by(value));
            broken.map(|check| check.violation(rule.field)).collect::<Vec<_>>()
        };
        Self::RULES.iter().flat_map(broken).collect()
    }
}

/// A rule that is broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The field.
    pub field: String,
    text: &'static str,
    arguments: Vec<String>,
}

impl Violation {
    /// `field` breaks the rule whose text is named `text`.
    #[must_use]
    pub fn new(field: &str, text: &'static str) -> Self {
        Self { field: field.to_owned(), text, arguments: Vec::new() }
    }

    /// What is wrong, in `language`, without the name of the field.
    #[must_use]
    pub fn text(&self, language: Language) -> String {
        text::fill(self.text, language, &self.arguments)
    }
}

impl Check {
    fn is_broken_by(self, value: Value<'_>) -> bool {
        match (self, value) {
            (Self::Required, Value::Absent | Value::Text("")) => true,
            (_, Value::Absent) => false,
            (Self::Range(least, most), Value::Number(number)) => !(least..=most).contains(&number),
            (_, Value::Number(_)) => false,
            // What may be left out may be empty; what may not be has one complaint, not four.
            (_, Value::Text("")) => false,
            (_, Value::Text(text)) => !self.allows(text),
        }
    }

    fn allows(self, text: &str) -> bool {
        match self {
            Self::Required | Self::Range(..) => true,
            Self::Length(least, most) => {
                // The second limit is looked at first: counting a long text takes long.
                text.len() <= most.saturating_mul(4) && (least..=most).contains(&text.chars().count())
            }
            Self::Username => text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'),
            Self::Password => text.chars().any(char::is_alphabetic) && text.bytes().any(|byte| byte.is_ascii_digit()),
            Self::Email => is_mailbox(text),
            Self::Phone => {
                let digits = text.strip_prefix('+').unwrap_or(text);
                (5..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
            }
            Self::Name => {
                text.starts_with(|first: char| first.is_ascii_alphanumeric())
                    && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
            }
            Self::OneOf(values) => values.contains(&text),
            Self::Plain => !text.chars().any(char::is_control),
            Self::Pattern => text.find('*').is_none_or(|place| place + 1 == text.len()),
        }
    }

    fn violation(self, field: &str) -> Violation {
        let (text, arguments) = match self {
            Self::Required => ("rule.required", Vec::new()),
            Self::Length(least, most) => ("rule.length", vec![least.to_string(), most.to_string()]),
            Self::Username => ("rule.username", Vec::new()),
            Self::Password => ("rule.password", Vec::new()),
            Self::Email => ("rule.email", Vec::new()),
            Self::Phone => ("rule.phone", Vec::new()),
            Self::Name => ("rule.name", Vec::new()),
            Self::OneOf(values) => ("rule.one.of", vec![values.join(", ")]),
            Self::Range(least, most) => ("rule.range", vec![least.to_string(), most.to_string()]),
            Self::Plain => ("rule.plain", Vec::new()),
            Self::Pattern => ("rule.pattern", Vec::new()),
        };
        Violation { field: field.to_owned(), text, arguments }
    }
}

/// A local part, an `@`, and a host with a dot in it: whether mail arrives there only mail can tell.
fn is_mailbox(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || ".!#$%&'*+/=?^_`{|}~-".contains(c);
    let label = |label: &str| {
        !label.is_empty() && label.chars().all(|c| c.is_alphanumeric() || c == '-') && !label.starts_with('-')
    };
    text.rsplit_once('@').is_some_and(|(local, host)| {
        !local.is_empty()
            && local.len() <= 64
            && local.chars().all(plain)
            && host.contains('.')
            && host.split('.').all(label)
    })
}

const NICKNAME: &[Check] = &[Check::Length(1, 64), Check::Plain];
const USERNAME: &[Check] = &[Check::Length(3, 20), Check::Username];
const EMAIL: &[Check] = &[Check::Length(3, 253), Check::Email];
const PHONE: &[Check] = &[Check::Phone];
const DESCRIPTION: &[Check] = &[Check::Length(0, 255), Check::Plain];
const NAMED: &[Check] = &[Check::Required, Check::Length(1, 253), Check::Name];
/// The name of a thing that is there: whether it is a good name was asked when it was made.
const GIVEN: &[Check] = &[Check::Required, Check::Length(1, 253)];
/// What is shown to be checked: an old rule may have let it in.
const SHOWN: &[Check] = &[Check::Required, Check::Length(1, 1024)];
const TOKEN: &[Check] = &[Check::Required, Check::Length(1, 8192)];
const PART: &[Check] = &[Check::Required, Check::Length(1, 253), Check::Plain];
/// The most objects on one page.
const PAGE: i64 = 1000;

/// What a user can be.
const STATUSES: &[&str] =
    &["registered", "actived", "locked", "blacklisted", "disabled", "need_active", "need_disable"];

macro_rules! rules {
    ($($package:ident::$message:ident { $($field:literal $value:expr => $checks:expr),* $(,)? })*) => {
        $(impl Rules for $package::$message {
            const NAME: &'static str = stringify!($message);
            const RULES: &'static [Rule<Self>] = &[$(Rule {
                field: $field,
                value: {
                    fn value(message: &$package::$message) -> Value<'_> {
                        let find: fn(&$package::$message) -> Value<'_> = $value;
                        find(message)
                    }
                    value
                },
                checks: $checks,
            }),*];
        })*

        /// The rules of the message of this name, by field. The objects of the apiserver have theirs there.
        #[must_use]
        pub fn constraints(message: &str) -> Vec<(&'static str, &'static [Check])> {
            let mut found: Vec<(&'static str, &'static [Check])> = Vec::new();
            $(if message == stringify!($message) {
                found.extend(<$package::$message as Rules>::RULES.iter().map(|rule| (rule.field, rule.checks)));
            })*
            found
        }
    };
}

rules! {
    v1::LoginRequest {
        "username" |m| Value::Text(&m.username) => &[Check::Required, Check::Length(1, 253)],
        "password" |m| Value::Text(&m.password) => SHOWN,
    }
    v1::LogoutRequest {}
    v1::RefreshTokenRequest {}
    v1::AuthenticateRequest { "token" |m| Value::Text(&m.token) => TOKEN }
    v1::AuthorizeRequest {
        "sub" |m| Value::Text(&m.sub) => PART,
        "obj" |m| Value::Text(&m.obj) => PART,
        "act" |m| Value::Text(&m.act) => PART,
    }
    v1::AuthRequest {
        "token" |m| Value::Text(&m.token) => TOKEN,
        "obj" |m| Value::Text(&m.obj) => PART,
        "act" |m| Value::Text(&m.act) => PART,
    }
    v1::ExplainRequest {
        "sub" |m| Value::Text(&m.sub) => PART,
        "obj" |m| Value::Text(&m.obj) => PART,
        "act" |m| Value::Text(&m.act) => PART,
    }
    v1::WatchRevisionRequest {}
    v1::CreateUserRequest {
        "username" |m| Value::Text(&m.username) => &[Check::Required, Check::Length(3, 20), Check::Username],
        "nickname" |m| Value::Text(&m.nickname) => NICKNAME,
        "password" |m| Value::Text(&m.password) => &[Check::Required, Check::Length(8, 128), Check::Password],
        "email" |m| Value::Text(&m.email) => EMAIL,
        "phone" |m| Value::Text(&m.phone) => PHONE,
    }
    v1::UpdateUserRequest {
        "userID" |m| Value::Text(&m.user_id) => GIVEN,
        "username" |m| Value::from(&m.username) => USERNAME,
        "nickname" |m| Value::from(&m.nickname) => NICKNAME,
        "email" |m| Value::from(&m.email) => EMAIL,
        "phone" |m| Value::from(&m.phone) => PHONE,
        "status" |m| Value::from(&m.status) => &[Check::OneOf(STATUSES)],
    }
    v1::DeleteUserRequest { "userID" |m| Value::Text(&m.user_id) => GIVEN }
    v1::GetUserRequest { "userID" |m| Value::Text(&m.user_id) => GIVEN }
    v1::ListUserRequest {
        "offset" |m| Value::Number(m.offset) => &[Check::Range(0, i64::MAX)],
        "limit" |m| Value::Number(m.limit) => &[Check::Range(0, PAGE)],
    }
    v1::UpdatePasswordRequest {
        "userID" |m| Value::Text(&m.user_id) => GIVEN,
        "username" |m| Value::Text(&m.username) => &[Check::Length(1, 253)],
        "oldPassword" |m| Value::Text(&m.old_password) => SHOWN,
        "newPassword" |m| Value::Text(&m.new_password) => &[Check::Required, Check::Length(8, 128), Check::Password],
    }
    v1::CreateSecretRequest {
        "name" |m| Value::Text(&m.name) => NAMED,
        "expires" |m| Value::Number(m.expires) => &[Check::Range(0, i64::MAX)],
        "description" |m| Value::Text(&m.description) => DESCRIPTION,
    }
    v1::UpdateSecretRequest {
        "name" |m| Value::Text(&m.name) => GIVEN,
        "expires" |m| m.expires.map_or(Value::Absent, Value::Number) => &[Check::Range(0, i64::MAX)],
        "status" |m| m.status.map_or(Value::Absent, |status| Value::Number(status.into())) => &[Check::Range(0, 1)],
        "description" |m| Value::from(&m.description) => DESCRIPTION,
    }
    v1::DeleteSecretRequest { "name" |m| Value::Text(&m.name) => GIVEN }
    v1::GetSecretRequest { "name" |m| Value::Text(&m.name) => GIVEN }
    v1::ListSecretRequest {
        "offset" |m| Value::Number(m.offset) => &[Check::Range(0, i64::MAX)],
        "limit" |m| Value::Number(m.limit) => &[Check::Range(0, PAGE)],
    }
    v1::CreatePolicyRequest {
        "policy" |m| if m.policy.is_some() { Value::Number(0) } else { Value::Absent } => &[Check::Required],
        "policy.ptype" |m| of(m, |p| &p.ptype) => &[Check::Required, Check::OneOf(&["p", "g"])],
        "policy.sub" |m| of(m, |p| &p.sub) => &[Check::Required, Check::Length(1, 100), Check::Plain],
        "policy.obj" |m| of_kind(m, "p", |p| &p.obj) => &[Check::Required, Check::Length(1, 100), Check::Plain, Check::Pattern],
        "policy.act" |m| of_kind(m, "p", |p| &p.act) => &[Check::Required, Check::Length(1, 100), Check::Plain, Check::Pattern],
        "policy.eft" |m| of_kind(m, "p", |p| &p.eft) => &[Check::Required, Check::OneOf(&["allow", "deny"])],
        "policy.role" |m| of_kind(m, "g", |p| &p.role) => &[Check::Required, Check::Length(1, 100), Check::Plain],
    }
    v1::DeletePolicyRequest { "policyID" |m| Value::Number(m.policy_id) => &[Check::Range(1, i64::MAX)] }
    v1::ListPolicyRequest {
        "offset" |m| Value::Number(m.offset) => &[Check::Range(0, i64::MAX)],
        "limit" |m| Value::Number(m.limit) => &[Check::Range(0, PAGE)],
        "sub" |m| Value::Text(&m.sub) => &[Check::Length(1, 100), Check::Plain],
    }
    gateway::GetVersionRequest {}
    gateway::IdempotentRequest {}
    gateway::DeleteMinerSetRequest { "name" |m| Value::Text(&m.name) => GIVEN }
    gateway::GetMinerSetRequest { "name" |m| Value::Text(&m.name) => GIVEN }
    gateway::ScaleMinerSetRequest {
        "name" |m| Value::Text(&m.name) => GIVEN,
        "replicas" |m| Value::Number(m.replicas.into()) => &[Check::Range(0, i32::MAX as i64)],
    }
    gateway::ListMinerSetRequest {
        "offset" |m| Value::Number(m.offset) => &[Check::Range(0, i64::MAX)],
        "limit" |m| Value::Number(m.limit) => &[Check::Range(0, PAGE)],
    }
    gateway::DeleteMinerRequest { "name" |m| Value::Text(&m.name) => GIVEN }
    gateway::GetMinerRequest { "name" |m| Value::Text(&m.name) => GIVEN }
    gateway::ListMinerRequest {
        "offset" |m| Value::Number(m.offset) => &[Check::Range(0, i64::MAX)],
        "limit" |m| Value::Number(m.limit) => &[Check::Range(0, PAGE)],
        "chainName" |m| Value::Text(&m.chain_name) => &[Check::Length(0, 253)],
        "phase" |m| Value::Text(&m.phase) => &[Check::Length(0, 45)],
    }
    gateway::DeleteChainRequest { "name" |m| Value::Text(&m.name) => GIVEN }
    gateway::GetChainRequest { "name" |m| Value::Text(&m.name) => GIVEN }
    gateway::ListChainRequest {
        "offset" |m| Value::Number(m.offset) => &[Check::Range(0, i64::MAX)],
        "limit" |m| Value::Number(m.limit) => &[Check::Range(0, PAGE)],
    }
    gateway::WatchRequest { "revision" |m| Value::Number(m.revision) => &[Check::Range(0, i64::MAX)] }
    apps::MinerSet {}
    apps::Miner {}
    apps::Chain {}
}

fn of(request: &v1::CreatePolicyRequest, field: fn(&v1::Policy) -> &String) -> Value<'_> {
    request.policy.as_ref().map_or(Value::Number(0), |policy| Value::Text(field(policy)))
}

/// A field that only policies of this kind have: the others are not asked for it.
fn of_kind<'a>(request: &'a v1::CreatePolicyRequest, kind: &str, field: fn(&v1::Policy) -> &String) -> Value<'a> {
    match &request.policy {
        Some(policy) if policy.ptype == kind => Value::Text(field(policy)),
        _ => Value::Number(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_breaks_exactly_the_rules_it_breaks() {
        let cases: &[(Check, &[&str], &[&str])] = &[
            (Check::Length(3, 5), &["abc", "äöüßé", ""], &["ab", "abcdef", &"x".repeat(4000)]),
            (Check::Username, &["a_1", "A"], &["a b", "a-b", "ä", "a@b"]),
            (Check::Password, &["abc1", "ж1"], &["abc", "123", "---"]),
            (
                Check::Email,
                &["a@b.c", "a.b+c@d-e.example.com"],
                &["a", "@b.c", "a@b", "a b@c.d", "a@.c", "a@b..c", "a@-b.c"],
            ),
            (Check::Phone, &["13800000000", "+4930123456", "12345"], &["1234", "138-0000", "+", "1234567890123456"]),
            (Check::Name, &["a", "a.b-c_1", "1"], &["-a", "_onex.io/temporary_key", "a/b", ".a", "a b"]),
            (Check::OneOf(&["a", "b"]), &["a", "b"], &["c", "ab"]),
            (Check::Plain, &["a b", "中文"], &["a\nb", "a\0"]),
            (Check::Pattern, &["*", "a*", "a"], &["*a", "a*b", "**"]),
        ];
        for (check, good, bad) in cases {
            for text in *good {
                assert!(!check.is_broken_by(Value::Text(text)), "{check:?} {text:?}");
            }
            for text in *bad {
                assert!(check.is_broken_by(Value::Text(text)), "{check:?} {text:?}");
            }
        }
        assert!(Check::Required.is_broken_by(Value::Text("")) && Check::Required.is_broken_by(Value::Absent));
        assert!(Check::Range(0, 1).is_broken_by(Value::Number(2)) && !Check::Range(0, 1).is_broken_by(Value::Absent));
    }

    #[test]
    fn all_violations_are_told_at_once_with_their_fields() {
        let request = v1::CreateUserRequest {
            username: "a!".into(),
            password: "short".into(),
            email: "nobody".into(),
            phone: "x".into(),
            ..Default::default()
        };
        let fields: Vec<String> = request.violations().into_iter().map(|violation| violation.field).collect();
        assert_eq!(fields, ["username", "username", "password", "password", "email", "phone"]);
        let body = crate::Error::invalid(request.violations()).body(Language::Chinese);
        assert_eq!(body.metadata["email"], "必须是有效的邮箱地址");
        assert!(body.message.starts_with("参数无效: username "), "{}", body.message);
    }
}
