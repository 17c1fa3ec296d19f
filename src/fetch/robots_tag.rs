//! `X-Robots-Tag`: what a page wants of crawlers, said in a field of its response instead of a `<meta>`.
//!
//! There is no standard; this reads it as Google documents it. A field has rules separated by commas, in
//! any case; a name before a colon says for whose crawler the rules behind it are, until another name.
//! Rules with a value (`max-snippet: 50`, `unavailable_after: 25 Jun 2010 15:00:00 PST`) are no names.
//! Rules for everybody and those for one crawler add up. Of them `noindex`, `nofollow` and `none` (both)
//! count here.

/// Bytes of such fields that are looked at, together.
pub const BYTES_MAX: usize = 4096;
/// Rules that have a value of their own behind a colon.
const VALUED: [&str; 4] =
    ["max-snippet", "max-image-preview", "max-video-preview", "unavailable_after"];

/// What the fields say to one crawler.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RobotsTag {
    /// The page wants to be in no index.
    pub noindex: bool,
    /// It wants none of its links to be followed.
    pub nofollow: bool,
}

/// Reads the values of the response's fields, for the crawler of that product token.
#[must_use]
pub fn read(values: &[Vec<u8>], agent: &str) -> RobotsTag {
    let (mut tag, mut left) = (RobotsTag::default(), BYTES_MAX);
    for value in values {
        let Some(rest) = left.checked_sub(value.len()) else { break };
        left = rest;
        let value = String::from_utf8_lossy(value);
        let mut ours = true;
        for part in value.split(',') {
            let mut rule = part.trim();
            if let Some((name, behind)) = rule.split_once(':') {
                let name = name.trim_end();
                if !is_name(name) {
                    continue;
                }
                ours = name.eq_ignore_ascii_case(agent);
                rule = behind.trim_start();
            }
            if ours {
                let says = |word: &str| rule.eq_ignore_ascii_case(word);
                tag.noindex |= says("noindex") || says("none");
                tag.nofollow |= says("nofollow") || says("none");
            }
        }
    }
    tag
}

/// Whether what stands before a colon may be a crawler's name.
fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.*".contains(&byte);
    !text.is_empty()
        && text.bytes().all(plain)
        && !VALUED.iter().any(|rule| rule.eq_ignore_ascii_case(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn told(values: &[&str]) -> (bool, bool) {
        let values: Vec<_> = values.iter().map(|value| value.as_bytes().to_vec()).collect();
        let tag = read(&values, "Forebay");
        (tag.noindex, tag.nofollow)
    }

    #[test]
    fn rules_are_words_for_everybody_or_for_one() {
        for (values, expected) in [
            (&["noindex"][..], (true, false)),
            (&["NoFollow"], (false, true)),
            (&["none"], (true, true)),
            (&["noarchive, nofollow , nosnippet"], (false, true)),
            (&["noarchive", "noindex"], (true, false)),
            (&["all", "", "noindexed", "no index"], (false, false)),
            (&["forebay: noindex"], (true, false)),
            (&["FOREBAY:none"], (true, true)),
            (&["otherbot: noindex, nofollow"], (false, false)),
            (&["otherbot: noindex", "forebay: nofollow"], (false, true)),
            (&["nofollow", "otherbot: noindex"], (false, true)),
            (&["nofollow", "forebay: noindex"], (true, true)),
            // Two fields that somebody on the way has made one of (RFC 9110 §5.3).
            (&["otherbot: noindex, forebay: nofollow, noarchive"], (false, true)),
            (&["max-snippet: 50, noindex"], (true, false)),
            (&["unavailable_after: 25 Jun 2010 15:00:00 PST, nofollow"], (false, true)),
            (&["unavailable_after: Friday, 25-Jun-10 15:00:00 PST, noindex"], (true, false)),
            (&["max-image-preview:large,none"], (true, true)),
            (&["otherbot: max-snippet: 5, noindex"], (false, false)),
        ] {
            assert_eq!(told(values), expected, "{values:?}");
        }
        let long = "a,".repeat(BYTES_MAX / 2);
        assert_eq!(told(&[&long, "noindex"]), (false, false), "no more is looked at");
    }

    proptest! {
        /// Whatever else a response says, a rule of its own field holds.
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let all = [bytes, b"noindex".to_vec()];
            prop_assert!(read(&all, "Forebay").noindex);
        }
    }
}
