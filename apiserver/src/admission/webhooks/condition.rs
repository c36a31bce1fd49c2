//! `matchConditions`: what must hold of a write before a webhook is asked about it.

use std::{collections::HashSet, sync::Arc};

use kube_cel::{
    KubeCelExt,
    cel::{Context, Value as Cel},
};
use onex_crds::{Invalid, Problem};
use serde_json::Value;

use super::question::{self, Asked};
use crate::{
    admission::Review,
    authz::Authorizer,
    cel::{
        self, authorizer, cost,
        expression::{self, AUTHORIZER, Expression, OF_CONDITIONS},
        fields::{self, Type},
    },
    meta,
};

/// A webhook has no more conditions than this.
const MOST: usize = 64;

/// What is wrong with the conditions of a webhook.
pub fn check(conditions: &[Value], at: &str, wrong: &mut Vec<Invalid>) {
    if conditions.len() > MOST {
        wrong
            .push(Invalid { field: at.to_owned(), problem: Problem::TooMany { actual: conditions.len(), most: MOST } });
        return;
    }
    let mut names = HashSet::new();
    for (index, condition) in conditions.iter().enumerate() {
        let text = |field: &str| condition[field].as_str().unwrap_or_default();
        let (at, name, says) = (format!("{at}[{index}]"), text("name"), text("expression").trim());
        let field = format!("{at}.expression");
        if says.is_empty() {
            wrong.push(Invalid::required(field, ""));
        } else if let Err(why) = read(says) {
            wrong.push(Invalid::value(field, says, why));
        }
        let field = format!("{at}.name");
        if name.is_empty() {
            wrong.push(Invalid::required(field, ""));
            continue;
        }
        wrong.extend(meta::qualified_name(name).into_iter().map(|why| Invalid::value(&field, name, why)));
        if !names.insert(name) {
            wrong.push(Invalid { field, problem: Problem::Duplicate(name.into()) });
        }
    }
}

fn read(text: &str) -> Result<Expression, String> {
    let read = expression::read(text, OF_CONDITIONS).map_err(|why| format!("compilation failed: {why}"))?;
    match fields::is_never(&read.root, Type::Bool) {
        true => Err("must evaluate to bool".to_owned()),
        false => Ok(read),
    }
}

/// The conditions of one webhook.
pub struct Conditions {
    all: Vec<(String, Expression)>,
}

impl Conditions {
    /// Of a webhook in which nothing is wrong.
    pub fn of(hook: &Value) -> Self {
        let conditions = hook["matchConditions"].as_array().into_iter().flatten();
        let texts = conditions.filter_map(|condition| condition["expression"].as_str().map(str::trim));
        Self { all: texts.filter_map(|text| Some((text.to_owned(), read(text).ok()?))).collect() }
    }

    /// Whether all hold. One that does not decides, whatever others fail at; otherwise an error says what failed.
    pub fn hold(&self, asked: &Asked, review: &Review<'_>, authorizer: &Arc<Authorizer>) -> Result<bool, String> {
        if self.all.is_empty() {
            return Ok(true);
        }
        let request = asked.about(review);
        let variables = [("object", asked.object.as_ref()), ("oldObject", asked.old()), ("request", Some(&request))];
        let steps = self.all.iter().map(|(_, condition)| cost::steps(&condition.root, &variables));
        if steps.fold(0, u64::saturating_add) > cost::MOST_STEPS {
            return Err(
                "validation failed due to running out of cost budget, no further validation rules will be run".into()
            );
        }
        let evaluate = || {
            let mut context = Context::default();
            context.register_all();
            let is_spoken_of = |name: &str| self.all.iter().any(|(_, condition)| condition.variables.contains(name));
            for (name, value) in variables.into_iter().filter(|(name, _)| is_spoken_of(name)) {
                context.add_variable_from_value(name, value.map_or(Cel::Null, cel::value));
            }
            if is_spoken_of(AUTHORIZER) {
                authorizer::declare(&mut context, authorizer, review.user, question::resource(review));
            }
            self.evaluate(&context)
        };
        let is_deep = self.all.iter().any(|(_, condition)| condition.deep);
        cel::guarded(is_deep, evaluate)
            .unwrap_or_else(|| Err("a condition cannot be evaluated on this object".to_owned()))
    }

    fn evaluate(&self, context: &Context<'_>) -> Result<bool, String> {
        let mut failed = Vec::new();
        for (text, condition) in &self.all {
            match Cel::resolve(&condition.root, context) {
                Ok(Cel::Bool(true)) => {}
                Ok(Cel::Bool(false)) => return Ok(false),
                Ok(other) => failed.push(format!("expression '{text}' resulted in {}, not in a bool", other.type_of())),
                Err(error) => failed.push(format!("expression '{text}' resulted in error: {error}")),
            }
        }
        match failed.as_slice() {
            [] => Ok(true),
            [one] => Err(one.clone()),
            many => Err(format!("[{}]", many.join(", "))),
        }
    }
}
