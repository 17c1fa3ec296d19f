//! Text as HTML: nothing that is described gets in unescaped.

use std::fmt::Write as _;

/// A text between tags or in an attribute.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            other => out.push(other),
        }
    }
    out
}

/// A name as it is written.
pub(super) fn code(text: &str) -> String {
    format!("<code>{}</code>", escape(text))
}

/// A sentence in which `` `names` `` stand.
pub(super) fn sentence(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 32);
    for (at, part) in text.split('`').enumerate() {
        out.push_str(&if at % 2 == 0 { escape(part) } else { code(part) });
    }
    out
}

/// Paragraphs of sentences.
pub(super) fn prose(text: &str) -> String {
    text.split("\n\n").map(|part| format!("<p>{}</p>", sentence(part))).collect()
}

/// A number with commas between its thousands.
pub(super) fn number(text: &str) -> String {
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |digits| ("-", digits));
    if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return text.to_owned();
    }
    let mut out = sign.to_owned();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A table; without rows, nothing.
pub(super) fn table(label: &str, head: &[&str], rows: &[Vec<String>]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut out = format!("<table aria-label=\"{}\"><thead><tr>", escape(label));
    for name in head {
        let _ = write!(out, "<th scope=\"col\">{name}</th>");
    }
    out.push_str("</tr></thead><tbody>");
    for row in rows {
        out.push_str("<tr>");
        for cell in row {
            let _ = write!(out, "<td>{cell}</td>");
        }
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table>");
    out
}

/// A block of text that keeps its lines.
pub(super) fn block(class: &str, text: &str) -> String {
    format!("<pre class=\"{class}\">{}</pre>", escape(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text() {
        assert_eq!(sentence("a `<b>` & \"c\""), "a <code>&lt;b&gt;</code> &amp; &quot;c&quot;");
        assert_eq!(prose("a\n\nb"), "<p>a</p><p>b</p>");
        assert_eq!(number("1234567"), "1,234,567");
        assert_eq!((number("-12"), number("1.5")), ("-12".to_owned(), "1.5".to_owned()));
        assert_eq!(table("x", &["a"], &[]), "");
    }
}
