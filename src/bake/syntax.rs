//! What a bake file says, before it is evaluated: attributes and blocks, from HCL or JSON.
//!
//! JSON follows HCL's rules: a block is a property whose value is an object of names, a
//! text is a template. Source: <https://github.com/hashicorp/hcl/blob/main/json/spec.md>.

use std::ops::Range;

use hcl_edit::{
    Span as _,
    expr::Expression,
    structure::{self, Structure},
    template::Template,
};

use super::{
    error::{Fault, Place, Problem},
    json::{self, Json},
};
use crate::dockerfile::nearest;

/// The blocks of a bake file.
const BLOCKS: [&str; 4] = ["variable", "function", "group", "target"];

/// An expression, in either syntax.
#[derive(Debug, Clone)]
pub(super) enum Expr {
    Hcl(Box<Expression>),
    Json(JsonExpr),
}

/// A JSON value whose texts are templates.
#[derive(Debug, Clone)]
pub(super) struct JsonExpr {
    pub(super) range: Range<usize>,
    pub(super) kind: JsonKind,
}

#[derive(Debug, Clone)]
pub(super) enum JsonKind {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    Template(Box<Template>),
    Array(Vec<JsonExpr>),
    /// Keys are texts, too.
    Object(Vec<(JsonExpr, JsonExpr)>),
}

/// `name = value`.
#[derive(Debug, Clone)]
pub(super) struct Attribute {
    pub(super) name: String,
    /// Place of the name.
    pub(super) place: Place,
    pub(super) expr: Expr,
    /// Place of the value.
    pub(super) value_place: Place,
}

/// `kind "label" { … }`.
#[derive(Debug, Clone)]
pub(super) struct Block {
    pub(super) kind: String,
    pub(super) label: String,
    /// Place of the label.
    pub(super) place: Place,
    pub(super) body: Body,
}

/// What a file or a block holds.
#[derive(Debug, Clone, Default)]
pub(super) struct Body {
    pub(super) attributes: Vec<Attribute>,
    pub(super) blocks: Vec<Block>,
}

impl Body {
    pub(super) fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attributes.iter().find(|a| a.name == name)
    }
}

/// Reads HCL. `file` is its number.
pub(super) fn hcl(text: &str, file: usize) -> Result<Body, Fault> {
    let body = hcl_edit::parser::parse_body(text).map_err(|error| {
        let at = error.location().offset();
        Fault::from(Problem::Hcl {
            message: error.message().to_owned(),
        })
        .at(&Place {
            file,
            range: at..at,
        })
    })?;
    let reader = HclReader { file };
    reader.body(&body, true)
}

struct HclReader {
    file: usize,
}

impl HclReader {
    fn place(&self, range: Option<Range<usize>>) -> Place {
        Place {
            file: self.file,
            range: range.unwrap_or_default(),
        }
    }

    fn body(&self, body: &structure::Body, top: bool) -> Result<Body, Fault> {
        let mut out = Body::default();
        for structure in body {
            match structure {
                Structure::Attribute(attribute) => {
                    let name = attribute.key.as_str().to_owned();
                    let place = self.place(attribute.key.span());
                    if out.attribute(&name).is_some() {
                        return Err(Fault::from(Problem::Twice { name }).at(&place));
                    }
                    out.attributes.push(Attribute {
                        name,
                        place,
                        value_place: self.place(attribute.value.span()),
                        expr: Expr::Hcl(Box::new(attribute.value.clone())),
                    });
                }
                Structure::Block(block) => out.blocks.extend(self.block(block, top)?),
            }
        }
        Ok(out)
    }

    fn block(&self, block: &structure::Block, top: bool) -> Result<Option<Block>, Fault> {
        let kind = block.ident.as_str().to_owned();
        let place = self.place(block.ident.span());
        if top && !BLOCKS.contains(&kind.as_str()) {
            return Err(unknown_block(kind).at(&place));
        }
        let labels: Vec<&str> = block
            .labels
            .iter()
            .map(structure::BlockLabel::as_str)
            .collect();
        let (label, place) = match (labels.as_slice(), top) {
            ([label], _) => ((*label).to_owned(), self.place(block.labels[0].span())),
            ([], false) => (String::new(), place),
            _ => return Err(Fault::from(Problem::Labels { kind }).at(&place)),
        };
        Ok(Some(Block {
            kind,
            label,
            place,
            body: self.body(&block.body, false)?,
        }))
    }
}

fn unknown_block(kind: String) -> Fault {
    let hint = match nearest(&kind, BLOCKS) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "there are `target`, `group`, `variable` and `function`".to_owned(),
    };
    Fault::from(Problem::UnknownBlock { kind }).hint(Some(hint))
}

