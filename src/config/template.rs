//! Placeholders in paths and names: `{variant}`, `{layer}`, `{arch}`.

use super::{
    at::At,
    error::{Fault, Problem},
    suggest,
    target::TargetName,
};

/// All there are.
const PLACEHOLDERS: &[&str] = &["variant", "layer", "arch"];

/// `template` with the placeholders replaced for `target`.
pub(super) fn expand(template: &At<String>, target: &TargetName) -> Result<String, Fault> {
    let mut out = String::new();
    let mut rest = template.as_str();
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        let Some((name, after)) = after.split_once('}') else {
            let text = template.value.clone();
            return Err(Fault::new(template.place, Problem::OpenBrace { text }));
        };
        out.push_str(match name {
            "variant" => &target.variant,
            "layer" => &target.layer,
            "arch" => &target.platform.architecture,
            _ => {
                let placeholder = format!("{{{name}}}");
                let problem = Problem::Placeholder { placeholder };
                let hint = match suggest::nearest(name, PLACEHOLDERS.iter().copied()) {
                    Some(near) => format!("did you mean `{{{near}}}`?"),
                    None => "known are `{variant}`, `{layer}` and `{arch}`".to_owned(),
                };
                return Err(Fault::new(template.place, problem).hint(hint));
            }
        });
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}
