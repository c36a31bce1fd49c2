//! What people are told, in English and in Chinese.

/// A language that people are spoken to in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Language {
    /// English, for whoever asks for nothing that we speak.
    #[default]
    English,
    /// Chinese.
    Chinese,
}

impl Language {
    /// The language of ours that `accept_language` likes best.
    ///
    /// ```
    /// use onex_proto::Language;
    /// assert_eq!(Language::preferred("zh-CN,zh;q=0.9,en;q=0.8"), Language::Chinese);
    /// assert_eq!(Language::preferred("fr, zh;q=0.2, en;q=0.7"), Language::English);
    /// assert_eq!(Language::preferred("zh;q=0, *"), Language::English);
    /// ```
    #[must_use]
    pub fn preferred(accept_language: &str) -> Self {
        let mut best = (0.0, Self::English);
        // Nobody speaks more languages than that, and a header may be long.
        for item in accept_language.split(',').take(16) {
            let mut parts = item.split(';').map(str::trim);
            let tag = parts.next().unwrap_or_default();
            let weight = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok()).unwrap_or(1.0);
            let language = match tag.split('-').next().unwrap_or_default().to_ascii_lowercase().as_str() {
                "en" | "*" => Self::English,
                "zh" => Self::Chinese,
                _ => continue,
            };
            if weight > best.0 {
                best = (weight, language);
            }
        }
        best.1
    }
}

/// Each text: its name, and what it is in English and in Chinese. `{}` are gaps to be filled in order.
const TEXTS: &[(&str, &str, &str)] = &[
    ("too.many.requests", "Too many requests, try again later", "请求过于频繁，请稍后再试"),
    ("record.not.found", "Record not found", "记录不存在"),
    ("no.permission", "No permission", "没有权限"),
    ("login.failed", "Incorrect username or password", "用户名或密码错误"),
    ("login.same.password", "The new password is the same as the old one", "新密码与旧密码相同"),
    ("login.user.locked", "Too many failed logins, try again in {} seconds", "登录失败次数过多，请在 {} 秒后重试"),
    ("jwt.token.missing", "The token is missing", "缺少令牌"),
    ("jwt.token.invalid", "The token is invalid", "令牌无效"),
    ("jwt.token.expired", "The token has expired", "令牌已过期"),
    ("user.list.unauthorized", "Only administrators may list users", "只有管理员可以列出用户"),
    ("user.operation.forbidden", "The operation on this user is not allowed", "不允许对该用户执行此操作"),
    ("user.exists", "The user already exists", "用户已存在"),
    ("user.not.found", "The user was not found", "用户不存在"),
    ("user.create.failed", "The user could not be created", "创建用户失败"),
    ("user.registration.closed", "Users are registered by administrators only", "仅管理员可以注册用户"),
    ("secret.too.many", "There are {} secrets already, which is the most one may have", "密钥数量已达上限 {}"),
    ("secret.exists", "A secret of this name exists already", "同名密钥已存在"),
    ("secret.not.found", "The secret was not found", "密钥不存在"),
    ("secret.create.failed", "The secret could not be created", "创建密钥失败"),
    ("policy.exists", "The policy exists already", "策略已存在"),
    ("policy.not.found", "The policy was not found", "策略不存在"),
    ("policy.locks.out", "No administrator could manage policies any more", "此操作将使管理员无法再管理策略"),
    ("parameter.invalid", "Invalid parameters", "参数无效"),
    ("codec", "The request cannot be read: {}", "无法解析请求：{}"),
    ("page.not.found", "The page does not exist", "页面不存在"),
    ("method.not.allowed", "The page does not take this method", "不支持该请求方法"),
    ("body.too.large", "The body is longer than {} bytes", "请求体超过 {} 字节"),
    ("internal", "Something went wrong here", "服务内部错误"),
    ("unavailable", "Something that is needed cannot be reached, try again later", "依赖的服务暂不可用，请稍后再试"),
    ("timeout", "It took too long", "处理超时"),
    ("conflict", "It was changed by somebody else meanwhile", "数据已被他人修改"),
    ("idempotent.token.missing", "The idempotency token is missing", "缺少幂等令牌"),
    ("idempotent.token.invalid", "The idempotency token is unknown or used up", "幂等令牌无效或已使用"),
    // Rules of fields.
    ("rule.required", "must be given", "不能为空"),
    ("rule.length", "must have {} to {} characters", "长度必须为 {} 到 {} 个字符"),
    ("rule.username", "must consist of letters, digits and underscores", "只能包含字母、数字和下划线"),
    ("rule.password", "must have a letter and a digit", "必须同时包含字母和数字"),
    ("rule.email", "must be an e-mail address", "必须是有效的邮箱地址"),
    ("rule.phone", "must be a phone number, as in 13800000000 or +4930123456", "必须是有效的电话号码"),
    (
        "rule.name",
        "must consist of letters, digits, '.', '-' and '_', with a letter or digit first",
        "只能包含字母、数字、'.'、'-' 和 '_'，且以字母或数字开头",
    ),
    ("rule.one.of", "must be one of: {}", "必须是以下之一：{}"),
    ("rule.range", "must be from {} to {}", "必须在 {} 到 {} 之间"),
    ("rule.plain", "must not have control characters", "不能包含控制字符"),
    ("rule.pattern", "may have '*' at its end only", "'*' 只能出现在末尾"),
    ("rule.future", "must be in the future, or 0", "必须晚于当前时间，或为 0"),
    ("rule.reserved", "is reserved", "为保留名称"),
    ("rule.absent", "must not be given here", "此处不能指定"),
    // Why something is allowed or denied.
    ("decision.denied", "policy {} denies it", "策略 {} 拒绝"),
    ("decision.allowed", "policy {} allows it, and none denies it", "策略 {} 允许，且没有策略拒绝"),
    ("decision.silent", "no policy allows it", "没有策略允许"),
];

fn find(name: &str) -> Option<&'static (&'static str, &'static str, &'static str)> {
    TEXTS.iter().find(|(key, _, _)| *key == name)
}

/// Whether there is such a text.
pub fn exists(name: &str) -> bool {
    find(name).is_some()
}

/// The text named `name`, its gaps filled. A name without a text stands for itself.
pub fn fill(name: &str, language: Language, arguments: &[String]) -> String {
    let template = match (find(name), language) {
        (Some((_, english, _)), Language::English) => english,
        (Some((_, _, chinese)), Language::Chinese) => chinese,
        (None, _) => name,
    };
    let mut arguments = arguments.iter();
    let mut pieces = template.split("{}");
    let mut text = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        text.push_str(arguments.next().map_or("", String::as_str));
        text.push_str(piece);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_languages_have_the_same_gaps_and_no_text_is_there_twice() {
        for (place, (name, english, chinese)) in TEXTS.iter().enumerate() {
            assert_eq!(english.matches("{}").count(), chinese.matches("{}").count(), "{name}");
            assert!(!TEXTS[..place].iter().any(|(other, _, _)| other == name), "{name} is there twice");
            assert!(!chinese.is_ascii(), "{name} is not translated");
        }
    }
}
