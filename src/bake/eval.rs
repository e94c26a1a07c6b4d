//! Evaluation of expressions.
//!
//! [`Scope`] is what an expression sees: names of its own (of a matrix, a `for`, a
//! function's parameters) and those of the bake file ([`Names`]), which are evaluated when
//! they are met. Source: <https://github.com/hashicorp/hcl/blob/main/hclsyntax/spec.md>.

use std::{cell::Cell, collections::BTreeMap, ops::Range};

use hcl_edit::{
    Number as HclNumber, Span as _,
    expr::{
        BinaryOp, BinaryOperator, Expression, ForExpr, FuncCall, ObjectKey, Traversal,
        TraversalOperator, UnaryOp, UnaryOperator,
    },
};

use super::{
    convert::{self, convert},
    error::{AtPlace as _, Fault, Place, Problem},
    functions,
    syntax::{Expr, JsonExpr, JsonKind},
    template, type_constraint,
    value::{Number, Value},
};

/// How deep expressions may be nested, through references and calls.
const MAX_DEPTH: usize = 800;

/// Stack that is enough for it.
pub(super) const STACK: usize = 128 << 20;

/// What the bake file defines.
pub(super) trait Names {
    /// The value of a variable or a global attribute.
    fn variable(&self, name: &str) -> Result<Option<Value>, Fault>;
    /// Whether blocks of this kind can be referred to.
    fn is_block(&self, kind: &str) -> bool;
    /// An attribute of a block, or all of them.
    fn block(&self, kind: &str, name: &str, attribute: Option<&str>) -> Result<Value, Fault>;
    /// Calls a function of the bake file; none if it defines no such function.
    fn call(&self, name: &str, args: &[Value]) -> Result<Option<Value>, Fault>;
    /// How deep the evaluation is, in expressions.
    fn depth(&self) -> &Cell<usize>;
    /// What the functions know of the outside.
    fn outside(&self) -> &functions::Outside;
    /// Names near to `name`, for a hint.
    fn near_variable(&self, name: &str) -> Option<String>;
    /// Names near to `name`, for a hint.
    fn near_function(&self, name: &str) -> Option<String>;
}

/// What an expression sees.
pub(super) struct Scope<'a> {
    pub(super) names: &'a dyn Names,
    /// Names of its own, the innermost last.
    pub(super) locals: Vec<(String, Value)>,
    /// The file it stands in.
    pub(super) file: usize,
    /// The place of everything, where the text isn't that of the file: a JSON string.
    pub(super) fixed: Option<Range<usize>>,
    /// What is left of the work that one expression may make.
    pub(super) fuel: Cell<usize>,
}

/// Elements that the evaluation of one expression may look at.
const FUEL: usize = 500_000;

impl<'a> Scope<'a> {
    pub(super) fn new(names: &'a dyn Names, place: &Place) -> Self {
        Self {
            names,
            locals: Vec::new(),
            file: place.file,
            fixed: None,
            fuel: Cell::new(FUEL),
        }
    }

    /// The same with more names.
    pub(super) fn with(&self, more: impl IntoIterator<Item = (String, Value)>) -> Self {
        let mut locals = self.locals.clone();
        locals.extend(more);
        Self {
            names: self.names,
            locals,
            file: self.file,
            fixed: self.fixed.clone(),
            fuel: self.fuel.clone(),
        }
    }

    pub(super) fn place(&self, range: Option<Range<usize>>) -> Place {
        let range = match &self.fixed {
            Some(fixed) => fixed.clone(),
            None => range.unwrap_or_default(),
        };
        Place {
            file: self.file,
            range,
        }
    }

    /// Takes `amount` from what is left.
    pub(super) fn burn(&self, amount: usize) -> Result<(), Fault> {
        match self.fuel.get().checked_sub(amount) {
            Some(left) => {
                self.fuel.set(left);
                Ok(())
            }
            None => Err(Problem::TooLarge { limit: FUEL }.into()),
        }
    }
}

/// The value of `expr`.
pub(super) fn evaluate(expr: &Expr, scope: &Scope<'_>) -> Result<Value, Fault> {
    match expr {
        Expr::Hcl(expr) => expression(expr, scope),
        Expr::Json(expr) => json(expr, scope),
    }
}

