//! A schema in words: its fields with dotted names, what each may be, and its bounds.

use super::html::{block, code, escape, number, sentence, table};
use simd_json::OwnedValue;
use simd_json::prelude::{
    ValueAsArray, ValueAsObject, ValueAsScalar, ValueObjectAccess, ValueObjectAccessAsArray,
    ValueObjectAccessAsScalar, Writable,
};

/// Words of a list that are shown at once.
const WORDS_MAX: usize = 16;
/// Inside one another; no schema comes near.
const DEPTH_MAX: usize = 8;

/// The description, where references lead.
pub(super) struct Book<'a>(pub(super) &'a OwnedValue);

impl<'a> Book<'a> {
    /// The component of that kind and name.
    pub(super) fn component(&self, kind: &str, name: &str) -> Option<&'a OwnedValue> {
        self.0.get("components")?.get(kind)?.get(name)
    }

    /// What a value says or refers to.
    fn resolved(&self, value: &'a OwnedValue) -> &'a OwnedValue {
        let Some(target) = value.get_str("$ref") else { return value };
        let mut steps = target.trim_start_matches("#/").split('/');
        steps.try_fold(self.0, |at, step| at.get(step)).unwrap_or(value)
    }

    /// A table of everything that an object holds, however deep; of what has a name of its own, a link.
    pub(super) fn fields(&self, label: &str, schema: &'a OwnedValue) -> String {
        let mut rows = Vec::new();
        self.inside(schema, "", &mut rows, 0);
        table(label, &["Field", "Type", "Meaning"], &rows)
    }

    fn inside(&self, schema: &'a OwnedValue, at: &str, rows: &mut Vec<Vec<String>>, depth: usize) {
        if depth > DEPTH_MAX {
            return;
        }
        if let Some(properties) = schema.get("properties").and_then(|all| all.as_object()) {
            let required = schema.get_array("required");
            for (name, inner) in properties.iter() {
                let name = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                let own = name.rsplit('.').next().unwrap_or_default();
                let needed =
                    required.is_some_and(|all| all.iter().any(|one| one.as_str() == Some(own)));
                rows.push(self.row(&name, needed, inner));
                self.inside(inner, &name, rows, depth + 1);
            }
        }
        for word in ["oneOf", "anyOf", "allOf"] {
            for alternative in schema.get_array(word).into_iter().flatten() {
                self.inside(alternative, at, rows, depth + 1);
            }
        }
        if let Some(items) = schema.get("items") {
            self.inside(items, &format!("{at}[]"), rows, depth + 1);
        }
    }

    /// One field: its name, what it may be, what it means.
    pub(super) fn row(&self, name: &str, needed: bool, schema: &'a OwnedValue) -> Vec<String> {
        let need = if needed { " <span class=\"need\">required</span>" } else { "" };
        let bounds = self.bounds(schema);
        let note =
            if bounds.is_empty() { bounds } else { format!("<p class=\"note\">{bounds}</p>") };
        let told =
            schema.get_str("description").or_else(|| self.resolved(schema).get_str("description"));
        let meaning = told.map(sentence).unwrap_or_default();
        vec![format!("{}{need}", code(name)), format!("{}{note}", self.kind(schema)), meaning]
    }

    /// What a value may be, in words with links.
    pub(super) fn kind(&self, schema: &'a OwnedValue) -> String {
        if let Some(target) = schema.get_str("$ref") {
            let name = target.rsplit('/').next().unwrap_or_default();
            return match target.strip_prefix("#/components/schemas/") {
                Some(rest) if !rest.contains('/') => link(name),
                _ => self.kind(self.resolved(schema)),
            };
        }
        if let Some(words) = schema.get_array("enum") {
            return words_of(words);
        }
        if let Some(value) = schema.get("const") {
            return code(&value.encode());
        }
        if let Some(items) = schema.get("items") {
            return self.or_null(schema, &format!("list of {}", self.kind(items)));
        }
        if let Some(types) = types_of(schema) {
            return match schema.get("additionalProperties") {
                Some(inner) if inner.as_object().is_some() && types == "object" => {
                    format!("map of {}", self.kind(inner))
                }
                _ => types,
            };
        }
        for (word, between) in [("oneOf", " or "), ("anyOf", " or "), ("allOf", " and ")] {
            if let Some(alternatives) = schema.get_array(word) {
                let told = alternatives.iter().filter(|one| !is_refinement(one, word));
                return told.map(|one| self.kind(one)).collect::<Vec<_>>().join(between);
            }
        }
        "anything".to_owned()
    }

    fn or_null(&self, schema: &OwnedValue, kind: &str) -> String {
        let types = types_of(schema).unwrap_or_default();
        if types.ends_with("null") { format!("{kind} or null") } else { kind.to_owned() }
    }

    /// The bounds of a value, in words; nothing where there are none.
    pub(super) fn bounds(&self, schema: &'a OwnedValue) -> String {
        let schema = match schema.get_str("$ref") {
            Some(target) if target.matches('/').count() > 3 => self.resolved(schema),
            _ => schema,
        };
        let mut parts = Vec::new();
        for word in ["oneOf", "anyOf"] {
            let told = schema.get_array(word).into_iter().flatten();
            let told: Vec<String> = told
                .filter(|one| !one.contains_key("$ref"))
                .map(|one| match one.get("const") {
                    Some(value) if schema.contains_key("type") => value.encode(),
                    _ => self.bounds(one),
                })
                .filter(|text| !text.is_empty())
                .collect();
            if !told.is_empty() {
                parts.push(told.join(", or "));
            }
        }
        range(schema, ("minimum", "maximum"), "", &mut parts);
        range(schema, ("minLength", "maxLength"), " characters", &mut parts);
        range(schema, ("minItems", "maxItems"), " entries", &mut parts);
        range(schema, ("minProperties", "maxProperties"), " fields", &mut parts);
        if let Some(pattern) = schema.get_str("pattern") {
            parts.push(format!("matches {}", code(pattern)));
        }
        if let Some(pattern) =
            schema.get("propertyNames").and_then(|names| names.get_str("pattern"))
        {
            parts.push(format!("names match {}", code(pattern)));
        }
        for (word, what) in [("items", "each "), ("additionalProperties", "values: ")] {
            let inner = schema.get(word).filter(|inner| !inner.contains_key("$ref"));
            let told = inner.map(|inner| self.bounds(inner)).unwrap_or_default();
            if !told.is_empty() {
                parts.push(format!("{what}{told}"));
            }
        }
        if let Some(value) = schema.get("default").filter(|value| value.as_null().is_none()) {
            parts.push(format!("default {}", code(&value.encode())));
        }
        parts.join(", ")
    }
}

