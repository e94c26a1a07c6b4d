//! Compose files.
use std::collections::HashMap;
use super::{Inputs, Warning, error::{Fault, Place}, target::{Group, Target}};
pub(super) struct Composed { pub(super) group: Group, pub(super) targets: Vec<(String, Target)>, pub(super) places: HashMap<String, Place>, pub(super) warnings: Vec<Warning> }
pub(super) fn read(_: &Inputs<'_>, _: &[usize]) -> Result<Composed, Fault> { unreachable!() }
pub(super) fn is_compose(_: &str, _: &Inputs<'_>) -> bool { false }