/// Reads JSON. `file` is its number.
pub(super) fn json(text: &str, file: usize) -> Result<Body, Fault> {
    let root = json::parse(text).map_err(|(message, at)| {
        Fault::from(Problem::Json { message }).at(&Place {
            file,
            range: at..at,
        })
    })?;
    let reader = JsonReader { file };
    let mut out = Body::default();
    for object in reader.objects(&root)? {
        for (key, value) in object {
            let name = key.text();
            if name == "//" {
                continue;
            }
            if BLOCKS.contains(&name) {
                reader.blocks(name, value, &mut out)?;
            } else {
                out.attributes.push(reader.attribute(key, value)?);
            }
        }
    }
    Ok(out)
}

struct JsonReader {
    file: usize,
}

impl JsonReader {
    fn place(&self, range: &Range<usize>) -> Place {
        Place {
            file: self.file,
            range: range.clone(),
        }
    }

    /// An object, or the objects of an array.
    fn objects<'j>(&self, json: &'j Json) -> Result<Vec<&'j [(Json, Json)]>, Fault> {
        let object = |json: &'j Json| match &json.kind {
            json::Kind::Object(entries) => Ok(entries.as_slice()),
            _ => Err(Fault::from(Problem::WrongType {
                expected: "an object".to_owned(),
                found: json.what().to_owned(),
            })
            .at(&self.place(&json.range))),
        };
        match &json.kind {
            json::Kind::Array(values) => values.iter().map(object).collect(),
            _ => Ok(vec![object(json)?]),
        }
    }

    fn blocks(&self, kind: &str, json: &Json, out: &mut Body) -> Result<(), Fault> {
        for named in self.objects(json)? {
            for (label, bodies) in named {
                if label.text() == "//" {
                    continue;
                }
                for entries in self.objects(bodies)? {
                    out.blocks.push(Block {
                        kind: kind.to_owned(),
                        label: label.text().to_owned(),
                        place: self.place(&label.range),
                        body: self.body(kind, entries)?,
                    });
                }
            }
        }
        Ok(())
    }

    fn body(&self, kind: &str, entries: &[(Json, Json)]) -> Result<Body, Fault> {
        let mut out = Body::default();
        for (key, value) in entries {
            let name = key.text();
            if name == "//" {
                continue;
            }
            if kind == "variable" && name == "validation" {
                for entries in self.objects(value)? {
                    out.blocks.push(Block {
                        kind: name.to_owned(),
                        label: String::new(),
                        place: self.place(&key.range),
                        body: self.body(name, entries)?,
                    });
                }
                continue;
            }
            if out.attribute(name).is_some() {
                let problem = Problem::Twice {
                    name: name.to_owned(),
                };
                return Err(Fault::from(problem).at(&self.place(&key.range)));
            }
            out.attributes.push(self.attribute(key, value)?);
        }
        Ok(out)
    }

    fn attribute(&self, key: &Json, value: &Json) -> Result<Attribute, Fault> {
        Ok(Attribute {
            name: key.text().to_owned(),
            place: self.place(&key.range),
            value_place: self.place(&value.range),
            expr: Expr::Json(self.expr(value)?),
        })
    }

    fn expr(&self, json: &Json) -> Result<JsonExpr, Fault> {
        let kind = match &json.kind {
            json::Kind::Null => JsonKind::Null,
            json::Kind::Bool(value) => JsonKind::Bool(*value),
            json::Kind::Number(text) => JsonKind::Number(text.clone()),
            json::Kind::Text(text) if text.contains("${") || text.contains("%{") => {
                let template = hcl_edit::parser::parse_template(text).map_err(|error| {
                    Fault::from(Problem::Hcl {
                        message: error.message().to_owned(),
                    })
                    .at(&self.place(&json.range))
                })?;
                JsonKind::Template(Box::new(template))
            }
            json::Kind::Text(text) => JsonKind::Text(text.clone()),
            json::Kind::Array(values) => {
                let values: Result<_, _> = values.iter().map(|v| self.expr(v)).collect();
                JsonKind::Array(values?)
            }
            json::Kind::Object(entries) => {
                let entries: Result<_, Fault> = entries
                    .iter()
                    .filter(|(key, _)| key.text() != "//")
                    .map(|(key, value)| Ok((self.expr(key)?, self.expr(value)?)))
                    .collect();
                JsonKind::Object(entries?)
            }
        };
        Ok(JsonExpr {
            range: json.range.clone(),
            kind,
        })
    }
}