fn json(expr: &JsonExpr, scope: &Scope<'_>) -> Result<Value, Fault> {
    Ok(match &expr.kind {
        JsonKind::Null => Value::NULL,
        JsonKind::Bool(value) => Value::Bool(*value),
        JsonKind::Number(text) => match Number::parse(text) {
            Some(number) => Value::Number(number),
            None => Value::NULL,
        },
        JsonKind::Text(text) => Value::text(text),
        JsonKind::Template(template) => {
            let mut inner = scope.with([]);
            inner.fixed = Some(expr.range.clone());
            let value = template::evaluate(template, &inner);
            value.at(&scope.place(Some(expr.range.clone())))?
        }
        JsonKind::Array(values) => {
            let values: Result<_, _> = values.iter().map(|v| json(v, scope)).collect();
            Value::Tuple(values?)
        }
        JsonKind::Object(entries) => {
            let mut out = BTreeMap::new();
            for (key, value) in entries {
                let place = scope.place(Some(key.range.clone()));
                let key = convert::string(&json(key, scope)?).at(&place)?;
                out.insert(key, json(value, scope)?);
            }
            Value::Object(out)
        }
    })
}

/// The value of an HCL expression; failures know their place.
pub(super) fn expression(expr: &Expression, scope: &Scope<'_>) -> Result<Value, Fault> {
    let depth = scope.names.depth();
    if depth.get() >= MAX_DEPTH {
        return Err(Problem::TooDeep { limit: MAX_DEPTH }.into());
    }
    depth.set(depth.get() + 1);
    let value = value(expr, scope);
    depth.set(depth.get() - 1);
    value.map_err(|fault| fault.at(&scope.place(expr.span())))
}

fn value(expr: &Expression, scope: &Scope<'_>) -> Result<Value, Fault> {
    match expr {
        Expression::Null(_) => Ok(Value::NULL),
        Expression::Bool(value) => Ok(Value::Bool(*value.value())),
        Expression::Number(number) => number_literal(number.value()),
        Expression::String(text) => Ok(Value::text(text.value())),
        Expression::StringTemplate(text) => template::evaluate(text, scope),
        Expression::HeredocTemplate(text) => template::heredoc(text, scope),
        Expression::Parenthesis(inner) => expression(inner.inner(), scope),
        Expression::Variable(name) => variable(name.as_str(), scope),
        Expression::Traversal(traversal) => traverse(traversal, scope),
        Expression::Array(values) => {
            let values: Result<_, _> = values.iter().map(|v| expression(v, scope)).collect();
            values.map(Value::Tuple)
        }
        Expression::Object(object) => {
            let mut out = BTreeMap::new();
            for (key, value) in object {
                let key = object_key(key, scope)?;
                out.insert(key, expression(value.expr(), scope)?);
            }
            Ok(Value::Object(out))
        }
        Expression::Conditional(conditional) => {
            let condition = expression(&conditional.cond_expr, scope)?;
            let condition =
                convert::bool(&condition).at(&scope.place(conditional.cond_expr.span()))?;
            choose(
                condition,
                expression(&conditional.true_expr, scope),
                expression(&conditional.false_expr, scope),
            )
        }
        Expression::UnaryOp(op) => unary(op, scope),
        Expression::BinaryOp(op) => binary(op, scope),
        Expression::FuncCall(call) => function(call, scope),
        Expression::ForExpr(expr) => for_expression(expr, scope),
    }
}

fn number_literal(number: &HclNumber) -> Result<Value, Fault> {
    let number = match (number.as_i64(), number.as_u64(), number.as_f64()) {
        (Some(value), ..) => Some(Number::Int(value.into())),
        (_, Some(value), _) => Some(Number::Int(value.into())),
        (.., value) => value.and_then(Number::float),
    };
    let wrong = Problem::Convert {
        expected: "a number".to_owned(),
        found: "the literal".to_owned(),
        reason: "it is out of range".to_owned(),
    };
    number.map(Value::Number).ok_or_else(|| wrong.into())
}

fn object_key(key: &ObjectKey, scope: &Scope<'_>) -> Result<String, Fault> {
    match key {
        ObjectKey::Ident(name) => Ok(name.as_str().to_owned()),
        // A plain word is a name, not a variable.
        ObjectKey::Expression(Expression::Variable(name)) => Ok(name.as_str().to_owned()),
        ObjectKey::Expression(Expression::Null(_)) => Ok("null".to_owned()),
        ObjectKey::Expression(expr) => {
            convert::string(&expression(expr, scope)?).at(&scope.place(expr.span()))
        }
    }
}

/// The chosen one of two values, as a value of the type that they have in common. A
/// failure of the other one doesn't count.
fn choose(
    first: bool,
    yes: Result<Value, Fault>,
    no: Result<Value, Fault>,
) -> Result<Value, Fault> {
    let (chosen, other) = if first { (yes, no) } else { (no, yes) };
    let chosen = chosen?;
    let Ok(other) = other else {
        return Ok(chosen);
    };
    match convert::unify([chosen.ty(), other.ty()].into_iter()) {
        Some(ty) => Ok(convert(&chosen, &ty).unwrap_or(chosen)),
        None => Ok(chosen),
    }
}

