//! Reading CEL so that no text can harm the reader, and finding what it refers to that is not there.

use std::collections::BTreeSet;

use kube_cel::cel::{
    IdedExpr, Program,
    common::ast::{EntryExpr, Expr},
};

use super::text;

/// The longest expression, in bytes.
pub const MOST_TEXT: usize = 8 * 1024;
/// So deep may an expression be.
const MOST_DEPTH: usize = 80;
/// What is no deeper than this is evaluated on the stack of the request: whoever evaluates calls itself as often.
const SHALLOW: usize = 12;
/// So many loops may stand inside of each other.
const MOST_LOOPS: usize = 3;
/// What a stack of its own has room for: the reader calls itself for every sign of a chain. Pages that are not used
/// cost nothing.
const STACK: usize = 256 * 1024 * 1024;

/// The names under which functions are kept.
pub const SPACES: [&str; 7] = ["base64", "format", "jsonpatch", "math", "optional", "sets", "strings"];

/// What a rule of a schema knows besides the variables of its loops.
pub const OF_RULES: &[&str] = &["self", "oldSelf", "apiVersion", "apiGroup", "kind"];
/// What a condition of a webhook knows.
pub const OF_CONDITIONS: &[&str] = &["object", "oldObject", "request", AUTHORIZER];

/// The variable that brings functions of its own.
pub const AUTHORIZER: &str = "authorizer";
const FUNCTIONS_OF_AUTHORIZER: &str = "allowed check error errored fieldSelector group labelSelector name namespace path \
    reason resource serviceAccount subresource";

/// The functions that there are, without the names under which they are kept.
const FUNCTIONS: &str = "abs add asApproximateFloat asInteger bitAnd bitNot bitOr bitShiftLeft bitShiftRight bitXor bytes ceil charAt \
    cidr compareTo contains containsCIDR containsIP date datetime decode distinct dns1035Label \
    dns1035LabelPrefix dns1123Label dns1123LabelPrefix dns1123Subdomain dns1123SubdomainPrefix double duration \
    encode endsWith equivalent escapeKey family find findAll first flatten floor format byte getDate \
    getDayOfMonth getDayOfWeek getDayOfYear getEscapedPath getFullYear getHost getHostname getHours \
    getMilliseconds getMinutes getMonth getPort getQuery getScheme getSeconds greatest hasValue indexOf int \
    intersects ip isCIDR isCIDRv4 isCIDRv6 isCanonical isFinite isGlobalUnicast isGreaterThan isIP isIPv4 isIPv6 \
    isInf isInteger isLessThan isLinkLocalMulticast isLinkLocalUnicast isLoopback isNaN isQuantity isSemver \
    isSorted isURL isUnspecified join labelValue last lastIndexOf least lowerAscii major masked matches max min \
    minor named none of ofNonZeroValue or orValue patch prefixLength qualifiedName quantity quote replace \
    reverse round semver sign size slice sort split sqrt startsWith string sub substring sum timestamp trim \
    trunc uint upperAscii uri url uuid validate value";

/// An expression that may be evaluated.
#[derive(Debug)]
pub struct Expression {
    /// What it says.
    pub root: IdedExpr,
    /// The known variables that it speaks of.
    pub variables: BTreeSet<&'static str>,
    /// Whether evaluating it may take more than the stack of a request has left.
    pub deep: bool,
}

/// Reads an expression in which variables are `known`, or says why it cannot be one.
pub fn read(text: &str, known: &'static [&'static str]) -> Result<Expression, String> {
    if text.len() > MOST_TEXT {
        return Err(format!("an expression must not be longer than {MOST_TEXT} bytes"));
    }
    let read = || {
        let program = Program::compile(&text::without_double_negation(text)).map_err(|errors| errors.to_string())?;
        let mut walk = Walk { known, ..Walk::default() };
        walk.expression(program.expression(), 0)?;
        let (variables, deep) = (walk.spoken, walk.deepest > SHALLOW);
        Ok(Expression { root: program.expression().clone(), variables, deep })
    };
    apart(read).unwrap_or_else(|| Err("Syntax error".to_owned()))
}

