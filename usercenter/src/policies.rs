//! Policies, as administrators manage them.

use onex_db::accounts::PolicyRow;
use onex_proto::usercenter as v1;
use onex_proto::{Error, Reason, Violation};

use crate::Usercenter;
use crate::call::Call;
use crate::policy::{Line, Policies};
use crate::users::ADMIN_ID;
use crate::writing::{line_of, row_of, unavailable};

/// What policies are, as an object of policies.
const OBJECT: &str = "policies";

impl Usercenter {
    pub(crate) async fn create_policy(
        &self,
        call: &Call,
        request: v1::CreatePolicyRequest,
    ) -> Result<v1::CreatePolicyResponse, Error> {
        self.hold_policies(call, "CreatePolicy").await?;
        let line = line(request.policy.unwrap_or_default())?;
        let mut writing = self.0.writing().await?;
        let number = match writing.add(&line).await {
            Ok(number) => number,
            Err(onex_db::Error::Taken(_)) => return Err(Error::new(Reason::PolicyAlreadyExists, "policy.exists")),
            Err(error) => return Err(unavailable(&error)),
        };
        self.hold_administrable(|policies| policies.insert(number, &line), |policies| policies.remove(&line))?;
        writing.commit("").await?;
        Ok(v1::CreatePolicyResponse { policy_id: number })
    }

    pub(crate) async fn delete_policy(
        &self,
        call: &Call,
        request: v1::DeletePolicyRequest,
    ) -> Result<v1::DeletePolicyResponse, Error> {
        self.hold_policies(call, "DeletePolicy").await?;
        let mut writing = self.0.writing().await?;
        let row = writing.change.remove_policy(request.policy_id).await.map_err(|error| unavailable(&error))?;
        let row = row.ok_or_else(|| Error::new(Reason::PolicyNotFound, "policy.not.found"))?;
        if let Some(line) = line_of(&row) {
            self.hold_administrable(|policies| policies.remove(&line), |policies| policies.insert(row.id, &line))?;
        }
        writing.removed([row]);
        writing.commit("").await?;
        Ok(v1::DeletePolicyResponse {})
    }

    pub(crate) async fn list_policy(
        &self,
        call: &Call,
        request: v1::ListPolicyRequest,
    ) -> Result<v1::ListPolicyResponse, Error> {
        self.hold_policies(call, "ListPolicy").await?;
        let sub = Some(request.sub.as_str()).filter(|sub| !sub.is_empty());
        let page = self.0.accounts.policies(sub, request.offset, self.limit(request.limit)).await;
        let page = page.map_err(|error| unavailable(&error))?;
        Ok(v1::ListPolicyResponse { total: page.total, policies: page.rows.into_iter().map(told).collect() })
    }

    async fn hold_policies(&self, call: &Call, name: &str) -> Result<(), Error> {
        let caller = self.caller(call).await?;
        if self.allows(&caller.user_id, OBJECT, name) {
            return Ok(());
        }
        Err(Error::new(Reason::Forbidden, "no.permission"))
    }

    /// Tries a change of the policies, under the eyes of nobody, and takes it back: the administrator must still be able to undo
    /// it afterwards.
    fn hold_administrable(
        &self,
        change: impl FnOnce(&mut Policies),
        undo: impl FnOnce(&mut Policies),
    ) -> Result<(), Error> {
        let can = |policies: &Policies| {
            ["CreatePolicy", "DeletePolicy", "ListPolicy"]
                .iter()
                .all(|name| policies.allow(ADMIN_ID, OBJECT, &crate::operation(name)))
        };
        let mut policies = self.0.policies.write();
        let could = can(&policies);
        change(&mut policies);
        let still = can(&policies);
        undo(&mut policies);
        // Where it is so already, whoever may do this may be the one to mend it.
        if still || !could { Ok(()) } else { Err(Error::new(Reason::PolicyLocksOut, "policy.locks.out")) }
    }
}

fn line(policy: v1::Policy) -> Result<Line, Error> {
    let absent: &[(&str, bool)] = match policy.ptype.as_str() {
        "p" => &[("policy.role", policy.role.is_empty())],
        _ => &[
            ("policy.obj", policy.obj.is_empty()),
            ("policy.act", policy.act.is_empty()),
            ("policy.eft", policy.eft.is_empty()),
        ],
    };
    let wrong = absent.iter().filter(|(_, empty)| !empty).map(|(field, _)| Violation::new(field, "rule.absent"));
    let mut wrong: Vec<Violation> = wrong.collect();
    if policy.policy_id != 0 {
        wrong.push(Violation::new("policy.policyID", "rule.absent"));
    }
    if !wrong.is_empty() {
        return Err(Error::invalid(wrong));
    }
    Ok(match policy.ptype.as_str() {
        "p" => Line::Policy { sub: policy.sub, obj: policy.obj, act: policy.act, deny: policy.eft == "deny" },
        _ => Line::Role { sub: policy.sub, role: policy.role },
    })
}

fn told(row: PolicyRow) -> v1::Policy {
    let [sub, second, act, eft] = row.words;
    let (obj, role) = if row.ptype == "g" { (String::new(), second) } else { (second, String::new()) };
    v1::Policy { policy_id: row.id, ptype: row.ptype, sub, obj, act, eft, role }
}

/// A line with its number, as it is told.
pub fn told_line(number: i64, line: &Line) -> v1::Policy {
    told(PolicyRow { id: number, ..row_of(line) })
}