fn variable(name: &str, scope: &Scope<'_>) -> Result<Value, Fault> {
    if let Some((_, value)) = scope.locals.iter().rev().find(|(local, _)| local == name) {
        return Ok(value.clone());
    }
    match name {
        "target" if scope.names.is_block(name) => {
            return Err(Problem::BareReference { kind: "target" }.into());
        }
        "group" if scope.names.is_block(name) => {
            return Err(Problem::BareReference { kind: "group" }.into());
        }
        _ => {}
    }
    match scope.names.variable(name)? {
        Some(value) => Ok(value),
        None => {
            let near = scope.names.near_variable(name);
            let problem = Problem::UnknownVariable {
                name: name.to_owned(),
            };
            Err(Fault::from(problem).hint(near))
        }
    }
}

fn traverse(traversal: &Traversal, scope: &Scope<'_>) -> Result<Value, Fault> {
    let operators: Vec<&TraversalOperator> =
        traversal.operators.iter().map(|op| op.value()).collect();
    if let Expression::Variable(root) = &traversal.expr {
        let root = root.as_str();
        let is_local = scope.locals.iter().any(|(name, _)| name == root);
        if !is_local && scope.names.is_block(root) {
            return block(root, &operators, scope);
        }
    }
    let value = expression(&traversal.expr, scope)?;
    follow(value, &operators, scope)
}

/// `target.name.attribute…`: the attribute alone is evaluated.
fn block(kind: &str, operators: &[&TraversalOperator], scope: &Scope<'_>) -> Result<Value, Fault> {
    let (name, rest) = match operators {
        [TraversalOperator::GetAttr(name), rest @ ..] => (name.as_str().to_owned(), rest),
        [TraversalOperator::Index(index), rest @ ..] => {
            (convert::string(&expression(index, scope)?)?, rest)
        }
        _ => {
            let kind = if kind == "group" { "group" } else { "target" };
            return Err(Problem::BareReference { kind }.into());
        }
    };
    let (attribute, rest) = match rest {
        [TraversalOperator::GetAttr(attribute), rest @ ..] => (Some(attribute.as_str()), rest),
        rest => (None, rest),
    };
    let value = scope.names.block(kind, &name, attribute)?;
    follow(value, rest, scope)
}

/// Applies `operators` one after the other.
fn follow(
    mut value: Value,
    operators: &[&TraversalOperator],
    scope: &Scope<'_>,
) -> Result<Value, Fault> {
    for (number, operator) in operators.iter().enumerate() {
        value = match operator {
            TraversalOperator::GetAttr(name) => get_attribute(&value, name.as_str())?,
            TraversalOperator::Index(index) => {
                let key = expression(index, scope)?;
                get_index(&value, &key).at(&scope.place(index.span()))?
            }
            TraversalOperator::LegacyIndex(index) => {
                get_index(&value, &Value::int(*index.value()))?
            }
            TraversalOperator::FullSplat(_) => {
                return splat(value, &operators[number + 1..], &[], scope);
            }
            TraversalOperator::AttrSplat(_) => {
                // Only names belong to the elements; the rest goes to the list.
                let rest = &operators[number + 1..];
                let names = rest
                    .iter()
                    .take_while(|op| matches!(op, TraversalOperator::GetAttr(_)))
                    .count();
                return splat(value, &rest[..names], &rest[names..], scope);
            }
        };
    }
    Ok(value)
}

fn splat(
    value: Value,
    each: &[&TraversalOperator],
    then: &[&TraversalOperator],
    scope: &Scope<'_>,
) -> Result<Value, Fault> {
    let values = match &value {
        Value::Null(_) => Vec::new(),
        value => match value.elements() {
            Some(values) => values.to_vec(),
            None => vec![value.clone()],
        },
    };
    scope.burn(values.len())?;
    let values: Result<_, _> = values.into_iter().map(|v| follow(v, each, scope)).collect();
    follow(Value::Tuple(values?), then, scope)
}