/// Does the work on a large stack of its own. What comes deep would take the stack of the request, and with it the whole
/// server. Nothing, if it panics or there is no room for a stack.
pub fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|scope| {
        let worker = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work).ok()?;
        worker.join().ok()
    })
}

/// The variables that are declared where the walk is, and how many loops stand around.
#[derive(Default)]
struct Walk<'a> {
    known: &'static [&'static str],
    /// Which of those were seen.
    spoken: BTreeSet<&'static str>,
    variables: Vec<&'a str>,
    loops: usize,
    deepest: usize,
}

impl<'a> Walk<'a> {
    fn expression(&mut self, expression: &'a IdedExpr, depth: usize) -> Result<(), String> {
        let depth = depth + 1;
        self.deepest = self.deepest.max(depth);
        if depth > MOST_DEPTH {
            return Err(format!("an expression must not be nested deeper than {MOST_DEPTH} levels"));
        }
        match &expression.expr {
            Expr::Unspecified => Err("Syntax error".to_owned()),
            Expr::Literal(_) => Ok(()),
            Expr::Ident(name) if self.variables.contains(&name.as_str()) => Ok(()),
            Expr::Ident(name) => {
                let known = self.known.iter().find(|known| *known == name).ok_or_else(|| undeclared(name))?;
                self.spoken.insert(known);
                Ok(())
            }
            Expr::Select(select) => self.expression(&select.operand, depth),
            Expr::List(list) => list.elements.iter().try_for_each(|element| self.expression(element, depth)),
            Expr::Map(map) => map.entries.iter().try_for_each(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => {
                    self.expression(&entry.key, depth)?;
                    self.expression(&entry.value, depth)
                }
                EntryExpr::StructField(field) => self.expression(&field.value, depth),
            }),
            Expr::Struct(made) => Err(undeclared(&made.type_name)),
            Expr::Call(call) => {
                let operator = !call.func_name.starts_with(|c: char| c.is_ascii_alphabetic());
                let is_one_of =
                    |functions: &str| functions.split_ascii_whitespace().any(|known| known == call.func_name);
                let of_authorizer = || self.known.contains(&AUTHORIZER) && is_one_of(FUNCTIONS_OF_AUTHORIZER);
                if !operator && !is_one_of(FUNCTIONS) && !of_authorizer() {
                    return Err(undeclared(&call.func_name));
                }
                if let Some(target) = call.target.as_deref().filter(|target| !self.is_space(target)) {
                    self.expression(target, depth)?;
                }
                call.args.iter().try_for_each(|argument| self.expression(argument, depth))
            }
            Expr::Comprehension(each) => {
                self.expression(&each.iter_range, depth)?;
                self.expression(&each.accu_init, depth)?;
                let before = self.variables.len();
                self.loops += 1;
                if self.loops > MOST_LOOPS {
                    return Err("estimated rule cost exceeds budget: too many loops inside of each other".to_owned());
                }
                self.variables.extend([each.iter_var.as_str(), each.accu_var.as_str()]);
                self.variables.extend(each.iter_var2.as_deref());
                for part in [&each.loop_cond, &each.loop_step, &each.result] {
                    self.expression(part, depth)?;
                }
                self.loops -= 1;
                self.variables.truncate(before);
                Ok(())
            }
        }
    }

    fn declares(&self, name: &str) -> bool {
        self.known.contains(&name) || self.variables.contains(&name)
    }

    /// Whether this is the name under which a function is kept, and no value.
    fn is_space(&self, target: &IdedExpr) -> bool {
        match &target.expr {
            Expr::Ident(name) => !self.declares(name) && (SPACES.contains(&name.as_str()) || name == "ip"),
            _ => false,
        }
    }
}

fn undeclared(name: &str) -> String {
    format!("undeclared reference to '{name}' (in container '')")
}

#[cfg(test)]
mod tests {
    use kube_cel::cel::{Context, Value};

    use super::*;

    fn read(text: &str) -> Result<Expression, String> {
        super::read(text, OF_RULES)
    }

