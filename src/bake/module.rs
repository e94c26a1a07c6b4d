//! The HCL and JSON files of one call, taken together: their variables, functions and blocks.
//!
//! Everything is evaluated when it is first needed and remembered, so blocks may refer to
//! each other in any order.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashMap},
};

use super::{
    convert,
    decode::{self, Kind},
    error::{AtPlace as _, Fault, Place, Problem},
    eval::{self, Names, Scope},
    function::{self, Function},
    functions::{self, Outside},
    syntax::{Attribute, Block, Body},
    target::{Group, Target},
    value::{Type, Value},
    variables,
};
use crate::dockerfile::nearest;

/// Targets that one matrix may make.
const MAX_MATRIX: usize = 10_000;

/// What a module is told by its surroundings.
pub(super) struct Surroundings<'a> {
    /// An environment variable.
    pub(super) env: &'a dyn Fn(&str) -> Option<String>,
    /// Variables that are always there.
    pub(super) builtins: BTreeMap<String, String>,
    pub(super) outside: Outside,
}

/// One target of a block: blocks with a matrix have several.
struct Instance {
    block: usize,
    name: String,
    /// The values of the matrix.
    locals: Vec<(String, Value)>,
}

/// The files of one call.
pub(super) struct Module<'a> {
    around: Surroundings<'a>,
    variables: HashMap<String, Block>,
    attributes: HashMap<String, Attribute>,
    functions: HashMap<String, Function>,
    blocks: Vec<Block>,
    instances: Vec<Instance>,
    /// The last block of each kind and name.
    by_name: HashMap<(String, String), usize>,
    values: RefCell<HashMap<String, Value>>,
    attribute_values: RefCell<HashMap<(usize, String), Value>>,
    /// Variables and attributes that are being evaluated.
    progress: RefCell<Vec<String>>,
    depth: Cell<usize>,
}

/// What the blocks say, in the order of the files.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    pub(super) groups: Vec<(String, Group)>,
    pub(super) targets: Vec<(String, Target)>,
    /// Where each target was first defined.
    pub(super) places: HashMap<String, Place>,
    /// Attributes that mean nothing.
    pub(super) unknown: Vec<(Place, String, Option<String>)>,
}

impl<'a> Module<'a> {
    pub(super) fn new(bodies: Vec<Body>, around: Surroundings<'a>) -> Result<Self, Fault> {
        let mut module = Self {
            around,
            variables: HashMap::new(),
            attributes: HashMap::new(),
            functions: HashMap::new(),
            blocks: Vec::new(),
            instances: Vec::new(),
            by_name: HashMap::new(),
            values: RefCell::default(),
            attribute_values: RefCell::default(),
            progress: RefCell::default(),
            depth: Cell::new(0),
        };
        // Later files win.
        for body in bodies {
            for attribute in body.attributes {
                if !module.is_reserved(&attribute.name) {
                    module.attributes.insert(attribute.name.clone(), attribute);
                }
            }
            for block in body.blocks {
                match block.kind.as_str() {
                    "variable" if module.is_reserved(&block.label) => {}
                    "variable" => {
                        module.variables.insert(block.label.clone(), block);
                    }
                    "function" => {
                        let function = Function::read(block)?;
                        let name = function.block.label.clone();
                        module.functions.insert(name, function);
                    }
                    _ => module.blocks.push(block),
                }
            }
        }
        Ok(module)
    }

    fn is_reserved(&self, name: &str) -> bool {
        matches!(name, "target" | "group") || self.around.builtins.contains_key(name)
    }

    /// Evaluates everything.
    pub(super) fn evaluate(mut self) -> Result<Blocks, Fault> {
        let mut names: Vec<String> = self.variables.keys().cloned().collect();
        names.sort();
        for name in &names {
            self.variable(name).at(&self.variables[name].place)?;
        }
        for name in &names {
            variables::validate(&self, &self.variables[name])?;
        }
        self.check_functions()?;
        self.instances = self.all_instances()?;
        for (number, instance) in self.instances.iter().enumerate() {
            let kind = self.blocks[instance.block].kind.clone();
            self.by_name.insert((kind, instance.name.clone()), number);
        }
        let blocks = self.all_blocks()?;
        let mut names: Vec<&String> = self.attributes.keys().collect();
        names.sort();
        for name in names {
            self.variable(name).at(&self.attributes[name].place)?;
        }
        Ok(blocks)
    }

