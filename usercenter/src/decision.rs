//! May they? Decided, recorded, and then told.

use onex_audit::{Decision, Object, Record, User};
use onex_proto::usercenter as v1;
use onex_proto::{Error, Language, Reason};
use serde_json::json;

use crate::Usercenter;
use crate::call::Call;
use crate::policies::told_line;
use crate::policy::{Explanation, Line};
use crate::users::object;
use crate::writing::row_of;

/// The matcher of the model, as Casbin writes it into its records.
const MATCHER: &str = "g(r_sub, p_sub) && keyMatch(r_obj, p_obj) && keyMatch(r_act, p_act)";

impl Usercenter {
    pub(crate) async fn authenticate(
        &self,
        _: &Call,
        request: v1::AuthenticateRequest,
    ) -> Result<v1::AuthenticateResponse, Error> {
        Ok(v1::AuthenticateResponse { user_id: self.holder(&request.token).await?.user_id })
    }

    pub(crate) async fn authorize(
        &self,
        call: &Call,
        request: v1::AuthorizeRequest,
    ) -> Result<v1::AuthorizeResponse, Error> {
        self.hold_about(call, &request.sub, "Authorize").await?;
        let allowed = self.decide(call, &request.sub, &request.obj, &request.act).await?;
        Ok(v1::AuthorizeResponse { allowed })
    }

    pub(crate) async fn auth(&self, call: &Call, request: v1::AuthRequest) -> Result<v1::AuthResponse, Error> {
        let user_id = self.holder(&request.token).await?.user_id;
        let allowed = self.decide(call, &user_id, &request.obj, &request.act).await?;
        Ok(v1::AuthResponse { user_id, allowed })
    }

    pub(crate) async fn explain(&self, call: &Call, request: v1::ExplainRequest) -> Result<v1::ExplainResponse, Error> {
        self.hold_about(call, &request.sub, "Explain").await?;
        let why = self.0.policies.read().explain(&request.sub, &request.obj, &request.act);
        let reason = reason(&why, call.language);
        let policies = why.lines.iter().map(|(number, line)| told_line(*number, line)).collect();
        Ok(v1::ExplainResponse { allowed: why.allowed, reason, roles: why.roles, policies })
    }

    /// One may ask about oneself; the platform and administrators may ask about everybody.
    async fn hold_about(&self, call: &Call, sub: &str, name: &str) -> Result<(), Error> {
        if call.is_of_the_platform() {
            return Ok(());
        }
        let caller = self.caller(call).await?;
        if caller.user_id == sub || self.allows(&caller.user_id, &object(sub), name) {
            return Ok(());
        }
        Err(Error::new(Reason::Forbidden, "no.permission"))
    }

    /// Decides, and does not tell what could not be recorded.
    async fn decide(&self, call: &Call, sub: &str, obj: &str, act: &str) -> Result<bool, Error> {
        let Some(log) = self.0.audit.as_ref().filter(|_| self.0.settings.audit) else {
            return Ok(self.0.policies.read().allow(sub, obj, act));
        };
        let why = self.0.policies.read().explain(sub, obj, act);
        let record = record(call, (self.0.clock)(), [sub, obj, act], &why);
        log.append(&[record]).await.map_err(|error| {
            tracing::warn!(%error, "a decision could not be recorded");
            Error::new(Reason::Unavailable, "unavailable")
        })?;
        Ok(why.allowed)
    }
}

fn reason(why: &Explanation, language: Language) -> String {
    let text = match (why.lines.first(), why.allowed) {
        (Some((number, _)), true) => Error::new(Reason::Forbidden, "decision.allowed").with(number),
        (Some((number, _)), false) => Error::new(Reason::Forbidden, "decision.denied").with(number),
        (None, _) => Error::new(Reason::Forbidden, "decision.silent"),
    };
    text.body(language).message
}

/// The record of a decision. Its details have the form in which OneX records them, with the result always there.
fn record(call: &Call, now: i64, [sub, obj, act]: [&str; 3], why: &Explanation) -> Record {
    let explains: Vec<Vec<String>> = why.lines.iter().map(|(_, line)| words(line)).collect();
    let time = jiff::Timestamp::from_microsecond(now).unwrap_or_default();
    Record {
        id: Record::new_id(),
        time,
        component: "usercenter".to_owned(),
        user: User { name: sub.to_owned(), uid: String::new(), groups: why.roles.iter().skip(1).cloned().collect() },
        impersonated: None,
        verb: act.to_owned(),
        object: Object { path: obj.to_owned(), ..Object::default() },
        decision: if why.allowed { Decision::Allow } else { Decision::Deny },
        reason: reason(why, Language::English),
        code: 0,
        source: vec![call.address.clone()],
        agent: call.agent.clone(),
        request_id: call.trace.clone(),
        details: json!({
            "matcher": MATCHER,
            "request": [sub, obj, act],
            "result": why.allowed,
            "explains": explains,
            "timestamp": time.as_second(),
        }),
    }
}

fn words(line: &Line) -> Vec<String> {
    row_of(line).words.into_iter().filter(|word| !word.is_empty()).collect()
}
