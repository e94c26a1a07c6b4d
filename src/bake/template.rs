//! Templates: texts with `${…}` and `%{…}` in them.

use hcl_edit::{
    Span as _,
    expr::Expression,
    template::{Directive, Element, HeredocTemplate, Strip, Template},
};

use super::{
    convert,
    error::{AtPlace as _, Fault, Problem},
    eval::{self, Scope},
    value::Value,
};

/// The value of a template: that of the expression if it holds nothing else, else a text.
pub(super) fn evaluate(template: &Template, scope: &Scope<'_>) -> Result<Value, Fault> {
    if let (1, Some(Element::Interpolation(only))) = (template.len(), template.get(0)) {
        return eval::expression(&only.expr, scope);
    }
    text(template, scope).map(Value::String)
}

/// The text of a heredoc.
pub(super) fn heredoc(heredoc: &HeredocTemplate, scope: &Scope<'_>) -> Result<Value, Fault> {
    text(&heredoc.template, scope).map(Value::String)
}

fn text(template: &Template, scope: &Scope<'_>) -> Result<String, Fault> {
    let mut out = String::new();
    // Whether the element before wants white space removed from what follows.
    let mut strip = false;
    let elements: Vec<&Element> = template.iter().collect();
    for (number, element) in elements.iter().enumerate() {
        match element {
            Element::Literal(literal) => {
                let mut literal = literal.value().as_str();
                if strip {
                    literal = literal.trim_start();
                }
                if elements.get(number + 1).is_some_and(|next| strips(next).0) {
                    literal = literal.trim_end();
                }
                out.push_str(literal);
            }
            Element::Interpolation(interpolation) => {
                out.push_str(&interpolated(&interpolation.expr, scope)?);
            }
            Element::Directive(directive) => self::directive(directive, scope, &mut out)?,
        }
        scope.burn(out.len() / 4096)?;
        strip = strips(element).1;
    }
    Ok(out)
}

/// Whether `element` removes white space before it, and after it.
fn strips(element: &Element) -> (bool, bool) {
    let (first, last) = match element {
        Element::Literal(_) => return (false, false),
        Element::Interpolation(interpolation) => (interpolation.strip, interpolation.strip),
        Element::Directive(directive) => match directive.as_ref() {
            Directive::If(directive) => (directive.if_expr.strip, directive.endif_expr.strip),
            Directive::For(directive) => (directive.for_expr.strip, directive.endfor_expr.strip),
        },
    };
    (at_start(first), at_end(last))
}

fn at_start(strip: Strip) -> bool {
    matches!(strip, Strip::Start | Strip::Both)
}

fn at_end(strip: Strip) -> bool {
    matches!(strip, Strip::End | Strip::Both)
}

fn interpolated(expr: &Expression, scope: &Scope<'_>) -> Result<String, Fault> {
    let value = eval::expression(expr, scope)?;
    let place = scope.place(expr.span());
    if value.is_null() {
        return Err(Fault::from(Problem::NullValue {
            what: "a value inside a text",
        })
        .at(&place));
    }
    convert::string(&value).at(&place)
}

/// The text between two marks, with white space removed as they say.
fn between(
    template: &Template,
    before: Strip,
    after: Strip,
    scope: &Scope<'_>,
) -> Result<String, Fault> {
    let mut out = text(template, scope)?;
    if at_start(after) {
        out.truncate(out.trim_end().len());
    }
    if at_end(before) {
        out.drain(..out.len() - out.trim_start().len());
    }
    Ok(out)
}

fn directive(directive: &Directive, scope: &Scope<'_>, out: &mut String) -> Result<(), Fault> {
    match directive {
        Directive::If(directive) => {
            let first = &directive.if_expr;
            let last = directive.endif_expr.strip;
            let value = eval::expression(&first.cond_expr, scope)?;
            let condition = convert::bool(&value).at(&scope.place(first.cond_expr.span()))?;
            match (&directive.else_expr, condition) {
                (None, false) => {}
                (None, true) => {
                    out.push_str(&between(&first.template, first.strip, last, scope)?);
                }
                (Some(other), true) => {
                    out.push_str(&between(&first.template, first.strip, other.strip, scope)?);
                }
                (Some(other), false) => {
                    out.push_str(&between(&other.template, other.strip, last, scope)?);
                }
            }
        }
        Directive::For(directive) => {
            let first = &directive.for_expr;
            let collection = eval::expression(&first.collection_expr, scope)?;
            let place = scope.place(first.collection_expr.span());
            for (key, value) in eval::pairs(&collection).at(&place)? {
                scope.burn(1)?;
                let mut names = vec![(first.value_var.as_str().to_owned(), value)];
                if let Some(name) = &first.key_var {
                    names.push((name.as_str().to_owned(), key));
                }
                let inner = scope.with(names);
                let strip = directive.endfor_expr.strip;
                out.push_str(&between(&first.template, first.strip, strip, &inner)?);
                scope.fuel.set(inner.fuel.get());
            }
        }
    }
    Ok(())
}