    /// Every function that a function calls exists, and none calls itself.
    fn check_functions(&self) -> Result<(), Fault> {
        let mut names: Vec<&String> = self.functions.keys().collect();
        names.sort();
        let mut done: Vec<&str> = Vec::new();
        for name in names {
            self.check_function(name, &mut Vec::new(), &mut done)?;
        }
        Ok(())
    }

    fn check_function<'s>(
        &'s self,
        name: &'s str,
        path: &mut Vec<&'s str>,
        done: &mut Vec<&'s str>,
    ) -> Result<(), Fault> {
        let Some(function) = self.functions.get(name).filter(|_| !done.contains(&name)) else {
            return Ok(());
        };
        let result = function.block.body.attribute("result");
        let place = result.map_or(&function.block.place, |r| &r.value_place);
        if path.contains(&name) {
            let problem = Problem::FunctionCycle {
                name: name.to_owned(),
            };
            return Err(Fault::from(problem).at(place));
        }
        path.push(name);
        for called in result.map(|r| function::calls(&r.expr)).unwrap_or_default() {
            match self.functions.get_key_value(&called) {
                Some((called, _)) => self.check_function(called, path, done)?,
                None if functions::NAMES.contains(&called.as_str()) => {}
                None if functions::is_refused(&called) => {}
                None => {
                    let hint = self.near_function(&called);
                    let problem = Problem::UnknownFunction { name: called };
                    return Err(Fault::from(problem).hint(hint).at(place));
                }
            }
        }
        path.pop();
        done.push(name);
        Ok(())
    }

    /// The targets and groups that the blocks make.
    fn all_instances(&self) -> Result<Vec<Instance>, Fault> {
        let mut out = Vec::new();
        for (number, block) in self.blocks.iter().enumerate() {
            let what = if block.kind == "group" {
                "group"
            } else {
                "target"
            };
            check_name(what, &block.label).at(&block.place)?;
            let (matrix, name) = (block.body.attribute("matrix"), block.body.attribute("name"));
            if what == "group" {
                for attribute in ["name", "matrix"] {
                    if let Some(found) = block.body.attribute(attribute) {
                        return Err(Fault::from(Problem::InGroup { attribute }).at(&found.place));
                    }
                }
            }
            let rows = match matrix {
                Some(matrix) => self.matrix(matrix)?,
                None => vec![Vec::new()],
            };
            let mut names = std::collections::HashSet::new();
            for locals in rows {
                let name = match name {
                    Some(attribute) if matrix.is_none() => {
                        let attribute_name = "name";
                        let problem = Problem::NameWithoutMatrix {
                            attribute: attribute_name,
                        };
                        return Err(Fault::from(problem).at(&attribute.place));
                    }
                    Some(attribute) => {
                        let scope = self.scope(&attribute.value_place, locals.clone());
                        let value = eval::evaluate(&attribute.expr, &scope)?;
                        let name = convert::string(&value).at(&attribute.value_place)?;
                        check_name(what, &name).at(&attribute.value_place)?;
                        name
                    }
                    None => block.label.clone(),
                };
                if !names.insert(name.clone()) {
                    return Err(Fault::from(Problem::DuplicateName { name }).at(&block.place));
                }
                out.push(Instance {
                    block: number,
                    name,
                    locals,
                });
            }
        }
        Ok(out)
    }

    /// All combinations of a matrix.
    fn matrix(&self, attribute: &Attribute) -> Result<Vec<Vec<(String, Value)>>, Fault> {
        let place = &attribute.value_place;
        let scope = self.scope(place, Vec::new());
        let value = eval::evaluate(&attribute.expr, &scope)?;
        let entries = value.entries().ok_or(Problem::Matrix).at(place)?;
        let mut rows: Vec<Vec<(String, Value)>> = vec![Vec::new()];
        for (name, values) in entries {
            let values = values.elements().ok_or(Problem::Matrix).at(place)?;
            if rows.len().saturating_mul(values.len()) > MAX_MATRIX {
                let problem = Problem::MatrixTooLarge { limit: MAX_MATRIX };
                return Err(Fault::from(problem).at(place));
            }
            let more = |value: &Value| {
                let value = value.clone();
                rows.iter().map(move |row| {
                    let mut row = row.clone();
                    row.push((name.clone(), value.clone()));
                    row
                })
            };
            rows = values.iter().flat_map(more).collect();
        }
        Ok(rows)
    }

    fn scope(&self, place: &Place, locals: Vec<(String, Value)>) -> Scope<'_> {
        let mut scope = Scope::new(self, place);
        scope.locals = locals;
        scope
    }

    fn all_blocks(&self) -> Result<Blocks, Fault> {
        let mut out = Blocks::default();
        let mut renamed: Vec<(String, Vec<String>)> = Vec::new();
        // Where each name is in the lists, so that many targets take no longer each.
        let mut groups: HashMap<String, usize> = HashMap::new();
        let mut targets: HashMap<String, usize> = HashMap::new();
        for (number, instance) in self.instances.iter().enumerate() {
            let block = &self.blocks[instance.block];
            let name = instance.name.clone();
            if block.kind == "group" {
                let group = self.group(number)?;
                match groups.get(&name) {
                    // A group of the same name replaces the one before.
                    Some(at) => out.groups[*at].1 = group,
                    None => {
                        groups.insert(name.clone(), out.groups.len());
                        out.groups.push((name, group));
                    }
                }
                continue;
            }
            let target = self.target(number, &mut out.unknown)?;
            out.places
                .entry(name.clone())
                .or_insert_with(|| block.place.clone());
            if name != block.label {
                match renamed.last_mut() {
                    Some((label, names)) if *label == block.label => names.push(name.clone()),
                    _ => renamed.push((block.label.clone(), vec![name.clone()])),
                }
            }
            match targets.get(&name) {
                Some(at) => out.targets[*at].1.merge(&target),
                None => {
                    targets.insert(name.clone(), out.targets.len());
                    out.targets.push((name, target));
                }
            }
        }
        for (name, mut names) in renamed {
            let mut seen = std::collections::HashSet::new();
            names.retain(|name| seen.insert(name.clone()));
            let group = Group {
                targets: names,
                ..Group::default()
            };
            if !groups.contains_key(&name) {
                groups.insert(name.clone(), out.groups.len());
                out.groups.push((name, group));
            }
        }
        Ok(out)
    }

    fn group(&self, number: usize) -> Result<Group, Fault> {
        let block = &self.blocks[self.instances[number].block];
        let text = self.attribute(number, "description", Kind::Text)?;
        let targets = self.attribute(number, "targets", Kind::List)?;
        Ok(Group {
            description: match text.is_null() {
                true => String::new(),
                false => convert::string(&text)?,
            },
            targets: decode::list(&targets).at(&block.place)?.unwrap_or_default(),
        })
    }

    fn target(
        &self,
        number: usize,
        unknown: &mut Vec<(Place, String, Option<String>)>,
    ) -> Result<Target, Fault> {
        let instance = &self.instances[number];
        let block = &self.blocks[instance.block];
        let mut target = Target::default();
        for attribute in &block.body.attributes {
            let name = attribute.name.as_str();
            if matches!(name, "name" | "matrix") {
                continue;
            }
            if decode::REFUSED.contains(&name) {
                let problem = Problem::Unsupported {
                    attribute: name.to_owned(),
                };
                return Err(Fault::from(problem).at(&attribute.place));
            }
            let Some((_, kind)) = decode::TARGET.iter().find(|(known, _)| *known == name) else {
                let known = decode::TARGET.iter().map(|(known, _)| *known);
                let near = nearest(name, known).map(str::to_owned);
                let entry = (attribute.place.clone(), name.to_owned(), near);
                if !unknown.contains(&entry) {
                    unknown.push(entry);
                }
                continue;
            };
            // Entries are decoded from what was written, so that nothing of it is lost.
            let value = match kind {
                Kind::Text | Kind::Flag | Kind::List | Kind::Map => {
                    self.attribute(number, name, *kind)?
                }
                _ => {
                    let locals = instance.locals.clone();
                    let scope = self.scope(&attribute.value_place, locals);
                    eval::evaluate(&attribute.expr, &scope)?
                }
            };
            decode::set(&mut target, name, &value)
                .map_err(|problem| named(problem, name))
                .at(&attribute.value_place)?;
        }
        Ok(target)
    }

    /// The value of an attribute of a block, as one of `kind`.
    fn attribute(&self, number: usize, name: &str, kind: Kind) -> Result<Value, Fault> {
        let key = (number, name.to_owned());
        if let Some(value) = self.attribute_values.borrow().get(&key) {
            return Ok(value.clone());
        }
        let instance = &self.instances[number];
        let block = &self.blocks[instance.block];
        let Some(attribute) = block.body.attribute(name) else {
            return Ok(kind.unset());
        };
        let path = format!("{}.{}.{name}", block.kind, instance.name);
        if self.progress.borrow().contains(&path) {
            return Err(Fault::from(Problem::ReferenceCycle { path }).at(&attribute.value_place));
        }
        self.progress.borrow_mut().push(path);
        let scope = self.scope(&attribute.value_place, instance.locals.clone());
        let value = eval::evaluate(&attribute.expr, &scope)
            .and_then(|value| Ok(kind.typed(&value).map_err(|p| named(p, name))?))
            .at(&attribute.value_place);
        self.progress.borrow_mut().pop();
        let value = value?;
        self.attribute_values
            .borrow_mut()
            .insert(key, value.clone());
        Ok(value)
    }

    /// An environment variable that overrides `name`: its value, and whether it is JSON.
    pub(super) fn override_of(&self, name: &str, favour_json: bool) -> Option<(String, bool)> {
        let plain = (self.around.env)(name);
        if plain.is_none() || favour_json {
            let json = format!("{name}_JSON");
            let taken =
                self.variables.contains_key(&json) || self.around.builtins.contains_key(&json);
            if let Some(value) = (self.around.env)(&json).filter(|_| !taken) {
                return Some((value, true));
            }
        }
        plain.map(|value| (value, false))
    }

    fn compute(&self, name: &str) -> Result<Option<Value>, Fault> {
        let block = self.variables.get(name);
        if let Some(attribute) = self.attributes.get(name) {
            let scope = self.scope(&attribute.value_place, Vec::new());
            let value = eval::evaluate(&attribute.expr, &scope)?;
            let over = block.and_then(|_| self.override_of(name, false));
            return variables::overridden(name, Some(value), None, over)
                .at(&attribute.value_place)
                .map(Some);
        }
        let Some(block) = block else {
            return Ok(None);
        };
        let constraint = match block.body.attribute("type") {
            Some(attribute) => variables::constraint(attribute)?,
            None => None,
        };
        let default = match block.body.attribute("default") {
            Some(attribute) => {
                let scope = self.scope(&attribute.value_place, Vec::new());
                let value = eval::evaluate(&attribute.expr, &scope)?;
                let ty = constraint.as_ref().unwrap_or(&Type::Any);
                let value =
                    convert::convert(&value, ty).map_err(|problem| Problem::VariableValue {
                        name: name.to_owned(),
                        reason: format!("its default is not of its type: {problem}"),
                    });
                Some(value.at(&attribute.value_place)?)
            }
            None => None,
        };
        let over = self.override_of(name, constraint.is_some());
        variables::overridden(name, default, constraint, over)
            .at(&block.place)
            .map(Some)
    }
}