/// A link to a schema's own place.
pub(super) fn link(name: &str) -> String {
    format!("<a href=\"#schema-{name}\">{name}</a>")
}

fn words_of(words: &[OwnedValue]) -> String {
    let shown: Vec<String> = words.iter().map(|word| code(&word.encode())).collect();
    if shown.len() <= WORDS_MAX {
        return shown.join(" ");
    }
    let all = shown.join(" ");
    format!("<details><summary>one of {} words</summary>{all}</details>", shown.len())
}

/// A type, or several, in words.
fn types_of(schema: &OwnedValue) -> Option<String> {
    let types = schema.get("type")?;
    Some(match types.as_array() {
        Some(all) => all.iter().filter_map(|one| one.as_str()).collect::<Vec<_>>().join(" or "),
        None => types.as_str()?.to_owned(),
    })
}

/// Whether an alternative only says more of what another one names.
fn is_refinement(schema: &OwnedValue, word: &str) -> bool {
    word == "allOf" && !schema.contains_key("$ref")
}

fn range(schema: &OwnedValue, (least, most): (&str, &str), unit: &str, parts: &mut Vec<String>) {
    let told = |name: &str| schema.get(name).map(|value| number(&value.encode()));
    parts.push(match (told(least), told(most)) {
        (Some(least), Some(most)) if least == most => format!("{least}{unit}"),
        (Some(least), Some(most)) => format!("{least} to {most}{unit}"),
        (Some(least), None) => format!("at least {least}{unit}"),
        (None, Some(most)) => format!("at most {most}{unit}"),
        (None, None) => return,
    });
}

/// One of the description's schemas: what it is, what it holds, and how it looks.
pub(super) fn card(book: &Book<'_>, name: &str) -> String {
    let Some(schema) = book.component("schemas", name) else { return String::new() };
    let mut out = format!("<article class=\"card\" id=\"schema-{name}\"><h3>{}</h3>", code(name));
    if let Some(text) = schema.get_str("description") {
        out.push_str(&format!("<p>{}</p>", sentence(text)));
    }
    let shapes: Vec<&OwnedValue> = match schema.get_array("oneOf") {
        Some(shapes) if shapes.iter().all(|one| one.contains_key("properties")) => {
            shapes.iter().collect()
        }
        _ => vec![schema],
    };
    for (at, shape) in shapes.iter().enumerate() {
        let which = if shapes.len() > 1 {
            format!(", {} of {}", at + 1, shapes.len())
        } else {
            String::new()
        };
        let label = format!("Fields of {name}{which}");
        match book.fields(&label, shape) {
            rows if rows.is_empty() => {
                let bounds = book.bounds(shape);
                out.push_str(&format!(
                    "<p>{} <span class=\"note\">{bounds}</span></p>",
                    book.kind(shape)
                ));
            }
            rows => out.push_str(&rows),
        }
    }
    if let Some(alternatives) =
        schema.get_array("oneOf").filter(|_| schema.contains_key("properties"))
    {
        let names = alternatives.iter().filter_map(|one| one.get_array("required"));
        let names: Vec<String> =
            names.flatten().filter_map(|name| name.as_str()).map(code).collect();
        out.push_str(&format!("<p class=\"note\">Exactly one of {}.</p>", names.join(", ")));
    }
    out.push_str(&examples(schema));
    out.push_str("</article>");
    out
}

/// A schema's examples.
pub(super) fn examples(schema: &OwnedValue) -> String {
    let all = schema.get_array("examples").into_iter().flatten();
    let shown = all
        .filter(|example| example.as_object().is_some())
        .map(|example| format!("<h4>Example</h4>{}", block("json", &example.encode_pp())));
    shown.collect()
}

/// A row of the tables of codes.
pub(super) fn code_row(id: &str, name: &str, rest: [&str; 3]) -> Vec<String> {
    let mut row = vec![format!("<code id=\"{id}\">{}</code>", escape(name))];
    row.extend(rest.map(str::to_owned));
    row
}