    #[test]
    fn no_text_harms_the_reader() {
        let texts = [
            format!("{}1{} == 1", "(".repeat(4000), ")".repeat(4000)),
            format!("r'\\' == '' || {}true{} || r'\\' == ''", "(".repeat(4000), ")".repeat(4000)),
            "[".repeat(8000),
            format!("{}true", "!".repeat(8000)),
            format!("{}1 == 1", "-".repeat(8000)),
            format!("self{}", ".a".repeat(4000)),
            format!("self{}", "[0]".repeat(2600)),
            format!("1{} == 1", "+1".repeat(4000)),
            format!("{}1{}", "size(".repeat(1600), ")".repeat(800)),
            format!("{}true", "true?true:".repeat(800)),
            "true&&".repeat(1300),
            format!("self{} == 1", ".a()".repeat(2000)),
            "{".repeat(8000),
            "'".repeat(7),
            "\0".to_owned(),
        ];
        for text in texts {
            let taken = read(&text).is_ok();
            assert_eq!(taken, text.starts_with("!!") || text.starts_with("--"), "{text:.40}"); // which cancel each other out
        }
        assert!(read(&"x".repeat(MOST_TEXT + 1)).is_err());
    }

    #[test]
    fn what_is_taken_can_be_evaluated() {
        let evaluate = |text: &str| {
            let program = Program::compile(text).expect("it was read before");
            let _ = program.execute(&Context::default());
        };
        let deep = |text: &(dyn Fn(usize) -> String + Sync)| {
            let taken = |wanted: bool| {
                let fits = |text: &String| read(text).is_ok_and(|read| read.deep == wanted);
                (1..200).rev().map(text).find(fits)
            };
            evaluate(&taken(false).expect("what is short is shallow"));
            if let Some(deepest) = taken(true) {
                assert!(apart(|| evaluate(&deepest)).is_some(), "{deepest:.40}");
            }
        };
        deep(&|depth| format!("1{} == 1", "+1".repeat(depth)));
        deep(&|depth| format!("size({}{}) == 1", "[".repeat(depth), "]".repeat(depth)));
        deep(&|depth| format!("{}true{}", "true ? ".repeat(depth), " : false".repeat(depth)));
        deep(&|depth| format!("{{'a': 1}}{} == 1", ".a".repeat(depth)));
        deep(&|depth| format!("{}1{} == 1", "string(".repeat(depth), ")".repeat(depth)));
    }

    #[test]
    fn nothing_is_read_as_its_opposite() {
        for (text, result) in [
            ("!!true", true),
            ("! !\n!true", false),
            ("!(!true)", true),
            ("--1 == 1", true),
            ("3 - -1 == 4 && 3 --1 == 4", true),
            ("- - -1 == -1", true),
            ("true != !true", true),
        ] {
            let expression = read(text).unwrap_or_else(|why| panic!("{text}: {why}"));
            let said = Value::resolve(&expression.root, &Context::default());
            assert_eq!(said, Ok(Value::Bool(result)), "{text}");
        }
    }

    #[test]
    fn what_is_not_there_is_told() {
        for (text, name) in [
            ("nobody.a == 1", "nobody"),
            ("self.nonsense(1)", "nonsense"),
            ("self.all(a, a > 1) && a > 1", "a"),
            ("size(lists.range(3)) > 0", "range"),
            ("Foo{a: 1}.a == 1", "Foo"),
        ] {
            assert_eq!(read(text).err(), Some(format!("undeclared reference to '{name}' (in container '')")), "{text}");
        }
        for text in [
            "sets.contains(self.a, ['x'])",
            "math.greatest(self.a, 2) > 1",
            "self.l.all (a, a > 1)",
            "quantity(self.a).isLessThan(quantity('1Gi')) && isIP(self.b) && ip.isCanonical(self.b)",
            "oldSelf.orValue(self) == self",
            "has(self.a) ? self.a.matches('^x$') : !format.dns1123Label().validate(self.b).hasValue()",
        ] {
            assert!(read(text).is_ok(), "{text}: {:?}", read(text).err());
        }
    }
}