/// Says which attribute a problem with an entry is about.
fn named(problem: Problem, name: &str) -> Problem {
    match problem {
        Problem::Attribute { reason, .. } => Problem::Attribute {
            attribute: name.to_owned(),
            reason,
        },
        problem => problem,
    }
}

fn check_name(what: &'static str, name: &str) -> Result<(), Problem> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    match !name.is_empty() && name.chars().all(plain) {
        true => Ok(()),
        false => Err(Problem::Name {
            what,
            name: name.to_owned(),
        }),
    }
}

impl Names for Module<'_> {
    fn variable(&self, name: &str) -> Result<Option<Value>, Fault> {
        if let Some(value) = self.around.builtins.get(name) {
            return Ok(Some(Value::text(value)));
        }
        if let Some(value) = self.values.borrow().get(name) {
            return Ok(Some(value.clone()));
        }
        if self.progress.borrow().iter().any(|known| known == name) {
            let progress = self.progress.borrow();
            let start = progress.iter().position(|known| known == name).unwrap_or(0);
            let mut cycle = progress[start..].to_vec();
            cycle.push(name.to_owned());
            return Err(Problem::VariableCycle {
                cycle: cycle.join(" -> "),
            }
            .into());
        }
        self.progress.borrow_mut().push(name.to_owned());
        let value = self.compute(name);
        self.progress.borrow_mut().pop();
        let value = value?;
        if let Some(value) = &value {
            self.values
                .borrow_mut()
                .insert(name.to_owned(), value.clone());
        }
        Ok(value)
    }

    fn is_block(&self, kind: &str) -> bool {
        matches!(kind, "target" | "group")
    }

    fn block(&self, kind: &str, name: &str, attribute: Option<&str>) -> Result<Value, Fault> {
        let static_kind = if kind == "group" { "group" } else { "target" };
        let Some(number) = self.by_name.get(&(kind.to_owned(), name.to_owned())) else {
            let known = self.by_name.keys().filter(|(k, _)| k == kind);
            let near = nearest(name, known.map(|(_, name)| name.as_str()));
            let hint = near.map(|near| format!("did you mean `{kind}.{near}`?"));
            let problem = Problem::UnknownReference {
                kind: static_kind,
                name: name.to_owned(),
            };
            return Err(Fault::from(problem).hint(hint));
        };
        let fields = if kind == "group" {
            decode::GROUP
        } else {
            decode::TARGET
        };
        let Some(attribute) = attribute else {
            let mut out = BTreeMap::from([("name".to_owned(), Value::text(name))]);
            for (field, kind) in fields {
                out.insert((*field).to_owned(), self.attribute(*number, field, *kind)?);
            }
            return Ok(Value::Object(out));
        };
        if attribute == "name" {
            return Ok(Value::text(name));
        }
        match fields.iter().find(|(field, _)| *field == attribute) {
            Some((_, kind)) => self.attribute(*number, attribute, *kind),
            None => {
                let near = nearest(attribute, fields.iter().map(|(field, _)| *field));
                let hint = near.map(|near| format!("did you mean `{near}`?"));
                let problem = Problem::NoAttribute {
                    what: format!("{static_kind} `{name}`"),
                    name: attribute.to_owned(),
                };
                Err(Fault::from(problem).hint(hint))
            }
        }
    }

    fn call(&self, name: &str, args: &[Value]) -> Result<Option<Value>, Fault> {
        let Some(function) = self.functions.get(name) else {
            return Ok(None);
        };
        let count = function.parameters.len();
        let more = function.variadic.is_some();
        if args.len() < count || (!more && args.len() > count) {
            let expected = match (count, more) {
                (1, false) => "1 argument".to_owned(),
                (count, false) => format!("{count} arguments"),
                (count, true) => format!("{count} arguments or more"),
            };
            return Err(functions::arity(name, &expected, args.len()).into());
        }
        let names = function.parameters.iter().cloned();
        let mut locals: Vec<(String, Value)> = names.zip(args.iter().cloned()).collect();
        if let Some(rest) = &function.variadic {
            locals.push((rest.clone(), Value::Tuple(args[count..].to_vec())));
        }
        let Some(result) = function.block.body.attribute("result") else {
            return Ok(None);
        };
        let scope = self.scope(&result.value_place, locals);
        eval::evaluate(&result.expr, &scope).map(Some)
    }

    fn depth(&self) -> &Cell<usize> {
        &self.depth
    }

    fn outside(&self) -> &Outside {
        &self.around.outside
    }

    fn near_variable(&self, name: &str) -> Option<String> {
        let known = self.variables.keys().chain(self.attributes.keys());
        let known = known.chain(self.around.builtins.keys());
        let near = nearest(name, known.map(String::as_str))?;
        Some(format!("did you mean `{near}`?"))
    }

    fn near_function(&self, name: &str) -> Option<String> {
        let own = self.functions.keys().map(String::as_str);
        let near = nearest(name, own.chain(functions::NAMES.iter().copied()))?;
        Some(format!("did you mean `{near}`?"))
    }
}
