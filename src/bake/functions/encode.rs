//! Encodings and digests.

use base64::Engine as _;
use sha2::Digest as _;

use super::{Args, Outcome};
use crate::bake::{
    csv,
    error::Problem,
    value::{Type, Value},
};

pub(super) fn call(args: &Args<'_>) -> Option<Outcome> {
    let standard = base64::engine::general_purpose::STANDARD;
    Some(match args.name {
        "base64encode" => text(args, |t| standard.encode(t)),
        "base64decode" => args.texts().and_then(|[t]: [String; 1]| {
            let bytes = standard.decode(&t).ok();
            let text = bytes.and_then(|b| String::from_utf8(b).ok());
            text.map(Value::String)
                .ok_or_else(|| args.fail("not base64 of a text"))
        }),
        "md5" => text(args, |t| hex::encode(md5::Md5::digest(t))),
        "sha1" => text(args, |t| hex::encode(sha1::Sha1::digest(t))),
        "sha256" => text(args, |t| hex::encode(sha2::Sha256::digest(t))),
        "sha512" => text(args, |t| hex::encode(sha2::Sha512::digest(t))),
        "urlencode" => text(args, |t| url_encode(&t)),
        "uuidv5" => uuid(args),
        "jsonencode" => args
            .exactly()
            .and_then(|[value]| args.text(value.to_json().to_string())),
        "jsondecode" => args.texts().and_then(|[t]: [String; 1]| {
            let json = serde_json::from_str(&t);
            let json = json.map_err(|error| args.fail(format!("not JSON: {error}")))?;
            Ok(Value::from_json(&json))
        }),
        "csvdecode" => csv_decode(args),
        _ => return None,
    })
}

fn text(args: &Args<'_>, f: impl Fn(String) -> String) -> Outcome {
    let [value] = args.texts()?;
    args.text(f(value))
}

/// As in the query of a URL: a space becomes `+`.
fn url_encode(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            b' ' => out.push('+'),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// A UUID of version 5 (RFC 9562): the SHA-1 of a name in a name space.
fn uuid(args: &Args<'_>) -> Outcome {
    let [space, name] = args.texts()?;
    let last = match space.as_str() {
        "dns" => 0x10,
        "url" => 0x11,
        "oid" => 0x12,
        "x500" => 0x14,
        _ => 0,
    };
    let space = match last {
        0 => {
            let digits: String = space.chars().filter(|c| *c != '-').collect();
            let bytes = hex::decode(digits).ok().filter(|b| b.len() == 16);
            bytes.ok_or_else(|| args.fail(format!("`{space}` is not a UUID")))?
        }
        // The four name spaces of the standard differ in one byte.
        last => {
            let mut known = hex::decode("6ba7b8109dad11d180b400c04fd430c8").unwrap_or_default();
            known[3] = last;
            known
        }
    };
    let mut hash = sha1::Sha1::new();
    hash.update(space);
    hash.update(name);
    let mut bytes = hash.finalize()[..16].to_vec();
    bytes[6] = bytes[6] & 0x0f | 0x50;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let text = hex::encode(bytes);
    let parts = [
        &text[..8],
        &text[8..12],
        &text[12..16],
        &text[16..20],
        &text[20..],
    ];
    Ok(Value::String(parts.join("-")))
}

/// A table whose first row names the columns.
fn csv_decode(args: &Args<'_>) -> Outcome {
    let [text] = args.texts()?;
    let rows = csv::rows(&text).map_err(|message| args.fail(message))?;
    let mut rows = rows.into_iter();
    let header = rows
        .next()
        .ok_or_else(|| args.fail("there is no line with the names of the columns"))?;
    let mut out = Vec::new();
    for row in rows {
        if row.len() != header.len() {
            let message = format!("a line has {} fields, not {}", row.len(), header.len());
            return Err(args.fail(message));
        }
        let row = header
            .iter()
            .cloned()
            .zip(row.into_iter().map(Value::String));
        out.push(Value::Object(row.collect()));
    }
    let of = out.first().map_or(Type::Any, Value::ty);
    Ok::<_, Problem>(Value::list(of, out))
}