fn get_attribute(value: &Value, name: &str) -> Result<Value, Fault> {
    if value.is_null() {
        return Err(Problem::NullValue {
            what: "the value before the dot",
        }
        .into());
    }
    let entries = value.entries().ok_or_else(|| Problem::NoAttribute {
        what: value.kind().to_owned(),
        name: name.to_owned(),
    })?;
    match entries.get(name) {
        Some(value) => Ok(value.clone()),
        None => {
            let near = crate::dockerfile::nearest(name, entries.keys().map(String::as_str));
            let hint = near.map(|near| format!("did you mean `{near}`?"));
            let problem = Problem::NoAttribute {
                what: value.kind().trim_start_matches("a ").to_owned(),
                name: name.to_owned(),
            };
            Err(Fault::from(problem).hint(hint))
        }
    }
}

/// `value[key]`.
pub(super) fn get_index(value: &Value, key: &Value) -> Result<Value, Problem> {
    if value.is_null() {
        return Err(Problem::NullValue {
            what: "the value before the index",
        });
    }
    let missing = || Problem::NoElement {
        what: value.kind().to_owned(),
        index: convert::string(key).unwrap_or_else(|_| key.kind().to_owned()),
    };
    if let Some(entries) = value.entries() {
        let key = convert::string(key)?;
        return entries.get(&key).cloned().ok_or_else(missing);
    }
    match value {
        Value::List(_, values) | Value::Tuple(values) => {
            let index = convert::number(key)?.as_index();
            index
                .and_then(|i| values.get(i))
                .cloned()
                .ok_or_else(missing)
        }
        other => Err(Problem::WrongType {
            expected: "a list or a map".to_owned(),
            found: other.kind().to_owned(),
        }),
    }
}

fn unary(op: &UnaryOp, scope: &Scope<'_>) -> Result<Value, Fault> {
    let value = expression(&op.expr, scope)?;
    match op.operator.value() {
        UnaryOperator::Neg => {
            let number = convert::number(&value)?;
            let negated = Number::Int(0).with(number, i128::checked_sub, |a, b| a - b);
            Ok(negated.map_or(Value::NULL, Value::Number))
        }
        UnaryOperator::Not => Ok(Value::Bool(!convert::bool(&value)?)),
    }
}

fn binary(op: &BinaryOp, scope: &Scope<'_>) -> Result<Value, Fault> {
    use BinaryOperator as Op;
    let operator = *op.operator.value();
    let left = expression(&op.lhs_expr, scope)?;
    if matches!(operator, Op::And | Op::Or) {
        let left = convert::bool(&left).at(&scope.place(op.lhs_expr.span()))?;
        if left == (operator == Op::Or) {
            return Ok(Value::Bool(left));
        }
        let right = expression(&op.rhs_expr, scope)?;
        let right = convert::bool(&right).at(&scope.place(op.rhs_expr.span()))?;
        return Ok(Value::Bool(right));
    }
    let right = expression(&op.rhs_expr, scope)?;
    match operator {
        Op::Eq => return Ok(Value::Bool(left == right)),
        Op::NotEq => return Ok(Value::Bool(left != right)),
        _ => {}
    }
    let a = convert::number(&left).at(&scope.place(op.lhs_expr.span()))?;
    let b = convert::number(&right).at(&scope.place(op.rhs_expr.span()))?;
    Ok(match operator {
        Op::Less => Value::Bool(a.order(b).is_lt()),
        Op::LessEq => Value::Bool(a.order(b).is_le()),
        Op::Greater => Value::Bool(a.order(b).is_gt()),
        Op::GreaterEq => Value::Bool(a.order(b).is_ge()),
        operator => Value::Number(arithmetic(operator, a, b)?),
    })
}

/// `a operator b`.
pub(super) fn arithmetic(
    operator: BinaryOperator,
    a: Number,
    b: Number,
) -> Result<Number, Problem> {
    use BinaryOperator as Op;
    let zero = b.as_f64() == 0.0;
    if zero && matches!(operator, Op::Div | Op::Mod) {
        return Err(Problem::DivisionByZero);
    }
    let result = match operator {
        Op::Plus => a.with(b, i128::checked_add, |a, b| a + b),
        Op::Minus => a.with(b, i128::checked_sub, |a, b| a - b),
        Op::Mul => a.with(b, i128::checked_mul, |a, b| a * b),
        Op::Div => a.with(
            b,
            |a, b| (a.checked_rem(b)? == 0).then(|| a.checked_div(b)).flatten(),
            |a, b| a / b,
        ),
        _ => a.with(b, i128::checked_rem, |a, b| a % b),
    };
    result.ok_or_else(|| Problem::Convert {
        expected: "a number".to_owned(),
        found: "the result".to_owned(),
        reason: "it is out of range".to_owned(),
    })
}

