//! Functions that a bake file defines.

use hcl_edit::{
    expr::{Expression, FuncCall},
    visit::{self, Visit},
};

use super::{
    error::{Fault, Problem},
    syntax::{Block, Expr, JsonExpr, JsonKind},
};

/// A function.
pub(super) struct Function {
    pub(super) block: Block,
    pub(super) parameters: Vec<String>,
    pub(super) variadic: Option<String>,
}

impl Function {
    /// Reads its block.
    pub(super) fn read(block: Block) -> Result<Self, Fault> {
        let missing = |attribute| {
            let problem = Problem::FunctionWithout {
                name: block.label.clone(),
                attribute,
            };
            Fault::from(problem).at(&block.place)
        };
        if block.body.attribute("result").is_none() {
            return Err(missing("result"));
        }
        let list = block
            .body
            .attribute("params")
            .ok_or_else(|| missing("params"))?;
        let wrong = || Fault::from(Problem::ParameterName).at(&list.value_place);
        let words: Vec<Expr> = match &list.expr {
            Expr::Hcl(expr) => match expr.as_ref() {
                Expression::Array(values) => values
                    .iter()
                    .map(|v| Expr::Hcl(Box::new(v.clone())))
                    .collect(),
                _ => return Err(wrong()),
            },
            Expr::Json(JsonExpr {
                kind: JsonKind::Array(values),
                ..
            }) => values.iter().cloned().map(Expr::Json).collect(),
            Expr::Json(_) => return Err(wrong()),
        };
        let parameters: Option<Vec<String>> = words.iter().map(keyword).collect();
        let parameters = parameters.ok_or_else(wrong)?;
        let variadic =
            match block.body.attribute("variadic_params") {
                Some(attribute) => Some(keyword(&attribute.expr).ok_or_else(|| {
                    Fault::from(Problem::ParameterName).at(&attribute.value_place)
                })?),
                None => None,
            };
        Ok(Self {
            parameters,
            variadic,
            block,
        })
    }
}

/// A plain word, in either syntax.
fn keyword(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Hcl(expr) => match expr.as_ref() {
            Expression::Variable(name) => Some(name.as_str().to_owned()),
            _ => None,
        },
        Expr::Json(expr) => match &expr.kind {
            JsonKind::Text(text) => Some(text.clone()),
            _ => None,
        },
    }
}

/// The functions that `expr` calls.
pub(super) fn calls(expr: &Expr) -> Vec<String> {
    #[derive(Default)]
    struct Calls(Vec<String>);
    impl Visit for Calls {
        fn visit_func_call(&mut self, call: &FuncCall) {
            self.0.push(call.name.name.as_str().to_owned());
            visit::visit_func_call(self, call);
        }
    }
    fn json(expr: &JsonExpr, calls: &mut Calls) {
        match &expr.kind {
            JsonKind::Template(template) => calls.visit_template(template),
            JsonKind::Array(values) => values.iter().for_each(|v| json(v, calls)),
            JsonKind::Object(entries) => entries.iter().for_each(|(key, value)| {
                json(key, calls);
                json(value, calls);
            }),
            _ => {}
        }
    }
    let mut calls = Calls::default();
    match expr {
        Expr::Hcl(expr) => calls.visit_expr(expr),
        Expr::Json(expr) => json(expr, &mut calls),
    }
    calls.0
}
