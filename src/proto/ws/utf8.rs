//! UTF-8 validation of a text that arrives in pieces (RFC 6455 §8.1).

/// The text is no UTF-8 and no continuation can make it so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InvalidUtf8;

/// Validates a text piece by piece and fails at the first byte that can't belong to one.
///
/// Whole pieces go through the standard library's validator, which is fast; only a sequence cut by
/// the end of a piece (at most three bytes) is kept and finished byte by byte.
#[derive(Debug, Default)]
pub(super) struct Utf8Check {
    cut: [u8; 4],
    cut_len: usize,
}

impl Utf8Check {
    /// Takes the next piece.
    pub(super) fn push(&mut self, mut piece: &[u8]) -> Result<(), InvalidUtf8> {
        while self.cut_len > 0
            && let Some((&byte, rest)) = piece.split_first()
        {
            self.cut[self.cut_len] = byte;
            self.cut_len += 1;
            piece = rest;
            match std::str::from_utf8(&self.cut[..self.cut_len]) {
                Ok(_) => self.cut_len = 0,
                Err(error) if error.error_len().is_some() => return Err(InvalidUtf8),
                Err(_) => {} // at most three bytes so far: four are always whole or wrong
            }
        }
        let Err(error) = std::str::from_utf8(piece) else { return Ok(()) };
        if error.error_len().is_some() {
            return Err(InvalidUtf8);
        }
        let cut = &piece[error.valid_up_to()..];
        self.cut[..cut.len()].copy_from_slice(cut);
        self.cut_len = cut.len();
        Ok(())
    }

    /// Ends the text: it must not stop inside a sequence. Ready for the next text afterwards.
    pub(super) fn finish(&mut self) -> Result<(), InvalidUtf8> {
        if std::mem::take(&mut self.cut_len) == 0 { Ok(()) } else { Err(InvalidUtf8) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The slow, obvious twin: table 3-7 of the Unicode standard, one byte at a time. The index of
    /// the first byte that can't stand there, or the length, and whether the text is whole.
    fn first_bad_byte(text: &[u8]) -> (usize, bool) {
        let mut expected: Vec<(u8, u8)> = Vec::new();
        for (i, &byte) in text.iter().enumerate() {
            if let Some((low, high)) = expected.pop() {
                if !(low..=high).contains(&byte) {
                    return (i, false);
                }
                continue;
            }
            const ANY: (u8, u8) = (0x80, 0xbf);
            expected = match byte {
                0x00..=0x7f => vec![],
                0xc2..=0xdf => vec![ANY],
                0xe0 => vec![ANY, (0xa0, 0xbf)],
                0xe1..=0xec | 0xee..=0xef => vec![ANY, ANY],
                0xed => vec![ANY, (0x80, 0x9f)],
                0xf0 => vec![ANY, ANY, (0x90, 0xbf)],
                0xf1..=0xf3 => vec![ANY, ANY, ANY],
                0xf4 => vec![ANY, ANY, (0x80, 0x8f)],
                _ => return (i, false),
            };
        }
        (text.len(), expected.is_empty())
    }

    /// Bytes that are nearly UTF-8: leads, continuations and borders are likely.
    fn nearly_text() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![
            Just(b'a'),
            Just(0x80u8),
            Just(0x8f),
            Just(0x90),
            Just(0x9f),
            Just(0xa0),
            Just(0xbf),
            Just(0xc2),
            Just(0xe0),
            Just(0xed),
            Just(0xf0),
            Just(0xf4),
            any::<u8>()
        ];
        prop_oneof![
            proptest::collection::vec(byte, 0..12),
            any::<String>().prop_map(String::into_bytes),
            (any::<String>(), any::<u8>(), any::<usize>()).prop_map(|(text, byte, at)| {
                let mut bytes = text.into_bytes();
                let at = at % (bytes.len() + 1);
                bytes.insert(at, byte);
                bytes
            })
        ]
    }

    proptest! {
        #[test]
        fn fails_at_the_first_bad_byte(text in nearly_text()) {
            let (bad, whole) = first_bad_byte(&text);
            let mut check = Utf8Check::default();
            let mut at = 0;
            while at < text.len() && check.push(&text[at..=at]).is_ok() {
                at += 1;
            }
            prop_assert_eq!(at, bad);
            if at == text.len() {
                prop_assert_eq!(check.finish().is_ok(), whole);
            }
        }

        #[test]
        fn pieces_do_not_matter(
            text in nearly_text(), cuts in proptest::collection::vec(0usize..24, 0..4),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.push(text.len());
            cuts.sort_unstable();
            let mut check = Utf8Check::default();
            let mut from = 0;
            let mut verdict = Ok(());
            for cut in cuts {
                verdict = verdict.and_then(|()| check.push(&text[from..cut]));
                from = cut;
            }
            let verdict = verdict.and_then(|()| check.finish());
            prop_assert_eq!(verdict.is_ok(), std::str::from_utf8(&text).is_ok());
        }
    }
}