fn function(call: &FuncCall, scope: &Scope<'_>) -> Result<Value, Fault> {
    let name = call.name.name.as_str();
    let expressions: Vec<&Expression> = call.args.iter().collect();
    // These look at their arguments' expressions.
    match name {
        "try" => {
            let mut last = None;
            for expr in &expressions {
                match expression(expr, scope) {
                    Ok(value) => return Ok(value),
                    Err(fault) => last = Some(fault),
                }
            }
            let none = || functions::arity("try", "an expression", 0).into();
            return Err(last.unwrap_or_else(none));
        }
        "can" => {
            let [expr] = expressions[..] else {
                return Err(functions::arity("can", "1 argument", expressions.len()).into());
            };
            return Ok(Value::Bool(expression(expr, scope).is_ok()));
        }
        "convert" => {
            let [value, ty] = expressions[..] else {
                return Err(functions::arity("convert", "2 arguments", expressions.len()).into());
            };
            let ty = type_constraint::of(ty).at(&scope.place(ty.span()))?;
            return Ok(convert(&expression(value, scope)?, &ty)?);
        }
        _ => {}
    }
    let mut args = Vec::with_capacity(expressions.len());
    for expr in &expressions {
        args.push(expression(expr, scope)?);
    }
    if call.args.expand_final()
        && let Some(last) = args.pop()
    {
        let values = last.elements().ok_or_else(|| Problem::WrongType {
            expected: "a list before `...`".to_owned(),
            found: last.kind().to_owned(),
        })?;
        args.extend(values.iter().cloned());
    }
    if let Some(value) = functions::call(name, &args, scope)? {
        return Ok(value);
    }
    if call.name.namespace.is_empty()
        && let Some(value) = scope.names.call(name, &args)?
    {
        return Ok(value);
    }
    let hint = scope.names.near_function(name);
    let problem = Problem::UnknownFunction {
        name: name.to_owned(),
    };
    Err(Fault::from(problem)
        .hint(hint)
        .at(&scope.place(call.name.name.span())))
}

/// The pairs that a `for` goes through.
pub(super) fn pairs(value: &Value) -> Result<Vec<(Value, Value)>, Problem> {
    if let Some(entries) = value.entries() {
        return Ok(entries
            .iter()
            .map(|(key, value)| (Value::text(key), value.clone()))
            .collect());
    }
    match value {
        Value::List(_, values) | Value::Tuple(values) => Ok(values
            .iter()
            .enumerate()
            .map(|(index, value)| (Value::count(index), value.clone()))
            .collect()),
        Value::Set(_, values) => Ok(values.iter().map(|v| (v.clone(), v.clone())).collect()),
        other => Err(Problem::WrongType {
            expected: "a list or a map to go through".to_owned(),
            found: other.kind().to_owned(),
        }),
    }
}

fn for_expression(expr: &ForExpr, scope: &Scope<'_>) -> Result<Value, Fault> {
    let intro = &expr.intro;
    let collection = expression(&intro.collection_expr, scope)?;
    let pairs = pairs(&collection).at(&scope.place(intro.collection_expr.span()))?;
    let mut inner = scope.with([]);
    let base = inner.locals.len();
    let mut list = Vec::new();
    let mut object: BTreeMap<String, Value> = BTreeMap::new();
    let mut groups: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for (key, value) in pairs {
        inner.burn(1)?;
        inner.locals.truncate(base);
        if let Some(name) = &intro.key_var {
            inner.locals.push((name.as_str().to_owned(), key));
        }
        inner
            .locals
            .push((intro.value_var.as_str().to_owned(), value));
        if let Some(condition) = &expr.cond {
            let value = expression(&condition.expr, &inner)?;
            if !convert::bool(&value).at(&scope.place(condition.expr.span()))? {
                continue;
            }
        }
        let value = expression(&expr.value_expr, &inner)?;
        let Some(key_expr) = &expr.key_expr else {
            list.push(value);
            continue;
        };
        let place = scope.place(key_expr.span());
        let key = convert::string(&expression(key_expr, &inner)?).at(&place)?;
        if expr.grouping {
            groups.entry(key).or_default().push(value);
        } else if object.insert(key.clone(), value).is_some() {
            return Err(Fault::from(Problem::DuplicateKey { key }).at(&place));
        }
    }
    scope.fuel.set(inner.fuel.get());
    Ok(match (&expr.key_expr, expr.grouping) {
        (None, _) => Value::Tuple(list),
        (Some(_), false) => Value::Object(object),
        (Some(_), true) => Value::Object(
            groups
                .into_iter()
                .map(|(key, values)| (key, Value::Tuple(values)))
                .collect(),
        ),
    })
}
